"""treegrpo.engine.native: the same bits whatever the batch, sharing, eviction."""

from typing import Any

import numpy as np
import pytest

from tests.engine_cases import FAMILIES, assert_same, words
from tests.fakes_models import Family, tiny_model
from treegrpo.engine.base import (
    Sampled,
    SamplingParams,
)
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine


def test_a_fork_goes_on_as_a_context_prefilled_from_scratch_bit_for_bit() -> None:
    for model in (tiny_model(), tiny_model(heads=16, kv_heads=2, hidden_size=128)):
        engine = NativeEngine(model, poison=True)
        assert engine.capabilities.batch_invariant
        params = SamplingParams(max_tokens=6)
        trunk = engine.start(words(0, 210))  # sums over 208 to 368 columns split otherwise
        first = engine.sample([trunk], params, [1])[0]
        engine.prefill(trunk, words(1, 5))
        early = engine.fork(trunk, 2)  # before the observation is computed
        on_trunk = engine.sample([trunk], params, [2])
        late = engine.fork(early[0], 1)  # after it was, by the trunk
        fresh = engine.start(words(0, 210) + first.ids + words(1, 5))
        assert engine.sample([fresh], params, [2]) == on_trunk
        assert engine.sample([*early, *late], params, [2, 2, 3])[:2] == on_trunk * 2
        on = engine.start(words(0, 210) + first.ids + words(1, 5) + on_trunk[0].ids + [4])
        engine.prefill(early[1], [4])
        together = engine.sample([on, early[1], engine.start([1])], params, [9, 9, 9])
        assert together[0] == together[1]


def test_a_row_does_not_depend_on_its_batch_by_a_single_bit() -> None:
    model = tiny_model()
    params = SamplingParams(max_tokens=12, stop_ids=frozenset(range(8)))
    prompts = [words(row, 3 + 37 * (row % 4)) for row in range(9)]

    def run(rows: list[int], max_rows: int = 256) -> dict[int, list[Sampled]]:
        engine = NativeEngine(model, max_rows=max_rows)
        contexts = [engine.start(prompts[row]) for row in rows]
        turns: dict[int, list[Sampled]] = {row: [] for row in rows}
        for turn in range(2):
            outs = engine.sample(contexts, params, [50 * turn + row for row in rows])
            for row, context, out in zip(rows, contexts, outs, strict=True):
                turns[row].append(out)
                engine.prefill(context, words(90 + row, row % 3))
        return turns

    together = run(list(range(9)))
    assert len({len(out.ids) for outs in together.values() for out in outs}) > 3
    for other in (*(run([row]) for row in range(9)), run([8, 2, 5]), run(list(range(9)), 2)):
        for row, outs in other.items():
            assert outs == together[row]


def test_a_row_that_joins_changes_nothing_for_those_that_run() -> None:
    model = tiny_model()
    alone = NativeEngine(model)
    params = SamplingParams(max_tokens=9)
    expected = [
        alone.sample([alone.start(words(row, 20 + row))], params, [row])[0] for row in range(6)
    ]
    engine = NativeEngine(model, poison=True)
    contexts = [engine.start(words(row, 20 + row)) for row in range(6)]
    ended: dict[int, Sampled] = {}
    order: list[int] = []
    for row, context in enumerate(contexts):
        engine.submit(context, params, row)
        for done, sampled in engine.step():
            ended[contexts.index(done)] = sampled  # type: ignore[arg-type]
            order.append(contexts.index(done))  # type: ignore[arg-type]
    while engine.submitted:
        for done, sampled in engine.step():
            ended[contexts.index(done)] = sampled  # type: ignore[arg-type]
            order.append(contexts.index(done))  # type: ignore[arg-type]
    assert order == list(range(6))  # each was given back as soon as it had ended
    assert [ended[row] for row in range(6)] == expected
    assert engine.stats.decode_steps == 8 + 5


