"""pass@k and pass^k: at least one of k trials solves the task, and all k trials do.

Equations, for a task with n trials of which c succeeded, over all C(n, k) subsets of k trials:

    pass@k = 1 - C(n - c, k) / C(n, k)        pass^k = C(c, k) / C(n, k)

Both are unbiased for independent trials; the score is the mean over tasks, with the interval
for tasks like these.

Sources: Chen et al. 2021, arXiv 2107.03374, eq. 1 (pass@k); Yao et al. 2024, arXiv 2406.12045
(pass^k). Differences: exact integers in place of products of floats; intervals; and pass^k
needs n >= 2k trials. With n = k a task counts only if it never failed: a task that succeeds
three times out of four has pass^4 = 0 at n = 4 and, in the mean, 0.32 in truth, so single tasks
and small boards jump; from 2k on each task's value has several subsets behind it.
"""

from __future__ import annotations

import math
from fractions import Fraction

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval
from treegrpo.leaderboards.stats.outcomes import UNIT, Outcomes, shown, successes


def pass_at_k(outcomes: Outcomes, k: int, *, confidence: float = 0.95) -> Interval:
    """Return the mean over tasks of the chance that one of k trials solves the task.

    Args:
        outcomes: task -> success (0 or 1) of each trial.
        k: at least 1, at most the trials of every task.
        confidence: in (0, 1).

    Raises:
        TreegrpoError: k below 1, or a task with fewer than k trials.
        ValueError: a value that is neither 0 nor 1, or as for `clustered_interval`.
    """
    counts = _counts(outcomes, k, 1, "pass@")
    values = {
        task: [float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))]
        for task, (c, n) in counts.items()
    }
    return clustered_interval(values, bounds=UNIT, confidence=confidence)


def pass_hat_k(outcomes: Outcomes, k: int, *, confidence: float = 0.95) -> Interval:
    """Return the mean over tasks of the chance that all of k trials solve the task.

    Args:
        outcomes: task -> success (0 or 1) of each trial.
        k: at least 1, at most half the trials of every task.
        confidence: in (0, 1).

    Raises:
        TreegrpoError: k below 1, or a task with fewer than 2k trials.
        ValueError: a value that is neither 0 nor 1, or as for `clustered_interval`.
    """
    counts = _counts(outcomes, k, 2, "pass^")
    values = {
        task: [float(Fraction(math.comb(c, k), math.comb(n, k)))] for task, (c, n) in counts.items()
    }
    return clustered_interval(values, bounds=UNIT, confidence=confidence)


def _counts(outcomes: Outcomes, k: int, factor: int, name: str) -> dict[str, tuple[int, int]]:
    if k < 1:
        raise TreegrpoError(f"{name}{k} asked for; k is the number of trials, at least 1.")
    counts = successes(outcomes)
    task, (_, fewest) = min(counts.items(), key=lambda item: item[1][1])
    if fewest < factor * k:
        rule = f"n >= {factor}k = {factor * k}" if factor > 1 else f"n >= k = {k}"
        lower = fewest // factor
        instead = f", or ask for k <= {lower}" if lower else ""
        raise TreegrpoError(
            f"{name}{k} asked for, which needs {rule} trials of every task; task "
            f"{shown(task)} has n = {fewest}. Evaluate with --trials {factor * k}{instead}."
        )
    return counts
