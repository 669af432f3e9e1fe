"""The numbers of one step, decided by the seed alone: nothing here depends on the clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from treegrpo.rollout import Grown
from treegrpo.tree import sharing_ratio

_COUNTS = (
    "trained_leaves",
    "trained_tokens",
    "trained_tokens_flat",
    "packed_updates",
    "skipped_updates",
)


def rollout_metrics(grown: Grown, success_threshold: float) -> dict[str, Any]:
    """Return what the rollouts of a step came to.

    `success_rate` and `reward_mean` are over the leaves that have an outcome (`leaves`);
    `mixed_questions` counts the questions whose leaves differ in reward, which alone teach
    anything; `end_reasons` counts all leaves.
    """
    trees = [tree for question in grown.questions for tree in question]
    by_question = [
        [tree.episode_reward(leaf) for tree in question for leaf in tree.scored_leaves()]
        for question in grown.questions
    ]
    rewards = [reward for question in by_question for reward in question]
    ends = Counter(str(tree.nodes[leaf].end_reason) for tree in trees for leaf in tree.leaves())
    return {
        "success_rate": fmean(float(r >= success_threshold) for r in rewards) if rewards else 0.0,
        "reward_mean": fmean(rewards) if rewards else 0.0,
        "mixed_questions": sum(len(set(question)) > 1 for question in by_question),
        "leaves": len(rewards),
        "sampled_tokens": grown.sampled_tokens,
        "tool_calls": grown.tool_calls,
        "unique_tokens": sum(tree.unique_tokens for tree in trees),
        "flat_tokens": sum(tree.flat_tokens for tree in trees),
        "sharing_ratio": sharing_ratio(trees),
        "fork_depth_mean": fmean(grown.fork_depths) if grown.fork_depths else 0.0,
        "end_reasons": dict(sorted(ends.items())),
        "failures": dict(sorted(grown.failures.items())),
        "unstarted": dict(sorted(grown.unstarted.items())),
    }


def update_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of a step's updates together: counts add, the rest is averaged.

    `max_` metrics take the maximum. An update without a metric (nothing to train, or a
    gradient that is not finite) has no part in it, and neither has a number that is not finite.
    """
    values: dict[str, list[float]] = {name: [0.0] for name in _COUNTS}
    for update in updates:
        for name, value in update.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    return {name: _together(name, numbers) for name, numbers in values.items()}


def _together(name: str, numbers: list[float]) -> float:
    if name in _COUNTS:
        return sum(numbers)
    return max(numbers) if name.startswith("max_") else fmean(numbers)
