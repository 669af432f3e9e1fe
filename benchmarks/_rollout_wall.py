"""The seconds that trees and chains of equally many leaves take to grow.

One call of `Scheduler.grow` is timed, from questions to finished trees. Within a repeat every arm
grows the same questions once, each time beginning with another arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeAlias

from benchmarks._rollout_env import Latency, make_latency, seconds_told
from treegrpo.chat import ChatFormat
from treegrpo.config import RolloutOptions
from treegrpo.engine.native import NativeEngine
from treegrpo.envs.digest import stable_seed
from treegrpo.rollout import EnvironmentPool, Grown, Question, RolloutSettings, Scheduler
from treegrpo.rollout.expansion import get_expansion
from treegrpo.tree import Tree

Row: TypeAlias = dict[str, Any]
MAX_CONTEXT = 512
SLOW_TAIL = Latency()


@dataclass(frozen=True)
class Arm:
    """One way to grow 12 leaves a question."""

    name: str
    trunks: int = 4
    forks: int = 2
    rounds: int = 1
    expansion: str = "random"
    barriers: bool = False
    has_few_threads: bool = False
    """Whether environments run in the default number of threads, not in one per branch."""

    @property
    def leaves(self) -> int:
        """Leaves of a question."""
        return self.trunks * (1 + self.forks * self.rounds)


CHAINS = Arm("chains", trunks=12, forks=0, rounds=0)
TREES = Arm("trees")
UNIFORM = Arm("trees_uniform_depth", expansion="uniform_depth")
BARRIERS = Arm("trees_barriers", barriers=True)
FEW_CHAINS = Arm("chains_few_threads", trunks=12, forks=0, rounds=0, has_few_threads=True)
FEW_TREES = Arm("trees_few_threads", has_few_threads=True)
ARMS = (CHAINS, TREES, UNIFORM, BARRIERS, FEW_CHAINS, FEW_TREES)
RATIOS = {
    "tree_over_chain_wall": (TREES, CHAINS),
    "tree_over_chain_wall_uniform_depth": (UNIFORM, CHAINS),
    "tree_over_chain_wall_few_threads": (FEW_TREES, FEW_CHAINS),
    "barrier_over_free_wall": (BARRIERS, TREES),
    "barrier_tree_over_chain_wall": (BARRIERS, CHAINS),
}


@dataclass(frozen=True)
class WallPlan:
    """What is grown; sizes as in the demo's training, but for the environment."""

    questions: int = 14
    repeats: int = 7
    turns: int = 6
    action_tokens: int = 24
    latency: Latency = SLOW_TAIL
    arms: Sequence[Arm] = ARMS


def wall_rows(model: Any, chat: ChatFormat, plan: WallPlan) -> list[Row]:
    """Return a row for every arm and repeat.

    Args:
        model: a causal language model; borrowed.
        chat: its chat format.
        plan: what is grown, how often.
    """
    rows: list[Row] = []
    with ExitStack() as stack:
        pool = EnvironmentPool(make_latency(plan.turns, 0, plan.latency))
        stack.callback(pool.close)
        # What is made at first use (threads, environments, kernels) is made here.
        _grow(model, chat, pool, plan, plan.arms[0], 0, questions=2)
        for repeat in range(plan.repeats):
            first = repeat % len(plan.arms)
            rows += [
                _grow(model, chat, pool, plan, arm, repeat, plan.questions)
                for arm in (*plan.arms[first:], *plan.arms[:first])
            ]
    return rows


def wall_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the ratios of medians, and each arm's seconds, fill and share of waiting."""
    metrics: dict[str, float] = {}
    names = list(dict.fromkeys(row["arm"] for row in rows))
    walls = {name: _median(rows, name, "wall_s") for name in names}
    for ratio, (above, below) in RATIOS.items():
        metrics[ratio] = walls[above.name] / walls[below.name]
    for name in names:
        metrics[f"wall_s_{name}"] = walls[name]
        for key in ("critical_s", "fill", "waiting_share"):
            metrics[f"{key}_{name}"] = _median(rows, name, key)
    return metrics


def critical_seconds(trees: Sequence[Tree], *, forks_wait: bool) -> float:
    """Return what the environments' answers alone take when nothing waits but for a parent.

    Args:
        trees: as grown, nodes in canonical order.
        forks_wait: whether forks begin when the trunk has ended, not where they leave it.
    """
    longest = 0.0
    for tree in trees:
        reached = [0.0] * len(tree.nodes)
        for node in tree.nodes[1:]:
            took = seconds_told(node.observation_text)
            reached[node.id] = reached[node.parent or 0] + took
        trunk, *others = tree.leaves()
        longest = max(longest, reached[trunk])
        for leaf in others:
            left = next(n for n in reversed(tree.path(leaf)) if n in tree.path(trunk))
            late = reached[trunk] - reached[left] if forks_wait else 0.0
            longest = max(longest, reached[leaf] + late)
    return longest


def _grow(
    model: Any,
    chat: ChatFormat,
    pool: EnvironmentPool,
    plan: WallPlan,
    arm: Arm,
    repeat: int,
    questions: int,
) -> Row:
    """Return the row of one call of `grow`."""
    engine = NativeEngine(model, max_context_tokens=MAX_CONTEXT)
    settings = RolloutSettings(
        trunks=arm.trunks,
        forks=arm.forks,
        rounds=arm.rounds,
        noise="inherit",
        temperature=1.0,
        max_action_tokens=plan.action_tokens,
        max_context_tokens=MAX_CONTEXT,
        rollout_options=_options(arm, questions),
    )
    options = {"max_depth": plan.turns} if arm.expansion == "uniform_depth" else {}
    expansion = get_expansion(arm.expansion, options)
    scheduler = Scheduler(engine, chat, pool, settings, expansion=expansion)
    asked = [Question(stable_seed("rollout", repeat, n), {}) for n in range(questions)]
    grown = scheduler.grow(asked)
    return {"arm": arm.name, "repeat": repeat, "threads": settings.rollout_options.threads} | _told(
        grown, arm, questions
    )


def _options(arm: Arm, questions: int) -> RolloutOptions:
    """Return options with a thread for every branch, where few are not asked for."""
    default = RolloutOptions(barriers=arm.barriers)
    if arm.has_few_threads:
        return default
    return default.model_copy(update={"threads": arm.leaves * questions})


def _told(grown: Grown, arm: Arm, questions: int) -> Row:
    """Return what came out of one call of `grow`; other leaves than planned are our bug."""
    trees = [tree for question in grown.questions for tree in question]
    leaves = sum(len(tree.leaves()) for tree in trees)
    assert leaves == arm.leaves * questions, f"{arm.name} grew {leaves} leaves"
    waits = arm.expansion == "random"
    return {
        "wall_s": grown.timing.whole,
        "critical_s": critical_seconds(trees, forks_wait=waits),
        "engine_s": grown.timing.generation,
        "environment_s": grown.timing.environment,
        "fill": grown.timing.fill,
        "waiting_share": grown.timing.waiting / grown.timing.whole,
        "leaves": leaves,
        "steps": sum(len(tree.nodes) - 1 for tree in trees),
        "sampled_tokens": grown.sampled_tokens,
        "mean_step_s": fmean(
            seconds_told(node.observation_text) for tree in trees for node in tree.nodes[1:]
        ),
    }


def _median(rows: Sequence[Row], arm: str, key: str) -> float:
    return median(row[key] for row in rows if row["arm"] == arm)
