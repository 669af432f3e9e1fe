"""suite_training: what it makes of a run, without running one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import suite_training
from benchmarks.suite_training import Row, draw, flat_metrics, show
from treegrpo.envs import list_envs

ROWS = [
    Row("Notes-v0", seed, (True,) + (False,) * 3, (True,) * after + (False,) * (4 - after),
        1_234, 900_000, 0.5, 10.0, 20.0)
    for seed, after in ((0, 3), (1, 4))
]  # fmt: skip


def test_metrics_are_means_over_seeds() -> None:
    metrics = flat_metrics(ROWS)
    assert metrics == {
        "success_starter_Notes": pytest.approx(0.25),
        "success_trained_Notes": pytest.approx(0.875),
    }


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    printed = io.StringIO()
    show(ROWS, Console(width=120, file=printed))
    assert "0.750 [" in printed.getvalue() and "1,234" in printed.getvalue()
    draw(ROWS, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_environments_are_there() -> None:
    assert {f"treegrpo/{name}" for name in suite_training.ENVS} <= set(list_envs())
