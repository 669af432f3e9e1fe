"""Statistics in which the task is the unit: pure functions of task -> one value per trial.

    intervals      a score with its interval, for tasks like these and for these tasks
    paired         two rows on the same tasks: t test, sign flips, effect size, Holm
    passes         pass@k and pass^k
    ranks          rank ranges, tiers, upper-bound rank
    suite_score    one score over several environments, null = 0 and oracle = 1
    budget         the score at a budget, from one run
    reliability    agreement of trials, variance of tasks and trials, worst decile
    planner        how many tasks show a difference

Each file gives its equations, their sources, and what differs from them.
"""

from __future__ import annotations

from treegrpo.leaderboards.stats.intervals import (
    Interval,
    clustered_interval,
    grouped_intervals,
    standard_error,
    these_tasks_interval,
)
from treegrpo.leaderboards.stats.outcomes import UNIT, Bounds, Outcomes
from treegrpo.leaderboards.stats.paired import (
    Comparison,
    PairedDifference,
    compare_all,
    holm,
    paired_difference,
    sign_flip_p,
)

__all__ = [
    "UNIT",
    "Bounds",
    "Comparison",
    "Interval",
    "Outcomes",
    "PairedDifference",
    "clustered_interval",
    "compare_all",
    "grouped_intervals",
    "holm",
    "paired_difference",
    "sign_flip_p",
    "standard_error",
    "these_tasks_interval",
]
