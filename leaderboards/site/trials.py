"""What several trials of each task say of a run, for its page: do they agree, how often all do.

Every number is computed here from the success of each episode, so its word is "recomputed".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.stats.passes import pass_at_k, pass_hat_k
from treegrpo.leaderboards.stats.reliability import reliability

MAX_K = 10
"""pass@k and pass^k are shown up to this k, whatever the number of trials."""


@dataclass(frozen=True)
class TrialFact:
    """A share from 0 to 1 with its name; the ends are None where it has no interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def trial_facts(episodes: Sequence[EpisodeRecord]) -> list[TrialFact]:
    """Return pass@k and pass^k for each k with n >= 2k trials, then how far trials agree.

    Empty where a task has a single trial, or the run a single task.
    """
    solved: defaultdict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        solved[str(episode.index)].append(float(episode.success))
    fewest = min(map(len, solved.values()), default=0)
    if fewest < 2 or len(solved) < 2:
        return []
    facts: list[TrialFact] = []
    for k in range(1, min(fewest // 2, MAX_K) + 1):
        for name, found in (
            (f"pass@{k}", pass_at_k(solved, k)),
            (f"pass^{k}", pass_hat_k(solved, k)),
        ):
            facts.append(TrialFact(name, found.mean, found.low, found.high))
    found = reliability(solved)
    agreed, share = found.consistency, found.variance.task_share
    facts.append(TrialFact("two trials of a task agree", agreed.mean, agreed.low, agreed.high))
    if share is not None:
        facts.append(TrialFact("variance that lies between tasks", share))
    return [*facts, TrialFact("worst tenth of the tasks", found.worst_decile)]
