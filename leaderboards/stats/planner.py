"""How many tasks does it take to see a difference?

With K trials per task, task variance s_b^2, trial variance s_w^2 (see reliability.py) and
correlation r between what two agents would score on a task, the difference of one task has

    paired      v = 2 s_b^2 (1 - r) + 2 s_w^2 / K      both agents on the same T tasks
    unpaired    v = 2 (s_b^2 + s_w^2 / K)              each agent on T tasks of its own

and the two-sided t test with df = T - 1 (paired) or 2 T - 2 (unpaired) finds a true difference D
with the chance P(|t| > t_crit), where t is noncentral with d = D / sqrt(v / T). The answer is
the least T for which that chance reaches the power asked for.

Sources: power of the t test (Cohen 1988); variance of clustered means (Miller 2024, arXiv
2411.00640, section 5). Differences: noncentral t in place of the normal distribution, which asks
for a task or two too few; the correlation is of the tasks' own scores, so trial noise does not
hide it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special as _scipy_special

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.intervals import t_quantile
from treegrpo.leaderboards.stats.outcomes import Outcomes, sample_variance, task_means
from treegrpo.leaderboards.stats.reliability import VarianceSplit, variance_split

_special: Any = _scipy_special
MAX_TASKS = 10_000_000
_NORMAL_FROM = 5_000
"""Degrees of freedom from which the normal distribution takes the noncentral t's place."""


@dataclass(frozen=True)
class Plan:
    """Tasks for one number of trials; each agent runs tasks x trials episodes."""

    trials: int
    paired_tasks: int
    unpaired_tasks: int


def plan(
    difference: float,
    *,
    power: float,
    variance: VarianceSplit,
    correlation: float,
    trials: int,
    significance: float = 0.05,
) -> Plan:
    """Return how many tasks show a difference between two agents of the same variances.

    Args:
        difference: the true difference of the scores, not 0.
        power: the chance to find it, in (significance, 1).
        variance: of one episode's value.
        correlation: of the two agents' true task scores, from -1 to 1.
        trials: episodes per task and agent, at least 1.
        significance: two-sided, in (0, 1).

    Raises:
        TreegrpoError: a value out of its range, or more than 10 million tasks needed.
    """
    _check(difference, power, correlation, trials, significance)
    noise = 2.0 * variance.trial / trials
    paired = 2.0 * variance.task * (1.0 - correlation) + noise
    unpaired = 2.0 * variance.task + noise
    return Plan(
        trials,
        _least_tasks(difference, paired, power, significance, groups=1),
        _least_tasks(difference, unpaired, power, significance, groups=2),
    )


def power_of(
    difference: float, variance: float, num_tasks: int, *, groups: int, significance: float = 0.05
) -> float:
    """Return the chance that the t test finds a difference.

    Args:
        difference: the true one.
        variance: of one task's difference, `v` of the module's text.
        num_tasks: at least 2, of each agent.
        groups: 1 if both agents run the same tasks, 2 if each has its own.
        significance: two-sided, in (0, 1).
    """
    degrees = groups * (num_tasks - 1)
    if variance <= 0.0:
        return 1.0
    shift = abs(difference) / math.sqrt(variance / num_tasks)
    limit = t_quantile(1.0 - significance, degrees)
    if degrees >= _NORMAL_FROM:
        return float(_special.ndtr(shift - limit) + _special.ndtr(-shift - limit))
    below = _special.nctdtr(degrees, shift, -limit)
    return float(1.0 - _special.nctdtr(degrees, shift, limit) + below)


def observed_correlation(first: Outcomes, second: Outcomes) -> float:
    """Return the correlation of two agents' true scores over the tasks they share, in [-1, 1].

    The variance of the task differences is split into the part of trial noise, which is known
    from the trials, and the rest, 2 s_b^2 (1 - r) with s_b^2 the mean of both agents'.

    Raises:
        TreegrpoError: fewer than two common tasks, a single trial, or tasks that do not differ,
            so that there is nothing to correlate.
    """
    tasks = sorted(set(first) & set(second))
    rows = [{task: row[task] for task in tasks} for row in (first, second)]
    if len(tasks) < 2:
        raise TreegrpoError(
            f"The correlation of two runs asked for, which have {len(tasks)} tasks in common, "
            "and two are the least. Give runs of the same env, split and tasks."
        )
    splits = [variance_split(row) for row in rows]
    between = sum(split.task for split in splits) / 2
    if between <= 0.0:
        raise TreegrpoError(
            "The correlation of two runs asked for, but their tasks do not differ beyond the "
            "noise of trials. State --correlation."
        )
    means = [task_means(row) for row in rows]
    spread = sample_variance([means[1][task] - means[0][task] for task in tasks])
    noise = sum(
        split.trial * sum(1 / len(values) for values in row.values()) / len(tasks)
        for split, row in zip(splits, rows, strict=True)
    )
    return min(1.0, max(-1.0, 1.0 - (spread - noise) / (2.0 * between)))


def observed(runs: Sequence[Outcomes]) -> tuple[VarianceSplit, float | None]:
    """Return the mean variances of runs, and the mean correlation of every pair with common tasks.

    The correlation is None where no two runs share two tasks.

    Raises:
        TreegrpoError: no run, or as for `variance_split` and `observed_correlation`.
    """
    if not runs:
        raise TreegrpoError("Observed variances asked for, but no run was given. Name one.")
    splits = [variance_split(run) for run in runs]
    pairs = [
        observed_correlation(a, b)
        for a, b in itertools.combinations(runs, 2)
        if len(set(a) & set(b)) > 1
    ]
    split = VarianceSplit(
        sum(one.task for one in splits) / len(splits),
        sum(one.trial for one in splits) / len(splits),
    )
    return split, sum(pairs) / len(pairs) if pairs else None


def _least_tasks(
    difference: float, variance: float, power: float, significance: float, *, groups: int
) -> int:
    def enough(num_tasks: int) -> bool:
        found = power_of(difference, variance, num_tasks, groups=groups, significance=significance)
        return found >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > MAX_TASKS:
            raise TreegrpoError(
                f"A plan for a difference of {difference} asked for, which needs more than "
                f"{MAX_TASKS:,} tasks. Ask for a greater difference or less power."
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(
    difference: float, power: float, correlation: float, trials: int, significance: float
) -> None:
    def refuse(name: str, value: float, rule: str) -> None:
        raise TreegrpoError(f"A plan with {name} {value} asked for; {rule}.")

    if not (math.isfinite(difference) and difference != 0):
        refuse("difference", difference, "it is a finite number other than 0")
    if not 0 < significance < 1:
        refuse("significance", significance, "it lies between 0 and 1")
    if not significance < power < 1:
        refuse("power", power, f"it lies between the significance, {significance}, and 1")
    if not -1 <= correlation <= 1:
        refuse("correlation", correlation, "it lies from -1 to 1")
    if trials < 1:
        refuse("trials", trials, "at least 1 is needed")
