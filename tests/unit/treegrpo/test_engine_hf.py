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
from treegrpo.engine.batch import draw
from treegrpo.engine.hf import HFContext, HFEngine
from treegrpo.envs.errors import TreegrpoError


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sampler_logps_equal_the_trainers(family: Family, attention: str) -> None:
    model = tiny_model(family, attention="eager" if attention == "eager" else "sdpa")
    engine = HFEngine(model)
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


def test_a_fork_goes_on_as_a_context_prefilled_from_scratch() -> None:
    engine = HFEngine(tiny_model())
    params = SamplingParams(max_tokens=6)
    trunk = engine.start(words(0, 10))
    first = engine.sample([trunk], params, [1])[0]
    engine.prefill(trunk, words(1, 5))
    early = engine.fork(trunk, 2)  # before the observation is computed
    on_trunk = engine.sample([trunk], params, [2])
    late = engine.fork(early[0], 1)  # after it was, by the trunk
    fresh = engine.start(words(0, 10) + first.ids + words(1, 5))
    assert_same(engine.sample([fresh], params, [2]), on_trunk)
    for fork in (*early, *late):
        assert_same(engine.sample([fork], params, [2]), on_trunk)


def test_a_fork_goes_on_bit_for_bit_as_a_context_that_was_never_forked() -> None:
    """In batches of the same shape; prefilled at once instead, rounding may differ."""
    params = SamplingParams(max_tokens=6)

    def turns(*, forked: bool) -> list[Sampled]:
        engine = HFEngine(tiny_model())
        context = engine.start(words(0, 10))
        outs: list[Sampled] = []
        for turn in range(4):
            if forked:
                left, context = context, engine.fork(context, 1)[0]
                engine.release(left)
            outs += engine.sample([context], params, [turn])
            engine.prefill(context, words(turn, 5))
        return outs

    assert turns(forked=True) == turns(forked=False)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = tiny_model()
    params = SamplingParams(max_tokens=12, stop_ids=frozenset(range(8)))
    prompts = [words(row, 3 + 7 * (row % 4)) for row in range(9)]

    def run(rows: list[int], max_batch_rows: int = 256) -> dict[int, list[Sampled]]:
        engine = HFEngine(model, max_batch_rows=max_batch_rows)
        contexts = [engine.start(prompts[row]) for row in rows]
        turns: dict[int, list[Sampled]] = {row: [] for row in rows}
        for turn in range(2):
            outs = engine.sample(contexts, params, [50 * turn + row for row in rows])
            for row, context, out in zip(rows, contexts, outs, strict=True):
                turns[row].append(out)
                engine.prefill(context, words(90 + row, row % 3))
        return turns

    together = run(list(range(9)))
    lengths = {len(out.ids) for outs in together.values() for out in outs}
    assert len(lengths) > 3  # rows end at different steps, so the batch shrinks on the way
    for row in range(9):
        assert_same(run([row])[row], together[row])
    for other in (run([8, 2, 5]), run(list(range(9)), max_batch_rows=2)):
        for row, outs in other.items():
            assert_same(outs, together[row])


def test_siblings_do_not_see_each_other() -> None:
    model = tiny_model()
    engine = HFEngine(model)
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


def test_siblings_in_one_batch_prefill_their_prompt_once() -> None:
    engine = HFEngine(tiny_model())
    params = SamplingParams(max_tokens=4)
    root = engine.start(words(0, 30))
    forks = engine.fork(root, 3)
    outs = engine.sample([*forks, root], params, [1, 2, 3, 3])
    assert engine.stats.prefill_tokens == 30
    assert outs[2] == outs[3]
    assert len({tuple(out.ids) for out in outs}) == 3
    scratch = [engine.start(words(0, 30)) for _ in range(4)]
    assert_same(engine.sample(scratch, params, [1, 2, 3, 3]), outs)
    again = [5, 6, 7, 8]
    assert_same(engine.sample(scratch, params, again), engine.sample([*forks, root], params, again))


def test_each_token_is_computed_once() -> None:
    engine = HFEngine(tiny_model())
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


def test_rows_that_ended_leave_the_batch() -> None:
    engine = HFEngine(tiny_model())
    params = SamplingParams(max_tokens=40, stop_ids=frozenset(range(10)))
    outs = engine.sample([engine.start([row, 20]) for row in range(24)], params, range(24))
    lengths = sorted(len(out.ids) for out in outs)
    assert sum(lengths[-1] - length for length in lengths) > 2 * engine.stats.decode_tokens
    # At no step are more than half of the rows past their end.
    assert engine.stats.padding_tokens <= engine.stats.decode_tokens


def test_a_large_batch_is_split_into_rows_of_like_length() -> None:
    engine = HFEngine(tiny_model(), max_batch_rows=2)
    contexts = [engine.start(words(row, 3 + 20 * (row % 2))) for row in range(4)]
    engine.sample(contexts, SamplingParams(max_tokens=1), range(4))
    assert (engine.stats.prefill_tokens, engine.stats.padding_tokens) == (52, 0)


def test_greedy_takes_the_most_probable_token() -> None:
    model = tiny_model()
    engine = HFEngine(model)
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
    engine = HFEngine(tiny_model())
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