def test_rows_of_one_step_may_differ_in_how_they_are_sampled() -> None:
    model = tiny_model()
    settings = [
        SamplingParams(max_tokens=4, temperature=0),
        SamplingParams(max_tokens=7, temperature=0.7),
        SamplingParams(max_tokens=7, temperature=1.6, stop_ids=frozenset(range(20))),
    ]
    engine, alone = NativeEngine(model), NativeEngine(model)
    contexts = [engine.start(words(3, 11)) for _ in settings]
    for seed, (context, params) in enumerate(zip(contexts, settings, strict=True)):
        engine.submit(context, params, seed)
    ended: dict[int, Sampled] = {}
    while engine.submitted:
        ended |= {id(context): sampled for context, sampled in engine.step()}
    for seed, (context, params) in enumerate(zip(contexts, settings, strict=True)):
        assert alone.sample([alone.start(words(3, 11))], params, [seed]) == [ended[id(context)]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_samples_what_the_reference_engine_samples(family: Family, temperature: float) -> None:
    model = tiny_model(family)
    params = SamplingParams(max_tokens=10, temperature=temperature, stop_ids=frozenset({1, 2, 3}))
    results: list[list[Sampled]] = []
    for engine in (HFEngine(model), NativeEngine(model)):
        contexts = [engine.start(words(row, 5 + 11 * row)) for row in range(5)]
        contexts += engine.fork(contexts[3], 2)
        outs = engine.sample(contexts, params, range(7))
        for row, context in enumerate(contexts):
            engine.prefill(context, words(40 + row, row % 3))
        results.append(outs + engine.sample(contexts, params, range(10, 17)))
    assert_same(results[1], results[0])
    entropies = [[out.first_entropy for out in outs] for outs in results]
    np.testing.assert_allclose(entropies[1], entropies[0], atol=1e-5)


def test_what_siblings_share_is_prefilled_once() -> None:
    engine = NativeEngine(tiny_model())
    params = SamplingParams(max_tokens=4)
    root = engine.start(words(0, 30))
    forks = engine.fork(root, 3)
    outs = engine.sample([*forks, root], params, [1, 2, 3, 3])
    assert engine.stats.prefill_tokens == 30
    assert outs[2] == outs[3]
    assert len({tuple(out.ids) for out in outs}) == 3
    parent = engine.start(words(1, 20))
    left, right = engine.fork(parent, 2)
    engine.prefill(left, words(2, 3))
    engine.prefill(right, words(3, 5))  # other observations behind a prompt not computed yet
    before = engine.stats.prefill_tokens
    engine.sample([left, right], params, [1, 2])
    assert engine.stats.prefill_tokens - before == 20 + 3 + 5
    late = engine.fork(parent, 1)[0]
    engine.sample([late], params, [3])
    assert engine.stats.prefill_tokens - before == 28 + 1  # the token whose output is needed


def test_a_whole_rollout_prefills_hardly_more_than_its_tokens() -> None:
    engine = NativeEngine(tiny_model())
    params = SamplingParams(max_tokens=12, stop_ids=frozenset(range(6)))
    live: list[Any] = [engine.start(words(q, 40 + q)) for q in range(3)]
    unique = sum(context.length for context in live)
    for turn in range(4):
        if turn in (0, 2):
            live += [fork for context in live for fork in engine.fork(context, 2)]
        outs = engine.sample(live, params, [100 * turn + n for n in range(len(live))])
        unique += sum(len(out.ids) for out in outs)
        for row, context in enumerate(live):
            engine.prefill(context, words(row, 8))
        unique += 8 * len(live)
    unique -= (8 + 1) * len(live)  # pending to the end
    assert engine.stats.computed_tokens <= 1.05 * unique


def test_idle_kv_is_given_up_and_computed_again_with_the_same_bits() -> None:
    model = tiny_model()
    params = SamplingParams(max_tokens=5)
    roomy = NativeEngine(model, max_context_tokens=128)
    tight = NativeEngine(model, max_context_tokens=128, kv_tokens=144, poison=True)
    outs: list[list[Sampled]] = []
    for engine in (roomy, tight):
        found: list[Sampled] = []
        contexts = [engine.start(words(row, 50)) for row in range(3)]
        contexts += engine.fork(contexts[0], 1)
        for turn in range(3):
            for row, context in enumerate(contexts):
                found += engine.sample([context], params, [10 * turn + row])
                engine.prefill(context, words(row + turn, 3))
        outs.append(found)
    assert outs[0] == outs[1]
    assert tight.stats.prefill_tokens > 2 * roomy.stats.prefill_tokens


def test_rows_wait_until_blocks_are_free_for_their_worst_case() -> None:
    engine = NativeEngine(tiny_model(), max_context_tokens=128, kv_tokens=128, poison=True)
    params = SamplingParams(max_tokens=30)
    first, second, third = (engine.start(words(row, 35)) for row in range(3))
    assert engine.admits(first, 30)
    engine.submit(first, params, 1)  # 4 of 8 blocks: 35 + 29 tokens
    assert engine.admits(second, 30)
    assert not engine.admits(second, 31)
    engine.submit(second, params, 2)
    assert not engine.admits(third, 1)
    engine.submit(third, params, 3)
    assert engine.submitted == 3
    ended: list[Any] = []
    while engine.submitted:
        ended += [context for context, _ in engine.step()]
    assert ended == [first, second, third]
    alone = NativeEngine(tiny_model())
    assert engine.sample([third], params, [4])[0].ids
    expected = alone.sample([alone.start(words(2, 35))], params, [3])[0]
    again = engine.start(words(2, 35))
    engine.release(first)
    assert engine.sample([again], params, [3])[0] == expected


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_fork_needs_is_computed_before_it_whatever_was_submitted_first(
    is_first: bool,
) -> None:
    """The prompt is the last stretch of one row and an inner one of the other."""
    params = SamplingParams(max_tokens=3, temperature=0)

    def run(engine: HFEngine | NativeEngine) -> list[Sampled]:
        root = engine.start(words(0, 20))
        [fork] = engine.fork(root, 1)
        engine.prefill(fork, [5, 6, 7])
        rows = [fork, root] if is_first else [root, fork]
        return engine.sample(rows, params, [0, 0])

    model = tiny_model()
    assert_same(run(NativeEngine(model, poison=True)), run(HFEngine(model)))


def test_a_chain_of_forks_fits_wherever_its_tokens_do() -> None:
    """Each fork leaves a part-filled block; a pool for one context holds it all the same."""
    model, params = tiny_model(), SamplingParams(max_tokens=5)
    tight = NativeEngine(model, kv_tokens=128, max_context_tokens=128, poison=True)
    roomy = NativeEngine(model, max_context_tokens=128)
    outs: list[list[Sampled]] = []
    for engine in (tight, roomy):
        contexts, sampled = [engine.start(words(0, 9))], list[Sampled]()
        for turn in range(9):
            contexts += engine.fork(contexts[-1], 1)
            sampled += engine.sample([contexts[-1]], params, [turn])
            engine.prefill(contexts[-1], words(turn, 7))
        outs.append(sampled)
        for context in contexts:
            engine.release(context)
        assert engine.free_blocks == engine.num_blocks
    assert outs[0] == outs[1]
