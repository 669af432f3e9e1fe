"""Intervals hold the truth as often as they promise: a short run of the coverage benchmark."""

from __future__ import annotations

import pytest

from benchmarks._board_coverage import Cell, coverage, mean_logit, summary

REPEATS = 1_500
"""The standard error of a coverage of 95 % is 0.56 points."""


@pytest.mark.parametrize(
    "cell",
    [
        Cell("tasks like these", 50, 4, 1.0, 0.5),
        Cell("tasks like these", 50, 2, 2.0, 0.7),
        Cell("tasks like these", 100, 4, 2.0, 0.1),
        Cell("these tasks", 20, 8, 2.0, 0.3),
        Cell("these tasks", 100, 2, 1.0, 0.5),
    ],
    ids=lambda cell: f"{cell.question}-{cell.num_tasks}x{cell.trials}-{cell.spread}-{cell.rate}",
)
def test_coverage_is_within_two_points_of_nominal(cell: Cell) -> None:
    found = coverage(cell, repeats=REPEATS, seed=0)
    assert found.within, found


def test_few_tasks_err_on_the_wide_side() -> None:
    """With 20 tasks the steps of a count keep some cells above 97 %; no interval is too narrow."""
    for cell in (
        Cell("tasks like these", 20, 4, 1.0, 0.5),
        Cell("tasks like these", 20, 1, 0.0, 0.3),
        Cell("these tasks", 20, 2, 1.0, 0.3),
    ):
        found = coverage(cell, repeats=REPEATS, seed=0)
        assert 0.95 <= found.covered < 1.0, found


def test_wilsons_form_holds_where_the_plain_interval_fails() -> None:
    """Few failures: the standard error goes with the mean, so the symmetric interval misses."""
    found = coverage(Cell("tasks like these", 50, 1, 1.0, 0.1), repeats=REPEATS, seed=0)
    assert found.covered >= 0.93
    assert found.covered_by_plain_t < 0.91


def test_the_mean_of_the_chances_is_the_rate() -> None:
    # without spread the chance is that of the one logit: log(0.3 / 0.7)
    assert mean_logit(0.3, 0.0) == pytest.approx(-0.847298, abs=1e-6)
    assert mean_logit(0.5, 2.0) == pytest.approx(0.0, abs=1e-9)
    # spread pulls a mean towards one half, so the logit has to lie further out
    assert mean_logit(0.1, 2.0) < mean_logit(0.1, 0.0)


def test_the_summary_counts_cells_of_one_question() -> None:
    cells = [Cell("tasks like these", 20, 1, 0.0, 0.5), Cell("these tasks", 20, 2, 0.0, 0.5)]
    found = [coverage(cell, repeats=50, seed=1) for cell in cells]
    shown = summary(found, "these tasks")
    assert shown["cells"] == 1
    assert shown["mean"] == shown["least"] == shown["most"] == found[1].covered
    assert found[0].row()["num_tasks"] == 20
    assert found[0] == coverage(cells[0], repeats=50, seed=1)
