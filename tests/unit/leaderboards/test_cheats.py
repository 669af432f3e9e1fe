"""Each cheat is refused, for its own reason, by reading, by replay, and standalone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.leaderboards.cheats import CHEATS, Cheat, copied, table
from tests.unit.leaderboards.toy import TOY, Toy, ToyAgent, forge, half_right
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.verify import verify

ROOT = Path(__file__).resolve().parents[3]
BY_NAME = {cheat.name: cheat for cheat in CHEATS}


def bundle(out: Path) -> Path:
    evaluate(ToyAgent(half_right), TOY, split="test", num_tasks=3, trials=2, seed=1, out=out)
    return out


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("cheats") / "honest")


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(CHEATS) >= 50
    assert len(BY_NAME) == len(CHEATS)


def test_the_honest_bundle_and_its_copy_are_taken(honest: Path, tmp_path: Path) -> None:
    copied(honest, tmp_path / "copy")
    assert verify(tmp_path / "copy").verified
    assert standalone_verify.check(tmp_path / "copy") == read_bundle(honest).digest


@pytest.mark.parametrize("name", BY_NAME)
def test_a_cheat_is_refused_for_its_reason(honest: Path, tmp_path: Path, name: str) -> None:
    cheat: Cheat = BY_NAME[name]
    cheat.apply(honest, tmp_path / "cheat")
    if cheat.by == "replay":
        assert read_bundle(tmp_path / "cheat").path == tmp_path / "cheat"
        standalone_verify.check(tmp_path / "cheat")  # its files are in order
        report = verify(tmp_path / "cheat")
        assert not report.verified
        assert re.search(cheat.reason, str(report.first_difference)), report.first_difference
        return
    with pytest.raises(BundleError, match=cheat.reason) as caught:
        read_bundle(tmp_path / "cheat")
    assert len(str(caught.value)) < 1_000
    if cheat.by == "reading":
        with pytest.raises(standalone_verify.Refused):
            standalone_verify.check(tmp_path / "cheat")


def test_a_larger_budget_of_a_patched_environment_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toy, "max_turns", 9)
    bundle(tmp_path / "patched")
    monkeypatch.undo()
    report = verify(tmp_path / "patched")
    assert report.changed == ("budgets",)
    assert "environment-mismatch at step 4, field" in str(report.first_difference)
    hidden = forge(
        tmp_path / "patched", tmp_path / "hidden", head=lambda h: h["budgets"].update(max_turns=4)
    )
    assert "diverged at step 4, field" in str(verify(hidden).first_difference)


def test_the_document_has_the_table() -> None:
    assert table() in (ROOT / "docs" / "bundles_cheats.md").read_text()


@pytest.mark.parametrize("name", [None, "reward edited in its line", "decompression bomb"])
def test_the_standalone_file_needs_no_site_and_no_package(
    honest: Path, tmp_path: Path, name: str | None
) -> None:
    path = honest
    if name is not None:
        path = tmp_path / "cheat"
        BY_NAME[name].apply(honest, path)
    script = tmp_path / "standalone_verify.py"
    script.write_bytes(Path(standalone_verify.__file__).read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), str(path)],
        cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if name is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{read_bundle(honest).digest}: well-formed")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("refused: ")
        assert "Traceback" not in done.stderr