def test_draws_follow_the_distribution_and_the_seed_alone() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    uniform = torch.tensor([0.0, 0.4999, 0.5001, 0.7999, 0.8001, 0.999999], dtype=torch.float64)
    logits = probabilities.log().expand(6, 4)
    ids, logps = draw(logits, 1.0, uniform)
    assert ids.tolist() == [0, 0, 2, 2, 3, 3]
    np.testing.assert_allclose(logps.exp(), probabilities[ids], rtol=1e-6)
    never_first = torch.tensor([[0.0, 1.0, 1.0]]).log()
    assert draw(never_first, 1.0, torch.zeros(1, dtype=torch.float64))[0].tolist() == [1]
    # At temperature 2 the weights are the square roots.
    hot, hot_logps = draw(logits, 2.0, torch.full((6,), 0.45, dtype=torch.float64))
    roots = probabilities.sqrt() / probabilities.sqrt().sum()
    assert hot.tolist() == [2] * 6
    np.testing.assert_allclose(hot_logps.exp(), roots[hot], rtol=1e-6)


def test_old_kv_is_refused_after_an_update() -> None:
    engine = HFEngine(tiny_model(), version=3)
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
    engine = HFEngine(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.set_weights(1)
    out = engine.sample([engine.start([5, 6, 7])], SamplingParams(max_tokens=3), [1])[0]
    expected = trainer_logps(model, [5, 6, 7, *out.ids], 1.0)[2:]
    np.testing.assert_allclose(out.logps, expected, atol=1e-5)


def test_a_released_context_cannot_be_used_and_its_forks_can() -> None:
    engine = HFEngine(tiny_model())
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
        lambda: HFEngine(tiny_model()).release(fork),
    ):
        with pytest.raises(ReleasedContext):
            use()
    assert len(engine.sample([fork], params, [0])[0].ids) == 2


def test_forks_hold_the_kv_of_a_shared_token_once() -> None:
    engine = HFEngine(tiny_model())
    trunk = engine.start(words(0, 40))
    saved = engine.fork(trunk, 1)[0]
    engine.sample([trunk], SamplingParams(max_tokens=3), [0])
    assert isinstance(trunk, HFContext)
    assert isinstance(saved, HFContext)
    assert trunk.prefix.segment is not None
    assert trunk.prefix.segment.parent is saved.prefix.segment
    assert (saved.prefix.kept, len(saved.prefix.pending)) == (39, 1)
    assert saved.length == 40


def test_the_training_mode_of_every_module_is_restored() -> None:
    model = tiny_model()
    model.train()
    frozen = next(iter(model.children()))
    frozen.eval()
    modes = [module.training for module in model.modules()]
    engine = HFEngine(model)
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
        HFEngine(mamba)
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
        HFEngine(window)


def test_attention_without_a_mask_is_refused() -> None:
    model = tiny_model()
    engine = HFEngine(model)
    context = engine.start([1])
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(EngineRefused, match=r"'flex_attention'.*attn_implementation='sdpa'"):
        HFEngine(model)
    with pytest.raises(EngineRefused):
        engine.sample([context], SamplingParams(max_tokens=1), [0])


def test_wrong_calls_say_what_was_found() -> None:
    engine = HFEngine(tiny_model())
    context = engine.start([1])
    params = SamplingParams(max_tokens=2)
    with pytest.raises(TreegrpoError, match="no token"):
        engine.start([])
    with pytest.raises(TreegrpoError, match=f"the model has {VOCAB}"):
        engine.prefill(context, [VOCAB])
    with pytest.raises(TreegrpoError, match="2 contexts with 1 seeds"):
        engine.sample([context, engine.start([2])], params, [0])
    with pytest.raises(TreegrpoError, match="each context once"):
        engine.sample([context, context], params, [0, 1])
    with pytest.raises(ContextTooLong, match="512 positions"):
        engine.sample([engine.start([1] * 511)], params, [0])
    with pytest.raises(TreegrpoError, match="max_tokens=0"):
        SamplingParams(max_tokens=0)
    with pytest.raises(TreegrpoError, match="temperature=nan"):
        SamplingParams(max_tokens=1, temperature=float("nan"))
    with pytest.raises(TreegrpoError, match="max_batch_rows=0"):
        HFEngine(tiny_model(), max_batch_rows=0)
    assert engine.sample([], params, []) == []


def test_broken_weights_are_named() -> None:
    model = tiny_model()
    engine = HFEngine(model)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(float("nan"))
    with pytest.raises(NotFinite, match="weights hold NaN"):
        engine.sample([engine.start([1])], SamplingParams(max_tokens=2), [0])


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_stays_near_the_trainer() -> None:
    model = tiny_model(hidden_size=64, layers=4).bfloat16()
    torch.nn.Module.cuda(model)
    engine = HFEngine(model)
    prompts = [words(row, 5 + row) for row in range(8)]
    contexts = [engine.start(prompt) for prompt in prompts]
    outs = engine.sample(contexts, SamplingParams(max_tokens=10, temperature=2.0), range(8))
    gaps: list[float] = []
    for prompt, out in zip(prompts, outs, strict=True):
        ids = torch.tensor([prompt + out.ids], device="cuda")
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        logps = torch.log_softmax(logits / 2.0, dim=-1)
        expected = logps.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        gaps += (expected.cpu() - torch.tensor(out.logps)).abs().tolist()
    assert np.mean(gaps) < 0.05
