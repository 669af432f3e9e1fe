"""How far an agent can be relied on: do trials agree, where does variance come from, the worst.

    consistency     the chance that two trials of a task agree, mean over tasks: for c of n solved
                    (c (c - 1) + (n - c)(n - c - 1)) / (n (n - 1))
    trial variance  s_w^2 = sum (x_ij - m_i)^2 / sum (k_i - 1): between trials of one task
    task variance   s_b^2 = max(0, (MS_b - s_w^2) / k_0): between what tasks would score with
                    endless trials; MS_b = sum k_i (m_i - x)^2 / (n - 1), x the mean over
                    episodes, and k_0 = (sum k_i - sum k_i^2 / sum k_i) / (n - 1)
    worst decile    the mean score of the lowest tenth of the tasks, at least one

Sources: one-way random-effects analysis of variance, unbalanced (Searle, Casella and McCulloch
1992, 3.6); agreement of pairs (Fleiss 1971, P_i). Difference: a negative task variance is 0.

The worst decile picks the unlucky tasks along with the hard ones, so it is too low with few
trials; compare it only between rows with equal tasks and trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval
from treegrpo.leaderboards.stats.outcomes import (
    UNIT,
    Outcomes,
    least_trials,
    successes,
    task_means,
)


@dataclass(frozen=True)
class VarianceSplit:
    """Variance of one episode's value: the part of the tasks and the part of the trials."""

    task: float
    trial: float

    @property
    def task_share(self) -> float | None:
        """The tasks' part of the whole (intraclass correlation); None without any variance."""
        whole = self.task + self.trial
        return self.task / whole if whole > 0 else None


@dataclass(frozen=True)
class Reliability:
    """What `reliability` finds; all scores are success rates."""

    consistency: Interval
    variance: VarianceSplit
    worst_decile: float


def reliability(outcomes: Outcomes, *, confidence: float = 0.95) -> Reliability:
    """Return consistency, variance split and worst decile of a run.

    Args:
        outcomes: at least two tasks -> success (0 or 1) of at least two trials each.
        confidence: of the interval of the consistency.

    Raises:
        TreegrpoError: fewer than two tasks, or a task with a single trial.
        ValueError: a value that is neither 0 nor 1, or as for `clustered_interval`.
    """
    counts = successes(outcomes)
    least_trials(outcomes, 2, "Reliability")
    agreement = {
        task: [(c * (c - 1) + (n - c) * (n - c - 1)) / (n * (n - 1))]
        for task, (c, n) in counts.items()
    }
    return Reliability(
        clustered_interval(agreement, bounds=UNIT, confidence=confidence),
        variance_split(outcomes),
        worst_decile(outcomes),
    )


def variance_split(outcomes: Outcomes) -> VarianceSplit:
    """Return the variance between tasks and between trials of a task.

    Raises:
        TreegrpoError: fewer than two tasks, or a task with a single trial.
        ValueError: as for `clustered_interval`.
    """
    means = task_means(outcomes)
    least_trials(outcomes, 2, "A split of the variance")
    if len(means) < 2:
        raise TreegrpoError(
            "A split of the variance asked for, found 1 task, and two are the least. Evaluate "
            "with --tasks 2 or more."
        )
    trials = [len(values) for values in outcomes.values()]
    episodes, extra = sum(trials), len(means) - 1
    within = math.fsum((x - means[task]) ** 2 for task, xs in outcomes.items() for x in xs)
    trial = within / (episodes - len(means))
    centre = math.fsum(len(xs) * means[task] for task, xs in outcomes.items()) / episodes
    between = math.fsum(len(xs) * (means[task] - centre) ** 2 for task, xs in outcomes.items())
    size = (episodes - sum(k * k for k in trials) / episodes) / extra
    return VarianceSplit(max(0.0, (between / extra - trial) / size), trial)


def worst_decile(outcomes: Outcomes) -> float:
    """Return the mean score of the lowest tenth of the tasks, rounded up to whole tasks."""
    means = sorted(task_means(outcomes).values())
    worst = means[: -(-len(means) // 10)]
    return math.fsum(worst) / len(worst)
