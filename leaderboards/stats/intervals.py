"""Intervals in which the task is the unit, not the episode.

Two questions can be asked of one score, and they have different answers:

    "tasks like these"   `clustered_interval`, the default: how well would the agent do on other
                         tasks of the same kind? Tasks differ, trials of a task share its
                         difficulty, so each task is one draw, whatever its number of trials.
    "these tasks"        `these_tasks_interval`: how well does the agent do on exactly these
                         tasks, if all trials were run again? Only the noise of trials counts.

Equation. Each task is reduced to the mean of its trials, m_i; c is the mean over n tasks.

    tasks like these     e^2 = sum (m_i - c)^2 / (n (n - 1)),  df = n - 1
    these tasks          e^2 = sum v_i / n^2,  v_i = s_i^2 / k_i  (s_i^2 unbiased, k_i trials),
                         df = (sum v_i)^2 / sum (v_i^2 / (k_i - 1))         (Satterthwaite)

    no bounds            c +- t e, with t the quantile of Student's t with df degrees of freedom
    bounds (0, 1)        Wilson's form of the same: all p with (c - p)^2 <= t^2 p (1 - p) / N,
                         N = c (1 - c) / e^2, the number of independent trials that would have
                         the standard error e

Source: cluster-robust t with n - 1 degrees of freedom (Liang and Zeger 1986; Miller 2024, arXiv
2411.00640); score interval of a rate (Wilson 1927) with an effective sample size (Kish 1965;
Korn and Graubard 1998). Differences: t in place of the normal quantile, and N is not capped.

Why not c +- t e for rates as well: near 0 and 1 the standard error is estimated from few
failures, and its size goes with the mean, so the symmetric interval misses too often (see
docs/statistics.md). In the middle of the range and with many tasks the two agree.

No spread is not certainty: "10 of 10" does not mean exactly 100 %. If every task has the same
mean, N is the number of tasks for "tasks like these"; if no task's trials differ, N is the
number of episodes for "these tasks"; t is the normal quantile, for nothing was estimated. Without
bounds there is no interval then, and none either
for a single task under the first question or a task with a single trial under the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy import special as _scipy_special

from treegrpo.leaderboards.stats.outcomes import (
    TINY,
    Bounds,
    Outcomes,
    check_confidence,
    least_trials,
    sample_variance,
    task_means,
)

_special: Any = _scipy_special


@dataclass(frozen=True)
class Interval:
    """A mean over tasks with its confidence interval.

    `low` and `high` are None where no interval exists (see the module's text). `method` is "t",
    "wilson", "none", or "combined" for an interval made of other intervals.
    """

    mean: float
    low: float | None
    high: float | None
    num_tasks: int
    method: Literal["t", "wilson", "combined", "none"]

    def __str__(self) -> str:
        """Return "0.750 [0.612, 0.888]", or the mean alone."""
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} [no interval]"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def clustered_interval(
    outcomes: Outcomes, *, bounds: Bounds | None = None, confidence: float = 0.95
) -> Interval:
    """Return the mean over tasks and its interval for tasks like these.

    Args:
        outcomes: per task the values of its trials; every task weighs the same.
        bounds: least and greatest possible value, (0, 1) for success.
        confidence: in (0, 1).

    Raises:
        ValueError: no task, a task without a trial, a value that is not finite or lies
            outside the bounds, or a confidence outside (0, 1).
    """
    means = list(task_means(outcomes, bounds).values())
    check_confidence(confidence)
    count = len(means)
    if count == 1:
        return Interval(means[0], None, None, 1, "none")
    spread = _Spread(math.fsum(means) / count, standard_error(means), count - 1, count, count)
    return spread.interval(bounds, confidence)


def these_tasks_interval(
    outcomes: Outcomes, *, bounds: Bounds | None = None, confidence: float = 0.95
) -> Interval:
    """Return the mean over tasks and its interval for exactly these tasks.

    Args:
        outcomes: per task the values of at least two trials; every task weighs the same.
        bounds: as for `clustered_interval`.
        confidence: in (0, 1).

    Raises:
        TreegrpoError: a task with a single trial, whose noise cannot be seen.
        ValueError: as for `clustered_interval`.
    """
    means = list(task_means(outcomes, bounds).values())
    check_confidence(confidence)
    least_trials(outcomes, 2, "An interval for these tasks")
    shares = [(sample_variance(values) / len(values), len(values)) for values in outcomes.values()]
    total = math.fsum(share for share, _ in shares)
    below = math.fsum(share**2 / (trials - 1) for share, trials in shares)
    num_episodes = sum(trials for _, trials in shares)
    degrees = total**2 / below if below > 0.0 else float(num_episodes - len(means))
    spread = _Spread(
        math.fsum(means) / len(means),
        math.sqrt(total) / len(means),
        degrees,
        len(means),
        num_episodes,
    )
    return spread.interval(bounds, confidence)


def grouped_intervals(
    outcomes: Outcomes,
    groups: Mapping[str, int],
    *,
    bounds: Bounds | None = None,
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


def standard_error(means: Sequence[float]) -> float:
    """Return the standard error of the mean of at least two values (unbiased variance)."""
    return math.sqrt(sample_variance(means) / len(means))


def t_quantile(confidence: float, degrees: float) -> float:
    """Return the two-sided quantile of Student's t."""
    return float(_special.stdtrit(degrees, 0.5 + confidence / 2))


@dataclass(frozen=True)
class _Spread:
    """A mean with its standard error; `size` is N where the error is zero."""

    mean: float
    error: float
    degrees: float
    num_tasks: int
    size: int

    def interval(self, bounds: Bounds | None, confidence: float) -> Interval:
        without = self.error * math.sqrt(self.num_tasks) <= TINY * max(1.0, abs(self.mean))
        quantile = t_quantile(confidence, math.inf if without else self.degrees)
        if bounds is not None:
            low, high = self._wilson(bounds, quantile, without)
            return Interval(self.mean, low, high, self.num_tasks, "wilson")
        if without:
            return Interval(self.mean, None, None, self.num_tasks, "none")
        half = quantile * self.error
        return Interval(self.mean, self.mean - half, self.mean + half, self.num_tasks, "t")

    def _wilson(self, bounds: Bounds, quantile: float, without: bool) -> Bounds:
        least, width = bounds[0], bounds[1] - bounds[0]
        rate = min(max((self.mean - least) / width, 0.0), 1.0)
        size = self.size if without else rate * (1.0 - rate) * (width / self.error) ** 2
        weight = quantile**2 / size
        centre = (rate + weight / 2) / (1.0 + weight)
        half = math.sqrt(weight * rate * (1.0 - rate) + weight**2 / 4) / (1.0 + weight)
        # The mean lies inside but for rounding, and 0 and 1 are ends that are reached.
        low, high = max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))
        return least + width * low, least + width * high
