"""What is computed twice while trees grow, and what a fork of the engine's KV costs the host."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.config import RolloutOptions
from treegrpo.engine.base import Context, Engine, SamplingParams
from treegrpo.engine.native import NativeEngine
from treegrpo.envs.digest import stable_seed
from treegrpo.rollout import EnvironmentPool, Question, RolloutSettings, Scheduler
from treegrpo.tree import Tree

Row: TypeAlias = dict[str, Any]
MAX_CONTEXT = 512
DEPTHS = (1, 8, 32)
"""Turns of the context that is forked."""
TURN_SAMPLED, TURN_OBSERVED = 8, 16


def prefill_row(
    model: Any,
    chat: ChatFormat,
    env: gymnasium.Env[str, str],
    *,
    questions: int,
    action_tokens: int,
    seed: int,
) -> Row:
    """Return what the engine computed for one step of (4, 2, 1) trees, and what it had to.

    Args:
        model: a causal language model; borrowed.
        chat: its chat format.
        env: taken over, and closed.
        questions: grown together.
        action_tokens: most tokens sampled a turn.
        seed: of the questions.
    """
    engine = NativeEngine(model, max_context_tokens=MAX_CONTEXT)
    settings = RolloutSettings(
        trunks=4,
        forks=2,
        rounds=1,
        noise="inherit",
        temperature=1.0,
        max_action_tokens=action_tokens,
        max_context_tokens=MAX_CONTEXT,
        rollout_options=RolloutOptions(),
    )
    pool = EnvironmentPool(env)
    try:
        asked = [Question(stable_seed("prefill", seed, n), {}) for n in range(questions)]
        grown = Scheduler(engine, chat, pool, settings).grow(asked)
    finally:
        pool.close()
    needed = token_counts(grown.questions)
    depth = max(node.depth for trees in grown.questions for tree in trees for node in tree.nodes)
    stats = {name: getattr(engine.stats, name) for name in ("prefill_tokens", "decode_tokens")}
    return {**needed, **stats, "computed_tokens": engine.stats.computed_tokens, "max_turns": depth}


def token_counts(questions: Sequence[Sequence[Tree]]) -> dict[str, int]:
    """Return what trees hold: a question's prompt counts once, though each trunk has it.

    `unique_tokens` is everything. `to_prefill` is what no decoding computes: prompts,
    observations, and the last sampled token of every step that the episode went on after.
    """
    prompts = sum(trees[0].nodes[0].num_tokens for trees in questions if trees)
    nodes = [node for trees in questions for tree in trees for node in tree.nodes[1:]]
    went_on = [node for node in nodes if node.children]
    return {
        "unique_tokens": prompts + sum(node.num_tokens for node in nodes),
        "to_prefill": prompts + sum(len(node.observation_ids) + 1 for node in went_on),
        "leaves": len(nodes) - len(went_on),
    }


def prefill_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the worst environment's ratios, and those of each."""
    metrics: dict[str, float] = {}
    for name, over, under in (
        ("prefill_over_unique", "computed_tokens", "unique_tokens"),
        ("prefill_over_needed", "prefill_tokens", "to_prefill"),
    ):
        ratios: dict[str, list[float]] = {}
        for row in rows:
            ratios.setdefault(row["env"], []).append(row[over] / row[under])
        metrics[name] = max(median(found) for found in ratios.values())
        metrics |= {f"{name}_{env}": median(found) for env, found in ratios.items()}
    return metrics


def fork_rows(model: Any, repeats: int) -> list[Row]:
    """Return for each depth the microseconds of every fork, and of forks up to a token.

    `fork_us` is the host time of `fork(context, 1)`; the child is released outside of it. A
    fork copies nothing: the part-filled block, and on a CPU the row's window, are filled when
    the child is first sampled. `to_token_us` holds that: from the fork to the child's first id.
    """
    engine = NativeEngine(model)
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for depth in DEPTHS:
        context = _context(engine, depth, int(model.config.vocab_size), rng)
        forks = _times(engine, repeats, partial(engine.fork, context, 1))
        firsts = _times(engine, max(3, repeats // 50), partial(_fork_and_sample, engine, context))
        rows.append(
            {"turns": depth, "tokens": context.length, "fork_us": forks, "to_token_us": firsts}
        )
        engine.release(context)
    return rows


def fork_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the medians by depth."""
    metrics: dict[str, float] = {}
    for row in rows:
        metrics[f"kv_fork_us_depth{row['turns']}"] = median(row["fork_us"])
        metrics[f"kv_fork_to_token_us_depth{row['turns']}"] = median(row["to_token_us"])
    return metrics


def _context(engine: Engine, turns: int, vocab: int, rng: np.random.Generator) -> Context:
    """Return a context of so many turns, all but its last token computed."""
    params = SamplingParams(max_tokens=TURN_SAMPLED)
    context = engine.start(_ids(vocab, rng))
    for turn in range(turns):
        if turn:
            engine.prefill(context, _ids(vocab, rng))
        engine.sample([context], params, [turn])
    return context


def _ids(vocab: int, rng: np.random.Generator) -> list[int]:
    return rng.integers(4, vocab, TURN_OBSERVED).tolist()


def _fork_and_sample(engine: Engine, context: Context) -> list[Context]:
    made = engine.fork(context, 1)
    engine.sample(made, SamplingParams(max_tokens=1), [0])
    return made


def _times(engine: Engine, repeats: int, fork: Callable[[], list[Context]]) -> list[float]:
    """Return the microseconds of each call; what it made is released in between."""
    found: list[float] = []
    engine.release(fork()[0])
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            began = time.perf_counter_ns()
            made = fork()
            found.append((time.perf_counter_ns() - began) / 1000)
            engine.release(made[0])
    finally:
        gc.enable()
    return found
