"""How often the intervals of the leaderboard hold the truth, in simulation.

A cell is a number of tasks, trials per task, a spread of difficulty and a mean rate. Tasks have
logit chances drawn from a normal distribution whose mean gives the rate; one experiment draws
tasks and trials and asks the leaderboard's own function for the interval. For "tasks like these"
the truth is the rate; for "these tasks" it is the mean chance of the tasks drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize as _scipy_optimize
from scipy import special as _scipy_special

from treegrpo.leaderboards.stats import UNIT, clustered_interval, these_tasks_interval

_optimize: Any = _scipy_optimize
_special: Any = _scipy_special

Question = Literal["tasks like these", "these tasks"]
NOMINAL = 0.95
LEAST, MOST = 0.93, 0.97
NUM_TASKS = (20, 50, 100, 200)
TRIALS = (1, 2, 4, 8)
SPREADS = (0.0, 1.0, 2.0)
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Cell:
    """One setting; `spread` is the standard deviation of the tasks' logit chances."""

    question: Question
    num_tasks: int
    trials: int
    spread: float
    rate: float


@dataclass(frozen=True)
class Coverage:
    """How often one cell's intervals held the truth, plain t intervals beside ours.

    The plain ones are mean +- t x error without bounds; one without spread counts as a miss.
    """

    cell: Cell
    repeats: int
    covered: float
    covered_by_plain_t: float
    width: float

    @property
    def within(self) -> bool:
        """Whether the coverage lies from 93 to 97 %."""
        return LEAST <= self.covered <= MOST

    def row(self) -> dict[str, Any]:
        """Return the numbers as one flat row of a record."""
        return {**asdict(self.cell), **{k: v for k, v in asdict(self).items() if k != "cell"}}


def cells(
    num_tasks: Sequence[int] = NUM_TASKS,
    trials: Sequence[int] = TRIALS,
    spreads: Sequence[float] = SPREADS,
    rates: Sequence[float] = RATES,
) -> list[Cell]:
    """Return every cell of both questions; "these tasks" needs two trials."""
    found: list[Cell] = []
    for count, each, spread, rate in itertools.product(num_tasks, trials, spreads, rates):
        found.append(Cell("tasks like these", count, each, spread, rate))
        if each > 1:
            found.append(Cell("these tasks", count, each, spread, rate))
    return found


def coverage(cell: Cell, *, repeats: int, seed: int) -> Coverage:
    """Return how often a cell's intervals hold the truth in `repeats` experiments."""
    rng = np.random.default_rng([seed, *(int(100 * x) for x in _numbers(cell))])
    ours = clustered_interval if cell.question == "tasks like these" else these_tasks_interval
    centre = mean_logit(cell.rate, cell.spread)
    held = plainly = 0
    width = 0.0
    for _ in range(repeats):
        logits = centre + cell.spread * rng.standard_normal(cell.num_tasks)
        chances = _special.expit(logits)
        solved = rng.random((cell.num_tasks, cell.trials)) < chances[:, None]
        outcomes = dict(enumerate_tasks(solved.astype(float).tolist()))
        truth = cell.rate if cell.question == "tasks like these" else float(chances.mean())
        interval, plain = ours(outcomes, bounds=UNIT), ours(outcomes)
        held += _holds(interval.low, interval.high, truth)
        plainly += _holds(plain.low, plain.high, truth)
        if interval.low is not None and interval.high is not None:
            width += interval.high - interval.low
    return Coverage(cell, repeats, held / repeats, plainly / repeats, width / repeats)


def mean_logit(rate: float, spread: float) -> float:
    """Return the mean of the normal logits whose mean chance is `rate`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def excess(mean: float) -> float:
        return float((_special.expit(mean + spread * nodes) * weights).sum()) - rate

    return float(_optimize.brentq(excess, -20.0, 20.0))


def enumerate_tasks(rows: Sequence[list[float]]) -> list[tuple[str, list[float]]]:
    """Return (name, trials) of each task."""
    return [(str(place), trials) for place, trials in enumerate(rows)]


def summary(found: Sequence[Coverage], question: Question) -> dict[str, float]:
    """Return, for one question, mean and extremes of the coverage and the cells within 93-97 %."""
    rows = [one for one in found if one.cell.question == question]
    return {
        "cells": len(rows),
        "cells_within": sum(one.within for one in rows),
        "mean": sum(one.covered for one in rows) / len(rows),
        "least": min(one.covered for one in rows),
        "most": max(one.covered for one in rows),
        "plain_t_cells_within": sum(LEAST <= one.covered_by_plain_t <= MOST for one in rows),
        "plain_t_least": min(one.covered_by_plain_t for one in rows),
    }


def _numbers(cell: Cell) -> tuple[float, ...]:
    return len(cell.question), cell.num_tasks, cell.trials, cell.spread, cell.rate


def _holds(low: float | None, high: float | None, truth: float) -> bool:
    return low is not None and high is not None and low <= truth <= high
