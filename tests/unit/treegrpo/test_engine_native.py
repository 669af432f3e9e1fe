"""treegrpo.engine.native: the contract of engines, waiting, versions, refusals."""

import timeit
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from tests.engine_cases import FAMILIES, VOCAB, assert_same, trainer_logps, words
from tests.fakes_models import Family, tiny_model
from treegrpo.engine.base import (
    ContextTooLong,
    EngineRefused,
    NotFinite,
    ReleasedContext,
    Sampled,
    SamplingParams,
    StaleKV,
)
from treegrpo.engine.native import NativeEngine
from treegrpo.envs.errors import TreegrpoError


@pytest.mark.parametrize("family", FAMILIES)
def test_sampler_logps_equal_the_trainers(family: Family) -> None:
    model = tiny_model(family)
    engine = NativeEngine(model, poison=True)
    params = SamplingParams(max_tokens=9, temperature=0.8, stop_ids=frozenset({3, 7, 11, 19}))
    histories = [words(row, 4 + 3 * row) for row in range(5)]
    contexts = [engine.start(history) for history in histories]
    spans: list[tuple[int, int, list[float]]] = []
    for turn in range(3):
        seeds = [100 * turn + row for row in range(5)]
        for row, out in enumerate(engine.sample(contexts, params, seeds)):
            spans.append((row, len(histories[row]), out.logps))
            histories[row] += out.ids
            observation = words(1000 + 10 * turn + row, (row + turn * 3) % 5)
            engine.prefill(contexts[row], observation)
            histories[row] += observation
    assert [context.length for context in contexts] == [len(history) for history in histories]
    expected = [trainer_logps(model, history, 0.8) for history in histories]
    assert len(spans) == 15
    for row, start, logps in spans:
        np.testing.assert_allclose(
            logps, expected[row][start - 1 : start - 1 + len(logps)], atol=1e-5
        )


def test_siblings_do_not_see_each_other() -> None:
    model = tiny_model()
    engine = NativeEngine(model)
    params = SamplingParams(max_tokens=5)
    trunk = engine.start(words(0, 8))
    left, right = engine.fork(trunk, 2)
    engine.prefill(left, words(1, 6))
    alone = engine.start(words(0, 8))
    outs = engine.sample([left, right], params, [4, 5])
    assert_same(engine.sample([alone], params, [5]), outs[1:])
    engine.prefill(right, [9])
    history = words(0, 8) + outs[1].ids + [9]
    after = engine.sample([left, right], params, [6, 7])[1]
    expected = trainer_logps(model, history + after.ids, 1.0)[-len(after.ids) :]
    np.testing.assert_allclose(after.logps, expected, atol=1e-5)


def test_each_token_is_computed_once() -> None:
    engine = NativeEngine(tiny_model())
    params = SamplingParams(max_tokens=4)
    context = engine.start(words(0, 20))
    for turn in range(3):
        before = engine.stats.prefill_tokens
        engine.sample([context], params, [turn])
        # A turn computes the last sampled token of the turn before and the observation.
        assert engine.stats.prefill_tokens - before == (20 if turn == 0 else 1 + 6)
        engine.prefill(context, words(turn, 6))
    assert engine.stats.sampled_tokens == 12
    assert engine.stats.decode_tokens == 9
    assert engine.stats.computed_tokens == context.length - 6 - 1
    saved = engine.fork(context, 1)[0]
    engine.sample([context], params, [9])
    before = engine.stats.prefill_tokens
    engine.sample([saved], params, [8])
    assert engine.stats.prefill_tokens - before == 1  # only the token whose output is needed
    assert engine.stats.sample_calls == 5


