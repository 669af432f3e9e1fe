"""Intervals in which the task is the unit, not the episode.

Trials of one task share its difficulty, so they are not independent. Each task is reduced to
the mean of its trials first; the interval is Student's t over those means with
(tasks - 1) degrees of freedom. An interval over episodes would be too narrow: at 80 tasks x 4
trials with realistic spread it covers some 85 % where it promises 95 %.

When every task has the same mean the t interval has width zero and would claim certainty
("10 of 10, so exactly 100 %"). A bounded quantity then gets the Jeffreys interval in which
each task is one trial, however often it was run: Beta(x + 1/2, n - x + 1/2) quantiles with
x the sum of the task means, and the bound itself where all tasks stand on it. Jeffreys rather
than Wilson or Clopper-Pearson because it keeps the order of rows: the lower end for n of n is
above the t interval's lower end for n - 1 of n, at every n. An unbounded quantity gets no
interval, and neither does a single task: its spread cannot be estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats as _scipy_stats

from treegrpo.leaderboards.errors import TasksDiffer

_stats: Any = _scipy_stats

Outcomes = Mapping[str, Sequence[float]]
"""Task -> one value per trial."""

UNIT = (0.0, 1.0)
"""The bounds of a rate."""

_EQUAL = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean over tasks with its confidence interval.

    `low` and `high` are None where no interval exists (see the module's text); `method` is
    "t", "jeffreys" or "none".
    """

    mean: float
    low: float | None
    high: float | None
    num_tasks: int
    method: Literal["t", "jeffreys", "none"]

    def __str__(self) -> str:
        """Return "0.750 [0.612, 0.888]", or the mean alone."""
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} [no interval]"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class PairedDifference:
    """After minus before on the same tasks: interval, two-sided p, and counts of tasks.

    `p_value` is that of the paired t test; None where the differences have no spread.
    """

    difference: Interval
    p_value: float | None
    wins: int
    ties: int
    losses: int


def clustered_interval(
    outcomes: Outcomes,
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean over tasks and its t interval, tasks being the clusters.

    Args:
        outcomes: per task the values of its trials; every task weighs the same.
        bounds: least and greatest possible value, (0, 1) for success; the interval is
            clipped to them.
        confidence: in (0, 1).

    Raises:
        ValueError: no task, a task without a trial, a value that is not finite or lies
            outside the bounds, or a confidence outside (0, 1).
    """
    means = _task_means(outcomes, bounds)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}.")
    count = len(means)
    centre = math.fsum(means) / count
    if count == 1:
        return Interval(centre, None, None, 1, "none")
    error = standard_error(means)
    if error * math.sqrt(count) <= _EQUAL * max(1.0, abs(centre)):
        return _without_spread(centre, count, bounds, confidence)
    half = float(_stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    low, high = centre - half, centre + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(centre, low, high, count, "t")


def grouped_intervals(
    outcomes: Outcomes,
    groups: Mapping[str, int],
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> dict[int, Interval]:
    """Return one interval per group (difficulty, such as the number of hops), sorted.

    Args:
        outcomes: as for `clustered_interval`.
        groups: task -> group; a task without a group is left out.
        bounds: as for `clustered_interval`.
        confidence: as for `clustered_interval`.
    """
    found: dict[int, Interval] = {}
    for group in sorted(set(groups.values())):
        inside = {task: v for task, v in outcomes.items() if groups.get(task) == group}
        if inside:
            found[group] = clustered_interval(inside, bounds=bounds, confidence=confidence)
    return found


def paired_difference(
    before: Outcomes,
    after: Outcomes,
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> PairedDifference:
    """Return after minus before, each task compared with itself.

    Numbers of trials may differ; the tasks may not.

    Args:
        before: task -> values of the first agent.
        after: task -> values of the second agent.
        bounds: bounds of the values themselves; differences then lie in +-(high - low).
        confidence: in (0, 1).

    Raises:
        TasksDiffer: the two do not hold the same tasks; some are named.
    """
    if set(before) != set(after):
        raise _differing_tasks(set(before), set(after))
    first, second = _named_means(before, bounds), _named_means(after, bounds)
    changes = {task: second[task] - first[task] for task in first}
    reach = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    interval = clustered_interval(
        {task: [change] for task, change in changes.items()}, bounds=reach, confidence=confidence
    )
    p_value = None
    if interval.method == "t":
        ratio = abs(interval.mean) / standard_error(list(changes.values()))
        p_value = 2.0 * float(_stats.t.sf(ratio, len(changes) - 1))
    wins = sum(change > _EQUAL for change in changes.values())
    losses = sum(change < -_EQUAL for change in changes.values())
    return PairedDifference(interval, p_value, wins, len(changes) - wins - losses, losses)


def standard_error(means: Sequence[float]) -> float:
    """Return the standard error of the mean of at least two values (unbiased variance)."""
    count = len(means)
    centre = math.fsum(means) / count
    variance = math.fsum((mean - centre) ** 2 for mean in means) / (count - 1)
    return math.sqrt(variance / count)


def _without_spread(
    centre: float, count: int, bounds: tuple[float, float] | None, confidence: float
) -> Interval:
    if bounds is None:
        return Interval(centre, None, None, count, "none")
    least, width = bounds[0], bounds[1] - bounds[0]
    rate = min(max((centre - least) / width, 0.0), 1.0)
    tail, solved = (1.0 - confidence) / 2, rate * count
    shape = solved + 0.5, count - solved + 0.5
    low = 0.0 if rate <= _EQUAL else float(_stats.beta.ppf(tail, *shape))
    high = 1.0 if rate >= 1.0 - _EQUAL else float(_stats.beta.ppf(1.0 - tail, *shape))
    return Interval(centre, least + width * low, least + width * high, count, "jeffreys")


def _task_means(outcomes: Outcomes, bounds: tuple[float, float] | None) -> list[float]:
    return list(_named_means(outcomes, bounds).values())


def _named_means(outcomes: Outcomes, bounds: tuple[float, float] | None) -> dict[str, float]:
    if not outcomes:
        raise ValueError("An interval needs at least one task; none was given.")
    means: dict[str, float] = {}
    for task, values in outcomes.items():
        if not values:
            raise ValueError(f"Task '{task}' has no trial; leave it out or run it.")
        for value in values:
            outside = bounds is not None and not bounds[0] <= value <= bounds[1]
            if not math.isfinite(value) or outside:
                raise ValueError(f"Task '{task}' has the value {value}, outside {bounds}.")
        means[task] = math.fsum(values) / len(values)
    return means


def _differing_tasks(before: set[str], after: set[str]) -> TasksDiffer:
    only_before, only_after = sorted(before - after), sorted(after - before)
    return TasksDiffer(
        "A paired difference asked for, but the tasks differ: "
        f"{len(only_before)} only in the first {only_before[:3]}, "
        f"{len(only_after)} only in the second {only_after[:3]}. "
        "Evaluate both agents with the same env, split, tasks and first index."
    )
