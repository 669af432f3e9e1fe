"""What every statistic takes: task -> one value per trial, checked in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.errors import TasksDiffer

Outcomes = Mapping[str, Sequence[float]]
"""Task -> one value per trial."""

Bounds = tuple[float, float]
"""Least and greatest possible value."""

UNIT: Bounds = (0.0, 1.0)
"""The bounds of a rate."""

_NUMBERS = {float, int, bool}

TINY = 1e-12
"""Differences below this are rounding, not results."""


def task_means(outcomes: Outcomes, bounds: Bounds | None = None) -> dict[str, float]:
    """Return each task's mean over its trials, in the order of the tasks given.

    Raises:
        ValueError: no task, a task without a trial, a value that is no finite number or lies
            outside the bounds.
    """
    if not outcomes:
        raise ValueError("An interval needs at least one task; none was given.")
    means: dict[str, float] = {}
    for task, values in outcomes.items():
        if not values:
            raise ValueError(f"Task {shown(task)} has no trial; leave it out or run it.")
        if not _plain(values, bounds):
            for value in values:
                _check_value(task, value, bounds)
        means[task] = math.fsum(values) / len(values)
    return means


def successes(outcomes: Outcomes) -> dict[str, tuple[int, int]]:
    """Return (solved trials, trials) of each task.

    Raises:
        ValueError: as for `task_means`, and for a value that is neither 0 nor 1.
    """
    task_means(outcomes, UNIT)
    for task, values in outcomes.items():
        other = next((value for value in values if value not in (0.0, 1.0)), None)
        if other is not None:
            raise ValueError(
                f"Task {shown(task)} has the value {other}, where success is 0 or 1. Give "
                "success, not reward."
            )
    return {task: (int(sum(values)), len(values)) for task, values in outcomes.items()}


def least_trials(outcomes: Outcomes, wanted: int, what: str) -> None:
    """Refuse outcomes in which a task has fewer trials than `what` needs.

    Raises:
        TreegrpoError: names the first such task, its trials and the option to raise.
    """
    for task, values in outcomes.items():
        if len(values) < wanted:
            raise TreegrpoError(
                f"{what} asked for, which needs {wanted} trials of every task; task "
                f"{shown(task)} has {len(values)}. Evaluate with --trials {wanted}."
            )


def same_tasks(first: Outcomes, second: Outcomes) -> None:
    """Refuse two outcomes that do not hold the same tasks.

    Raises:
        TasksDiffer: says how many differ and names some.
    """
    if set(first) == set(second):
        return
    only_first, only_second = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    raise TasksDiffer(
        "A paired difference asked for, but the tasks differ: "
        f"{len(only_first)} only in the first {_some(only_first)}, "
        f"{len(only_second)} only in the second {_some(only_second)}. "
        "Evaluate both agents with the same env, split, tasks and first index."
    )


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}.")


def sample_variance(values: Sequence[float]) -> float:
    """Return the unbiased variance of at least two values."""
    centre = math.fsum(values) / len(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _plain(values: Sequence[float], bounds: Bounds | None) -> bool:
    """Return whether nothing can be wrong, which is quick to see for a whole task."""
    if not set(map(type, values)) <= _NUMBERS or not math.isfinite(sum(values)):
        return False
    return bounds is None or bounds[0] <= min(values) <= max(values) <= bounds[1]


def _check_value(task: str, value: Any, bounds: Bounds | None) -> None:
    if not isinstance(value, (int, float)):
        raise ValueError(
            f"Task {shown(task)} has a value of type {type(value).__name__}; give numbers."
        )
    outside = bounds is not None and not bounds[0] <= value <= bounds[1]
    if outside or not math.isfinite(value):
        raise ValueError(f"Task {shown(task)} has the value {value}, outside {bounds}.")


def shown(task: str) -> str:
    """Return a name that may come from a file: quoted, short, without control characters."""
    return repr(task if len(task) <= 80 else task[:80] + "...")


def _some(tasks: Sequence[str]) -> str:
    return "[" + ", ".join(shown(task) for task in tasks[:3]) + "]"