def test_greedy_takes_the_most_probable_token() -> None:
    model = tiny_model()
    engine = NativeEngine(model)
    params = SamplingParams(max_tokens=6, temperature=0)
    prompts = [words(0, 5), words(1, 9)]
    outs = engine.sample([engine.start(ids) for ids in prompts], params, [1, 2])
    for prompt, out in zip(prompts, outs, strict=True):
        ids = list(prompt)
        for token, logp in zip(out.ids, out.logps, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert token == int(logits.argmax())
            assert logp == pytest.approx(float(torch.log_softmax(logits, -1)[token]), abs=1e-5)
            ids.append(token)


def test_a_stop_token_ends_its_row_and_belongs_to_it() -> None:
    engine = NativeEngine(tiny_model())
    prompts = [words(row, 6) for row in range(6)]
    free = SamplingParams(max_tokens=8)
    plain = engine.sample([engine.start(ids) for ids in prompts], free, range(6))
    stop = plain[0].ids[3]
    stopping = SamplingParams(max_tokens=8, stop_ids=frozenset({stop, VOCAB + 5}))
    contexts = [engine.start(ids) for ids in prompts]
    outs = engine.sample(contexts, stopping, range(6))
    for before, after, context in zip(plain, outs, contexts, strict=True):
        assert after.stopped == (stop in before.ids)
        end = before.ids.index(stop) + 1 if after.stopped else 8
        assert after.ids == before.ids[:end]
        np.testing.assert_allclose(after.logps, before.logps[:end], atol=1e-5)
        assert context.length == 6 + end
    assert outs[0].stopped


def test_old_kv_is_refused_after_an_update() -> None:
    engine = NativeEngine(tiny_model(), version=3)
    params = SamplingParams(max_tokens=2)
    used, unused = engine.start([1, 2]), engine.start([1, 2])
    engine.sample([used], params, [0])
    assert (used.version, unused.version) == (3, None)
    engine.set_weights(4)
    with pytest.raises(StaleKV, match="version 3, sampled at 4"):
        engine.sample([used], params, [0])
    engine.sample([unused], params, [0])
    assert unused.version == 4
    with pytest.raises(TreegrpoError, match="go back to weight version 2"):
        engine.set_weights(2)


def test_new_weights_are_used_without_transfer() -> None:
    model = tiny_model()
    engine = NativeEngine(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.set_weights(1)
    out = engine.sample([engine.start([5, 6, 7])], SamplingParams(max_tokens=3), [1])[0]
    expected = trainer_logps(model, [5, 6, 7, *out.ids], 1.0)[2:]
    np.testing.assert_allclose(out.logps, expected, atol=1e-5)


def test_a_released_context_cannot_be_used_and_its_forks_can() -> None:
    engine = NativeEngine(tiny_model())
    params = SamplingParams(max_tokens=2)
    trunk = engine.start([1, 2, 3])
    fork = engine.fork(trunk, 1)[0]
    assert engine.live_contexts == 2
    engine.release(trunk)
    assert engine.live_contexts == 1
    for use in (
        lambda: engine.release(trunk),
        lambda: engine.prefill(trunk, [1]),
        lambda: engine.fork(trunk, 1),
        lambda: engine.sample([trunk], params, [0]),
        lambda: NativeEngine(tiny_model()).release(fork),
    ):
        with pytest.raises(ReleasedContext):
            use()
    assert len(engine.sample([fork], params, [0])[0].ids) == 2


def test_the_training_mode_of_every_module_is_restored() -> None:
    model = tiny_model()
    model.train()
    frozen = next(iter(model.children()))
    frozen.eval()
    modes = [module.training for module in model.modules()]
    engine = NativeEngine(model)
    seen: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    engine.sample([engine.start([1])], SamplingParams(max_tokens=2), [0])
    assert [module.training for module in model.modules()] == modes
    assert seen == [False, False]
    model.get_parameter("model.norm.weight").sum().backward()  # no inference tensor is left


def test_models_with_other_state_are_refused() -> None:
    sizes: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2}
    mamba = MambaForCausalLM(MambaConfig(**sizes, state_size=4))
    with pytest.raises(EngineRefused, match=r"MambaForCausalLM .* found .*\. Use a model"):
        NativeEngine(mamba)
    window = MistralForCausalLM(
        MistralConfig(
            **sizes,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=8,
        )
    )
    with pytest.raises(EngineRefused, match="DynamicSlidingWindowLayer"):
        NativeEngine(window)


def test_broken_weights_are_named() -> None:
    model = tiny_model()
    engine = NativeEngine(model)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(float("nan"))
    with pytest.raises(NotFinite, match="weights hold NaN"):
        engine.sample([engine.start([1])], SamplingParams(max_tokens=2), [0])


def test_no_more_rows_run_than_allowed() -> None:
    engine = NativeEngine(tiny_model(), max_rows=2)
    params = SamplingParams(max_tokens=3)
    contexts = [engine.start(words(row, 5)) for row in range(5)]
    for context in contexts[:2]:
        assert engine.admits(context, 3)
        engine.submit(context, params, 0)
    assert not engine.admits(contexts[2], 3)
    for context in contexts[2:]:
        engine.submit(context, params, 0)
    steps = 0
    while engine.submitted:
        engine.step()
        steps += 1
    assert steps == 3 * 3


def test_a_submitted_context_is_withdrawn_by_its_release() -> None:
    engine = NativeEngine(tiny_model(), max_rows=2, poison=True)
    params = SamplingParams(max_tokens=6)
    rows = [engine.start(words(row, 9)) for row in range(4)]
    for row, context in enumerate(rows):
        engine.submit(context, params, row)
    engine.step()
    engine.release(rows[0])  # it runs
    engine.release(rows[3])  # it waits
    assert engine.submitted == 2
    ended: list[Any] = []
    while engine.submitted:
        ended += engine.step()
    assert [context for context, _ in ended] == rows[1:3]
    alone = NativeEngine(tiny_model())
    for row in (1, 2):
        expected = alone.sample([alone.start(words(row, 9))], params, [row])[0]
        assert ended[row - 1][1] == expected
    for context in rows[1:3]:
        engine.release(context)
    assert engine.free_blocks == engine.num_blocks


def test_without_the_version_stamp_old_kv_would_give_wrong_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    engine = NativeEngine(model)
    params = SamplingParams(max_tokens=4)
    context = engine.start(words(0, 30))
    first = engine.sample([context], params, [0])[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    engine.set_weights(1)
    with pytest.raises(StaleKV, match="version 0, sampled at 1"):
        engine.sample([context], params, [1])
    fresh = engine.sample([engine.start(words(0, 30) + first.ids)], params, [1])[0]
    monkeypatch.setattr(NativeEngine, "_require_version", lambda *_: None)
    stale = engine.sample([context], params, [1])[0]
    gap = max(abs(a - b) for a, b in zip(stale.logps, fresh.logps, strict=True))
    assert gap > 1e-3


def test_kv_that_was_given_up_keeps_its_version() -> None:
    engine = NativeEngine(tiny_model(), max_context_tokens=64, kv_tokens=64)
    params = SamplingParams(max_tokens=2)
    old, other = engine.start(words(0, 40)), engine.start(words(1, 60))
    engine.sample([old], params, [0])
    engine.sample([other], params, [0])  # takes all blocks
    engine.set_weights(1)
    with pytest.raises(StaleKV):
        engine.sample([old], params, [0])


def test_weights_are_not_changed_under_a_row() -> None:
    engine = NativeEngine(tiny_model())
    context = engine.start([1])
    engine.submit(context, SamplingParams(max_tokens=2), 0)
    with pytest.raises(TreegrpoError, match="found 1 contexts submitted at 0"):
        engine.set_weights(1)
    engine.release(context)
    engine.set_weights(1)


def test_long_prompts_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [words(row, 90 + row) for row in range(3)]
    params = SamplingParams(max_tokens=3)
    whole = NativeEngine(tiny_model())
    expected = whole.sample([whole.start(prompt) for prompt in prompts], params, range(3))
    monkeypatch.setattr("treegrpo.engine.native.PREFILL_TOKENS", 40)
    engine = NativeEngine(tiny_model())
    outs = engine.sample([engine.start(prompt) for prompt in prompts], params, range(3))
    assert outs == expected
    assert engine.stats.prefill_tokens == whole.stats.prefill_tokens


def test_a_pool_too_small_for_one_context_is_refused() -> None:
    with pytest.raises(EngineRefused, match=r"512 tokens.*kv_tokens=100,.*max_context_tokens"):
        NativeEngine(tiny_model(), kv_tokens=100)
    with pytest.raises(EngineRefused, match=r"MiB free memory\..*dtype=bfloat16"):
        NativeEngine(tiny_model(), kv_tokens=1 << 50)
    NativeEngine(tiny_model(), kv_tokens=100, max_context_tokens=100)


def test_the_models_own_attention_comes_back() -> None:
    model = tiny_model(attention="eager")
    engine = NativeEngine(model)
    engine.sample([engine.start([1, 2])], SamplingParams(max_tokens=2), [0])
    assert model.config._attn_implementation == "eager"
    assert torch.isfinite(model(input_ids=torch.tensor([[1, 2]])).logits).all()


def test_after_a_failure_the_engine_works_on() -> None:
    model = tiny_model()
    engine = NativeEngine(model, poison=True)
    params = SamplingParams(max_tokens=2)
    kept, lost = engine.start(words(0, 5)), engine.start(words(1, 5))
    good = engine.sample([kept], params, [0])[0]
    norm = model.get_parameter("model.norm.weight")
    saved = norm.detach().clone()
    with torch.no_grad():
        norm.fill_(float("nan"))
    with pytest.raises(NotFinite, match="weights hold NaN"):
        engine.sample([lost], params, [0])
    assert engine.submitted == 0
    with torch.no_grad():
        norm.copy_(saved)
    assert engine.sample([engine.start(words(0, 5))], params, [0])[0] == good
    assert engine.sample([kept, lost], params, [1, 1])[0].ids


def test_a_fork_costs_little_at_any_depth() -> None:
    engine = NativeEngine(tiny_model())
    context = engine.start(words(0, 12))
    for turn in range(32):
        (context,) = engine.fork(context, 1)
        engine.prefill(context, words(turn, 5))
        if turn % 8 == 0:
            engine.sample([context], SamplingParams(max_tokens=2), [turn])
    seconds = min(timeit.repeat(lambda: engine.fork(context, 1), number=10, repeat=20)) / 10
    assert seconds < 50e-6


def test_wrong_calls_say_what_was_found() -> None:
    engine = NativeEngine(tiny_model(), max_context_tokens=100, kv_tokens=112)
    context = engine.start([1])
    params = SamplingParams(max_tokens=2)
    with pytest.raises(TreegrpoError, match="no token"):
        engine.start([])
    with pytest.raises(TreegrpoError, match=f"the model has {VOCAB}"):
        engine.prefill(context, [VOCAB])
    with pytest.raises(ContextTooLong, match="the engine takes 100"):
        engine.sample([engine.start([1] * 99)], params, [0])
    with pytest.raises(TreegrpoError, match="max_rows=0"):
        NativeEngine(tiny_model(), max_rows=0)
    engine.submit(context, params, 0)
    for use in (
        lambda: engine.submit(context, params, 0),
        lambda: engine.prefill(context, [1]),
        lambda: engine.fork(context, 1),
    ):
        with pytest.raises(ReleasedContext, match="submitted already"):
            use()
    assert NativeEngine(tiny_model()).step() == []


@pytest.mark.parametrize("family", FAMILIES)
def test_block_tables_give_what_windows_give(family: Family) -> None:
    model = tiny_model(family)
    params = SamplingParams(max_tokens=6, stop_ids=frozenset(range(5)))
    results: list[list[Sampled]] = []
    for engine in (
        NativeEngine(model),
        NativeEngine(model, backend="tables", poison=True, max_context_tokens=96, kv_tokens=256),
    ):
        found: list[Sampled] = []
        live: list[Any] = [engine.start(words(row, 9 + 14 * row)) for row in range(3)]
        live += engine.fork(live[1], 3)
        for turn in range(3):
            found += engine.sample(live, params, [10 * turn + row for row in range(6)])
            for row, context in enumerate(live):
                engine.prefill(context, words(row + turn, row % 4))
            engine.release(live[0])
            live[0] = engine.fork(live[2], 1)[0]
        for context in live:
            engine.release(context)
        assert engine.free_blocks == engine.num_blocks
        results.append(found)
    assert_same(results[1], results[0])
