"""The order in which environments and engine come back never changes what a seed gives."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes_models import tiny_model
from tests.toy_game import (
    SLOW_ID,
    RestlessEngine,
    ScriptedEngine,
    SlowGame,
    random_words,
    scheduler,
)
from treegrpo.engine.base import Engine
from treegrpo.engine.native import NativeEngine
from treegrpo.envs.registry import make
from treegrpo.rollout import Grown, Question
from treegrpo.rollout.expansion import get_expansion

WORDS = ("red", "green", "stop", "call", "crash", "void")
ENV = make(SLOW_ID, turns=4)
MODEL = tiny_model(vocab_size=128)
POLICIES = st.sampled_from(
    [
        ("random", {}, 2),
        ("random", {"with_replacement": False}, 1),
        ("uniform_depth", {"max_depth": 3}, 1),
        ("entropy", {"base": 0.6}, 1),
        ("spread", {}, 2),
        ("full", {"max_depth": 2}, 1),
    ]
)
LIMITS = st.one_of(st.none(), st.integers(5, 120))
CALLS = st.one_of(st.none(), st.integers(1, 8))


def grow(
    engine: Engine, mean_s: float, seeds: list[int], whole: int | None, **changes: Any
) -> Grown:
    SlowGame.mean_s = mean_s
    made, pool = scheduler(engine, ENV, **changes)
    questions = [Question(seed, {"split": "train"}) for seed in seeds]
    grown = made.grow(questions, max_sampled_tokens=whole)
    assert pool.lent == 0
    assert getattr(engine, "live_contexts", 0) == 0 and engine.submitted == 0
    return grown


def told(grown: Grown) -> tuple[Any, ...]:
    lines = [[tree.to_json() for tree in trees] for trees in grown.questions]
    failures = (sorted(grown.failures.items()), sorted(grown.unstarted.items()))
    return lines, grown.sampled_tokens, grown.tool_calls, failures, sorted(grown.fork_depths)


@given(
    policy=POLICIES,
    tokens=LIMITS,
    calls=CALLS,
    whole=st.one_of(st.none(), st.integers(8, 300)),
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True),
    whim=st.integers(0, 10**6),
    max_live=st.sampled_from([1, 3, 512]),
    max_rows=st.sampled_from([1, 4, 10**9]),
)
@settings(max_examples=100)
def test_completion_order_changes_nothing(
    policy: tuple[str, dict[str, Any], int],
    tokens: int | None,
    calls: int | None,
    whole: int | None,
    seeds: list[int],
    whim: int,
    max_live: int,
    max_rows: int,
) -> None:
    name, options, rounds = policy
    shape: dict[str, Any] = {
        "rounds": rounds,
        "max_sampled_tokens_per_question": tokens,
        "max_tool_calls_per_question": calls,
        "expansion": get_expansion(name, options),
    }
    script = random_words(WORDS)
    plain = grow(ScriptedEngine(script), 0.0, seeds, whole, threads=1, **shape)
    restless = RestlessEngine(script, whim, max_rows)
    mixed = grow(restless, 0.001, seeds, whole, threads=5, max_live=max_live, **shape)
    barred = grow(ScriptedEngine(script), 0.0005, seeds, whole, barriers=True, **shape)
    assert told(mixed) == told(plain) == told(barred)
    spent = [sum(tree.sampled_tokens for tree in trees) for trees in plain.questions]
    assert sum(spent) <= (10**9 if whole is None else whole)
    assert max(spent, default=0) <= (10**9 if tokens is None else tokens)
    called = [sum(tree.tool_calls for tree in trees) for trees in plain.questions]
    assert max(called, default=0) <= (10**9 if calls is None else calls)


@given(
    policy=POLICIES,
    seed=st.integers(0, 10**6),
    kv_tokens=st.sampled_from([300, 340, 480]),
    max_rows=st.sampled_from([3, 64]),
)
@settings(max_examples=6, deadline=None)
def test_a_small_pool_changes_nothing(
    policy: tuple[str, dict[str, Any], int], seed: int, kv_tokens: int, max_rows: int
) -> None:
    """A real model: KV that was given up is computed again, and no other is ever read."""
    name, options, rounds = policy
    shape: dict[str, Any] = {
        "rounds": rounds, "trunks": 2, "forks": 3, "max_context_tokens": 300,
        "expansion": get_expansion(name, options),
    }  # fmt: skip

    def trees(kv_tokens: int | None, max_rows: int, mean_s: float) -> tuple[Any, ...]:
        engine = NativeEngine(
            MODEL, max_context_tokens=300, kv_tokens=kv_tokens, max_rows=max_rows, poison=True
        )
        grown = grow(engine, mean_s, [seed], None, **shape)
        assert engine.free_blocks == engine.num_blocks
        return told(grown)

    assert trees(kv_tokens, max_rows, 0.001) == trees(20_000, 256, 0.0)
