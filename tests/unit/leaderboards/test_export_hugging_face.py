"""Bundles as entries of .eval_results: what the Hub's own reader finds in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.leaderboards.exported import toy_bundle
from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.export.hugging_face import entry, write


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", env_kwargs={"format": "hermes"})


def test_one_entry(bundle: Bundle, tmp_path: Path) -> None:
    write(bundle, tmp_path / "toy.yaml")
    (found,) = yaml.safe_load((tmp_path / "toy.yaml").read_text(encoding="ascii"))
    assert list(found) == ["dataset", "value", "date", "evaluation_framework", "notes"]
    assert found["dataset"] == {"id": "tests/Toy-v0", "task_id": "test format=hermes"}
    assert found["value"] == pytest.approx(2 / 3)
    # A text, as the format has it: bare, it would be read as a moment.
    assert found["date"] == bundle.manifest.created
    assert found["notes"].startswith(
        "With tools; 3 tasks x 2 trials; 95 % interval over tasks 0.04"
    )
    assert found["notes"].endswith(f"agent half right; bundle sha256 {bundle.digest}")


def test_failures_are_named(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", env_kwargs={"trouble": "reset"}, trials=1)
    assert "; 2 failed episodes count as 0; " in entry(bundle)["notes"]


@pytest.mark.parametrize(
    "name", ["a: {b: *c} # d", "'\"- |", "!!python/object:os.system", "NO", "Zo\u00e9"]
)
def test_a_name_that_is_yaml_stays_a_name(name: str, tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", name=name, num_tasks=1, trials=1)
    write(bundle, tmp_path / "toy.yaml")
    (found,) = yaml.safe_load((tmp_path / "toy.yaml").read_text(encoding="ascii"))
    assert f"; agent {name}; " in found["notes"]
