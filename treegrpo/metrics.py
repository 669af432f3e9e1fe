"""The numbers of one step, decided by the seed alone: nothing here depends on the clock."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from treegrpo.rollout import Grown
from treegrpo.tree import Tree, sharing_ratio

_COUNTS = (
    "trained_leaves",
    "trained_tokens",
    "trained_tokens_flat",
    "packed_updates",
    "skipped_updates",
)

MAX_FAULT_CHARS = 100
"""Most characters of a failure's message in a row; failures.jsonl has more."""


def rollout_metrics(grown: Grown, success_threshold: float) -> dict[str, Any]:
    """Return what the rollouts of a step came to.

    `leaves` have an outcome; `success_rate` and `reward_mean` are over those of them whose
    tree began at the environment's reset (`reset_leaves`), since others were helped.
    `mixed_questions` counts the questions whose leaves differ in reward, which alone teach
    anything; `end_reasons` counts all leaves, `rollouts` also those that failed without one.
    What chains of as many leaves would have sampled and called beyond what the trees did is
    `saved_tokens` and `saved_tool_calls`.
    """
    trees = [tree for question in grown.questions for tree in question]
    by_question = [
        [tree.episode_reward(leaf) for tree in question for leaf in tree.scored_leaves()]
        for question in grown.questions
    ]
    rewards = [
        tree.episode_reward(leaf)
        for tree in trees
        if tree.start == "reset"
        for leaf in tree.scored_leaves()
    ]
    chain_tokens, chain_calls = (sum(costs) for costs in zip(*_chain_costs(trees), strict=True))
    failed_leaves = sum(
        tree.nodes[leaf].failure is not None for tree in trees for leaf in tree.leaves()
    )
    ends = Counter(str(tree.nodes[leaf].end_reason) for tree in trees for leaf in tree.leaves())
    return {
        "success_rate": fmean(float(r >= success_threshold) for r in rewards) if rewards else 0.0,
        "reward_mean": fmean(rewards) if rewards else 0.0,
        "mixed_questions": sum(len(set(question)) > 1 for question in by_question),
        "mixed_share": _share_of_mixed(by_question),
        "leaves": sum(map(len, by_question)),
        "reset_leaves": len(rewards),
        "rollouts": ends.total() - failed_leaves + grown.failures.total(),
        "sampled_tokens": grown.sampled_tokens,
        "tool_calls": grown.tool_calls,
        "unique_tokens": sum(tree.unique_tokens for tree in trees),
        "flat_tokens": sum(tree.flat_tokens for tree in trees),
        "sharing_ratio": sharing_ratio(trees),
        "saved_tokens": chain_tokens - sum(tree.sampled_tokens for tree in trees),
        "saved_tool_calls": chain_calls - sum(tree.tool_calls for tree in trees),
        "fork_depth_mean": fmean(grown.fork_depths) if grown.fork_depths else 0.0,
        "fork_depths": {str(d): n for d, n in sorted(Counter(grown.fork_depths).items())},
        "starts": dict(sorted(Counter(tree.start for tree in trees).items())),
        "end_reasons": dict(sorted(ends.items())),
        "failures": dict(sorted(grown.failures.items())),
        "commonest_failure": _commonest(grown.faults),
        "unstarted": dict(sorted(grown.unstarted.items())),
    }


def _chain_costs(trees: Sequence[Tree]) -> list[tuple[int, int]]:
    return [(0, 0), *(tree.chain_cost for tree in trees)]


def _share_of_mixed(by_question: Sequence[Sequence[float]]) -> float:
    """Return the share of the questions with outcomes whose outcomes differ."""
    known = [question for question in by_question if question]
    return fmean(len(set(question)) > 1 for question in known) if known else 0.0


_BETTER_START = "give the model a better start, such as treegrpo warmstart with more demonstrations"


def why_nothing(row: Mapping[str, Any]) -> str:
    """Return why a step's rollouts taught nothing, and what to do, from its metrics."""
    ends, unstarted = row["end_reasons"], row["unstarted"]
    cut = {name: ends.get(name, 0) + unstarted.get(name, 0) for name in ("context_limit", "budget")}
    failed = sum(row["failures"].values())
    if failed and failed >= row["rollouts"]:
        return "every rollout failed"
    all_cut = bool(cut["context_limit"]) and cut["context_limit"] >= row["rollouts"] - failed
    if row["leaves"] and not row["tool_calls"]:
        limits = "max_action_tokens" + (" and max_context_tokens" if all_cut else "")
        return f"no tool call was made: {_BETTER_START}, or raise {limits}"
    if all_cut:
        return "every episode is cut at the context limit: raise max_context_tokens"
    if cut["budget"] and not row["leaves"]:
        return "the budget leaves no episode whole: raise it, or lower questions or trunks"
    if not row["leaves"]:
        return "no rollout has an outcome"
    if not row["mixed_questions"]:
        to_do = "" if row["success_rate"] else f", and no success: {_BETTER_START}, or easier tasks"
        return f"equal rewards in every question{to_do}"
    return "the credit of every step is 0"


def _commonest(faults: Mapping[tuple[str, str], int]) -> str:
    """Return who failed most often and what it said, in one short line; empty without any.

    Addresses in memory are left out: they differ from process to process.
    """
    if not faults:
        return ""
    who, message = max(faults, key=lambda fault: (faults[fault], fault))
    line = re.sub(r"0x[0-9a-f]+", "0x...", " ".join(message.split()))
    return f"{who}: {line if len(line) <= MAX_FAULT_CHARS else line[: MAX_FAULT_CHARS - 3] + '...'}"


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
