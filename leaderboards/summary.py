"""The numbers of a bundle, recomputed from its episodes; none of them is stored in it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from treegrpo.leaderboards.bundle import EPISODES, Bundle
from treegrpo.leaderboards.errors import BundleError, TasksDiffer
from treegrpo.leaderboards.schema import AGENT_FAILURES, EpisodeRecord
from treegrpo.leaderboards.stats import (
    UNIT,
    Interval,
    PairedDifference,
    clustered_interval,
    grouped_intervals,
    paired_difference,
)
from treegrpo.leaderboards.stats.budget import Spent
from treegrpo.leaderboards.usage import total


@dataclass(frozen=True)
class EvaluationSummary:
    """Scores of one bundle with 95 % intervals over tasks.

    `turns` and `tool_calls` are means per episode, `search_turns` and `search_tool_calls` those
    in forks, beside them (None: nobody searched). Tokens, dollars and requests are totals, None
    as soon as one episode has no count. `failures` counts episodes by who made them fail; they
    scored 0, and `first_failure` says what happened in the first of them.
    """

    agent: str
    env_id: str
    split: str
    num_tasks: int
    trials: int
    success: Interval
    reward: Interval
    success_by_difficulty: dict[int, Interval]
    turns: float
    tool_calls: float
    sampled_tokens: int | None
    end_reasons: dict[str, int]
    failures: dict[str, int]
    first_failure: str | None
    digest: str
    input_tokens: int | None
    dollars: Decimal | None
    requests: int | None
    search_turns: float | None
    search_tool_calls: float | None

    @property
    def infrastructure_failures(self) -> dict[str, int]:
        """Failures that were not the agent's own; they stay in the denominator all the same."""
        return {who: n for who, n in self.failures.items() if who not in AGENT_FAILURES}


def summarise(bundle: Bundle) -> EvaluationSummary:
    """Return the scores of a bundle.

    Raises:
        BundleError: rewards that are too large to average.
    """
    manifest, episodes = bundle.manifest, bundle.episodes
    difficulties = {
        str(task.index): task.difficulty for task in manifest.tasks if task.difficulty is not None
    }
    success = _by_task(episodes, lambda episode: float(episode.success))
    dollars = [None if e.dollars is None else Decimal(e.dollars) for e in episodes]
    searched = [e.search for e in episodes if e.search is not None]
    return EvaluationSummary(
        agent=manifest.agent.name,
        env_id=manifest.env_id,
        split=manifest.split,
        num_tasks=manifest.num_tasks,
        trials=manifest.trials,
        success=clustered_interval(success, bounds=UNIT),
        reward=reward_interval(episodes),
        success_by_difficulty=grouped_intervals(success, difficulties, bounds=UNIT),
        turns=sum(episode.turns for episode in episodes) / len(episodes),
        tool_calls=sum(episode.tool_calls for episode in episodes) / len(episodes),
        sampled_tokens=total([episode.tokens.output for episode in episodes]),
        end_reasons=_counts(episode.end_reason for episode in episodes),
        failures=_counts(episode.failure for episode in episodes),
        first_failure=next((e.failure_detail for e in episodes if e.failure is not None), None),
        digest=bundle.digest,
        input_tokens=total([episode.tokens.input for episode in episodes]),
        dollars=total(dollars),
        requests=total([episode.requests for episode in episodes]),
        search_turns=sum(s.turns for s in searched) / len(episodes) if searched else None,
        search_tool_calls=sum(s.tool_calls for s in searched) / len(episodes) if searched else None,
    )


def reward_interval(episodes: Sequence[EpisodeRecord]) -> Interval:
    """Return the mean reward over tasks and its 95 % interval.

    Raises:
        BundleError: rewards are so large that their sum or their spread is not finite.
    """
    rewards = _by_task(episodes, lambda episode: float(episode.reward))
    try:
        found = clustered_interval(rewards)
        finite = all(math.isfinite(x) for x in (found.mean, found.low or 0.0, found.high or 0.0))
    except OverflowError:
        found, finite = None, False
    if found is None or not finite:
        raise BundleError(
            f"{EPISODES}, field reward: the rewards asked to be averaged are too large, their sum "
            "or spread is no finite number. Let the environment give smaller ones, then evaluate "
            "again."
        )
    return found


def compare(before: Bundle, after: Bundle) -> dict[str, PairedDifference]:
    """Return after minus before in success: "all", and by difficulty ("1", "2", ...).

    Raises:
        TasksDiffer: other environment, split or tasks.
    """
    first, second = before.manifest, after.manifest
    for field in ("env_id", "env_kwargs", "split", "tasks"):
        if getattr(first, field) != getattr(second, field):
            raise TasksDiffer(
                f"Comparing '{before.path}' with '{after.path}' asked for, but their {field} "
                "differ. Evaluate both agents on the same env, split and tasks."
            )
    groups: dict[str, list[str]] = {"all": [str(task.index) for task in first.tasks]}
    for level in sorted({task.difficulty for task in first.tasks if task.difficulty is not None}):
        groups[str(level)] = [str(t.index) for t in first.tasks if t.difficulty == level]
    outcomes = [_by_task(b.episodes, lambda e: float(e.success)) for b in (before, after)]
    return {
        name: paired_difference(
            *({task: found[task] for task in tasks} for found in outcomes), bounds=UNIT
        )
        for name, tasks in groups.items()
    }


CostUnit = Literal["turns", "tool_calls", "sampled_tokens", "dollars"]
"""What a budget can be counted in."""


def success_by_task(bundle: Bundle) -> dict[str, list[float]]:
    """Return the index of each task -> success (0 or 1) of each trial."""
    return _by_task(bundle.episodes, lambda episode: float(episode.success))


def spent_by_task(bundle: Bundle, unit: CostUnit) -> dict[str, list[Spent]]:
    """Return the index of each task -> what each trial spent in all, for `budget_curve`.

    Tokens and dollars that nobody counted are None, never 0.
    """
    found: defaultdict[str, list[Spent]] = defaultdict(list)
    for episode in bundle.episodes:
        found[str(episode.index)].append(Spent(cost(episode, unit), episode.success))
    return dict(found)


def cost(episode: EpisodeRecord, unit: CostUnit) -> float | None:
    """Return what an episode spent, all branches of a search counted; None: nobody counted."""
    if unit == "dollars":
        return None if episode.dollars is None else float(episode.dollars)
    if unit == "sampled_tokens":
        return episode.tokens.output
    in_forks = 0 if episode.search is None else getattr(episode.search, unit)
    return getattr(episode, unit) + in_forks


def _by_task(
    episodes: Sequence[EpisodeRecord], value: Callable[[EpisodeRecord], float]
) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        found[str(episode.index)].append(value(episode))
    return dict(found)


def _counts(names: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name is not None).items()))
