"""The engine over HTTP, against a server that is played; the real one: tests/vllm."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from tests.fake_vllm import FakeVLLM
from tests.fakes_models import tiny_model
from treegrpo.engine.base import (
    ContextTooLong,
    EngineFailed,
    EngineRefused,
    NotFinite,
    ReleasedContext,
    SamplingParams,
    StaleKV,
)
from treegrpo.engine.vllm import VLLMEngine
from treegrpo.engine.vllm_server import entropy
from treegrpo.envs.errors import TreegrpoError

VOCAB = 61
URL = "http://server:8000"
TWO = SamplingParams(max_tokens=2)


@pytest.fixture(scope="module")
def pristine() -> PreTrainedModel:
    return tiny_model(layers=1)


@pytest.fixture
def model(pristine: PreTrainedModel) -> PreTrainedModel:
    fresh = type(pristine)(pristine.config).eval()
    fresh.load_state_dict(pristine.state_dict())
    return fresh


@pytest.fixture
def server(model: PreTrainedModel, tmp_path: Path) -> FakeVLLM:
    return FakeVLLM(model, tmp_path)


@pytest.fixture
def engine(model: PreTrainedModel, server: FakeVLLM) -> Iterator[VLLMEngine]:
    with VLLMEngine(URL, model, transport=server) as made:
        server.asked.clear()
        yield made


def forward_logps(
    model: PreTrainedModel, prompt: list[int], ids: list[int], temperature: float
) -> np.ndarray:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    logps = torch.log_softmax(logits / temperature, dim=-1)
    return logps.gather(-1, torch.tensor(ids)[:, None])[:, 0].numpy()


def change_weights(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)


def test_rows_are_sampled_and_go_on(engine: VLLMEngine, model: PreTrainedModel) -> None:
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    contexts = [engine.start(prompt) for prompt in prompts]
    params = SamplingParams(max_tokens=5, temperature=0.7, stop_ids=frozenset({2, 3, 4, 99}))
    for turn in range(2):
        for prompt, context, out in zip(
            prompts, contexts, engine.sample(contexts, params, [turn, 7 + turn]), strict=True
        ):
            expected = forward_logps(model, prompt, out.ids, 0.7)
            np.testing.assert_allclose(out.logps, expected, atol=1e-5)
            assert out.stopped == (out.ids[-1] in {2, 3, 4}) and out.first_entropy == 0.0
            assert out.stopped or len(out.ids) == 5
            prompt += [*out.ids, 12, 13]
            engine.prefill(context, [12, 13])
            assert context.length == len(prompt) and context.version == 0


def test_what_a_request_says(engine: VLLMEngine, server: FakeVLLM) -> None:
    context = engine.start([5, 6])
    params = SamplingParams(max_tokens=3, temperature=0.5, stop_ids=frozenset({4, 2, VOCAB}))
    engine.sample([context], params, [2**128 - 1])
    (body,) = server.rows()
    assert body["token_ids"] == [5, 6] and body["cache_salt"] == server.label
    settings = body["sampling_params"]
    assert 0 <= settings.pop("seed") < 2**63
    assert settings == {
        "max_tokens": 3, "temperature": 0.5, "stop_token_ids": [2, 4], "ignore_eos": True,
        "logprobs": 0,
    }  # fmt: skip


def test_a_seed_decides_and_forks_differ_by_it(engine: VLLMEngine, server: FakeVLLM) -> None:
    context = engine.start([5, 6])
    forks = engine.fork(context, 3)
    params = SamplingParams(max_tokens=8)
    one, same, other = engine.sample(forks, params, [1, 1, 2])
    assert one == same and one.ids != other.ids
    assert context.length == 2 and engine.live_contexts == 4
    seeds = [body["sampling_params"]["seed"] for body in server.rows()]
    assert sorted(map(seeds.count, seeds)) == [1, 2, 2]


def test_step_hands_out_what_has_ended_while_others_run(
    engine: VLLMEngine, server: FakeVLLM
) -> None:
    server.gates[5] = gate = asyncio.Event()
    slow, quick, late = (engine.start([first, 6]) for first in (5, 8, 9))
    engine.submit(slow, TWO, 0)
    engine.submit(quick, TWO, 0)
    assert [context for context, _ in engine.step()] == [quick] and engine.submitted == 1
    engine.submit(late, TWO, 0)
    assert [context for context, _ in engine.step()] == [late]
    engine._server._loop.call_soon_threadsafe(gate.set)
    assert [context for context, _ in engine.step()] == [slow]
    assert engine.submitted == 0 and engine.step() == []


def test_a_released_row_is_cancelled_at_the_server(engine: VLLMEngine, server: FakeVLLM) -> None:
    server.gates[5] = asyncio.Event()
    gone, kept = engine.start([5, 6]), engine.start([8, 6])
    engine.submit(gone, TWO, 0)
    assert server.waiting.acquire(timeout=30)
    engine.release(gone)
    engine.submit(kept, TWO, 0)
    assert [context for context, _ in engine.step()] == [kept]
    assert server.cancelled == [5] and engine.submitted == 0 and engine.live_contexts == 1


def test_an_ended_row_that_was_released_is_not_handed_out(engine: VLLMEngine) -> None:
    gone, kept = engine.start([5, 6]), engine.start([8, 6])
    engine.submit(gone, TWO, 0)
    engine._running[gone].future.result()
    engine.release(gone)
    engine.submit(kept, TWO, 0)
    assert [context for context, _ in engine.step()] == [kept]


def test_new_weights_are_used_and_old_contexts_are_stale(
    engine: VLLMEngine, server: FakeVLLM, model: PreTrainedModel
) -> None:
    old, unused = engine.start([5, 6]), engine.start([5, 6])
    before = engine.sample([old], TWO, [3])[0]
    label = server.label
    change_weights(model)
    engine.set_weights(4)
    assert server.label.startswith("4-") and server.label != label
    assert [path for path, _ in server.asked][1:] == [
        "/collective_rpc", "/reset_prefix_cache", "/update_weight_version",
        "/inference/v1/generate",
    ]  # fmt: skip
    with pytest.raises(StaleKV, match="KV of weight version 0, sampled at 4"):
        engine.submit(old, TWO, 0)
    after = engine.sample([unused], TWO, [3])[0]
    assert after.logps != before.logps and unused.version == 4
    np.testing.assert_allclose(after.logps, forward_logps(model, [5, 6], after.ids, 1.0), atol=1e-5)
    assert server.rows()[-1]["cache_salt"] == server.label
    with pytest.raises(TreegrpoError, match="go back to weight version 3, found 4"):
        engine.set_weights(3)


def test_weights_leave_no_files_and_change_no_mode(
    model: PreTrainedModel, server: FakeVLLM, tmp_path: Path
) -> None:
    model.train()
    frozen = model.get_input_embeddings().eval()
    place = tmp_path / "place"
    place.mkdir()
    with VLLMEngine(URL, model, transport=server, weights_folder=place) as engine:
        engine.set_weights(1)
    reload = [body for path, body in server.asked if path == "/collective_rpc"]
    assert all(Path(body["kwargs"]["weights_path"]).parent == place for body in reload)
    assert len(reload) == 2 and list(place.iterdir()) == []
    assert model.training and not frozen.training


def test_a_tied_head_is_sent_by_itself(tmp_path: Path) -> None:
    model = tiny_model(layers=1)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    tied = FakeVLLM(model, tmp_path)
    VLLMEngine(URL, model, transport=tied).close()
    assert "head.safetensors" in tied.files


def test_weights_do_not_change_under_running_rows(engine: VLLMEngine, server: FakeVLLM) -> None:
    server.gates[5] = asyncio.Event()
    context = engine.start([5])
    engine.submit(context, TWO, 0)
    with pytest.raises(TreegrpoError, match="while 1 rows are sampled with the old ones"):
        engine.set_weights(1)
    engine.release(context)
    engine.set_weights(1)
    assert engine.version == 1


def test_what_is_counted(engine: VLLMEngine) -> None:
    contexts = [engine.start([5, 6, 7, 8]), engine.start([9, 10, 11])]
    engine.sample(contexts, SamplingParams(max_tokens=3), [0, 1])
    stats = engine.stats
    assert (stats.prefill_tokens, stats.decode_tokens, stats.sampled_tokens) == (2 + 1, 4, 6)
    assert stats.sample_calls == 1


def test_capabilities(model: PreTrainedModel, server: FakeVLLM) -> None:
    with VLLMEngine(URL, model, transport=server) as engine:
        found = engine.capabilities
        assert found.keeps_kv and found.joins_running and engine.max_length == 64
        assert not (found.forks_kv or found.same_weights or found.batch_invariant)
    server.prefix_caching = server.chunked_prefill = False
    server.device = "cpu"
    with VLLMEngine(URL, model, transport=server) as engine:
        assert not engine.capabilities.keeps_kv


@pytest.mark.parametrize("count", [3, VOCAB])
def test_entropy_of_the_first_id(model: PreTrainedModel, server: FakeVLLM, count: int) -> None:
    server.served["max_logprobs"] = -1
    with VLLMEngine(URL, model, transport=server, entropy_ids=count) as engine:
        out = engine.sample([engine.start([5, 6])], SamplingParams(2, temperature=0.7), [0])[0]
        assert engine.stats.prefill_tokens == 0 and engine.stats.sampled_tokens == 2
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6]])).logits[0, -1]
    p = torch.softmax(logits.double() / 0.7, dim=-1)
    exact = -float((p * p.log()).sum())
    if count == VOCAB:
        assert out.first_entropy == pytest.approx(exact, abs=1e-4)
    else:
        assert 0.0 < out.first_entropy < exact


def test_entropy_by_hand() -> None:
    assert entropy([math.log(0.5), math.log(0.25)]) == pytest.approx(1.5 * math.log(2))
    assert entropy([0.0]) == 0.0
    assert entropy([math.log(0.5), math.log(0.5), -9999.0]) == pytest.approx(math.log(2))


def test_the_contract_of_contexts(engine: VLLMEngine, server: FakeVLLM) -> None:
    server.gates[5] = asyncio.Event()
    context = engine.start([5])
    engine.submit(context, TWO, 0)
    with pytest.raises(ReleasedContext, match="submitted already"):
        engine.submit(context, TWO, 1)
    engine.release(context)
    with pytest.raises(ReleasedContext, match="was released"):
        engine.prefill(context, [1])
    with pytest.raises(TreegrpoError, match="give at least one id"):
        engine.start([])
    with pytest.raises(TreegrpoError, match="Token ids from 3 to 61 were given"):
        engine.start([3, VOCAB])
    long = engine.start([6] * 60)
    engine.sample([long], SamplingParams(max_tokens=4), [0])
    with pytest.raises(ContextTooLong, match="1 more tokens behind 64, the server takes 64"):
        engine.submit(long, SamplingParams(max_tokens=1), 0)
    with pytest.raises(TreegrpoError, match=r"temperature=0.001; a vLLM server takes 0"):
        engine.submit(engine.start([6]), SamplingParams(1, temperature=0.001), 0)


Break = Callable[[FakeVLLM], object]


def served(**changes: Any) -> Break:
    return lambda server: server.served.update(changes)


def says(path: str, status: int, body: Any) -> Break:
    return lambda server: server.answers.update({path: (status, body)})


def other_width(server: FakeVLLM) -> None:
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=32)
    config.save_pretrained(server.served["model"])


REFUSALS: dict[str, tuple[Break, str]] = {
    "version": (
        says("/version", 200, {"version": "0.33.1"}),
        r"its version is 0\.33\.1, and supported is 0\.32\. Install that in the server's own venv",
    ),
    "another server": (says("/version", 404, "what?"), "no vLLM server. Correct the URL"),
    "another program": (says("/version", 200, [1]), "no vLLM server. Correct the URL"),
    "not dev mode": (says("/server_info", 404, {}), "takes no new weights .* Start it with VLLM_"),
    "log-probs": (
        served(logprobs_mode="raw_logprobs"),
        "are raw_logprobs, .* Start it with --logprobs-mode processed_logprobs",
    ),
    "split prompts": (
        lambda server: setattr(server, "device", "cpu"),
        "on a CPU it ends when .* Start it with --no-enable-chunked-prefill",
    ),
    "number format": (
        served(dtype="torch.bfloat16"),
        "computes in bfloat16, and the model in float32. Start it with --dtype float32",
    ),
    "positions": (
        served(max_model_len=513),
        "contexts of 513 tokens, and the model has 512 positions. Start it with the folder",
    ),
    "vocabulary": (
        lambda server: setattr(server, "vocab_size", 60),
        "a vocabulary of 60 ids, and the model one of 61. Start it with the folder",
    ),
    "no vocabulary": (
        says("/inference/v1/generate", 200, {}),
        "does not name its vocabulary, but says: nothing",
    ),
    "text only": (
        says("/inference/v1/generate", 403, {}),
        "takes no token ids. Start it with --tokens-only",
    ),
    "model not here": (served(model="/nowhere/model"), "'/nowhere/model', cannot be found"),
    "architecture": (other_width, "a model with model_type='llama', and the trainer's has 'qwen3'"),
    "weights not read": (
        says("/collective_rpc", 500, {"error": "no such folder"}),
        "could not read the weights in .*no such folder.* must see that folder under the same",
    ),
    "KV kept": (
        says("/reset_prefix_cache", 200, {"success": False}),
        "did not forget the KV of older weights. Start it again",
    ),
    "label": (
        says("/update_weight_version", 200, {}),
        "sampled with the weights .'default'., not with those it got last",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_fail_later_is_refused(
    model: PreTrainedModel, server: FakeVLLM, case: str
) -> None:
    spoil, message = REFUSALS[case]
    spoil(server)
    with pytest.raises(EngineRefused, match=f"{URL}.*{message}"):
        VLLMEngine(URL, model, transport=server)


def test_more_log_probs_than_the_server_sends(model: PreTrainedModel, server: FakeVLLM) -> None:
    with pytest.raises(EngineRefused, match="entropy_ids=21 was given, and it sends up to 20"):
        VLLMEngine(URL, model, transport=server, entropy_ids=21)


def test_weights_that_did_not_arrive_are_noticed(
    model: PreTrainedModel, server: FakeVLLM, engine: VLLMEngine
) -> None:
    change_weights(model)
    server.answers["/collective_rpc"] = (200, {"results": [None]})
    with pytest.raises(EngineFailed, match=r"log-probs differ from the model's by .* more than"):
        engine.set_weights(1)


def test_nobody_there(model: PreTrainedModel) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineRefused, match=f"{url} .* nothing answers there .ConnectError"):
            VLLMEngine(url, model)


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "127.0.0.1:8000"])
def test_no_url(model: PreTrainedModel, url: str) -> None:
    with pytest.raises(EngineRefused, match=r"that is no URL|nothing answers there .*http"):
        VLLMEngine(url, model)


def test_a_connection_that_broke_is_tried_once_more(engine: VLLMEngine, server: FakeVLLM) -> None:
    server.broken = [httpx.RemoteProtocolError("closed")]
    assert len(engine.sample([engine.start([5])], TWO, [0])[0].ids) == 2
    assert len(server.rows()) == 2


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ([httpx.ReadError("reset"), httpx.ConnectError("refused")], "the connection broke .Conn"),
        ([httpx.ReadTimeout("slow")], "did not answer in time. Raise timeout_s"),
    ],
)
def test_a_server_that_is_gone(
    engine: VLLMEngine, server: FakeVLLM, errors: list[Exception], message: str
) -> None:
    server.gates[8] = asyncio.Event()
    engine.submit(engine.start([8]), TWO, 0)
    assert server.waiting.acquire(timeout=30)
    server.broken = errors
    engine.submit(engine.start([5]), TWO, 0)
    with pytest.raises(EngineFailed, match=f"{URL} was asked for .*{message}.*resume the run"):
        engine.step()
    assert engine.submitted == 0 and engine.step() == []
    assert len(engine.sample([engine.start([9])], TWO, [0])[0].ids) == 2


def choice(**changes: Any) -> Callable[[Any], Any]:
    return lambda answer: answer | {"choices": [answer["choices"][0] | changes]}


def logp(value: float) -> Callable[[Any], Any]:
    def change(answer: Any) -> Any:
        answer["choices"][0]["logprobs"]["content"][0]["logprob"] = value
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (choice(finish_reason="abort"), EngineFailed, "ended a row with 'abort'"),
        (choice(weight_versions=[{"version": "x"}]), EngineFailed, "weights .'x'., not with"),
        (choice(token_ids=[1]), EngineFailed, "log-probs of 2 ids for 1 sampled"),
        (choice(token_ids=[]), EngineFailed, "answered in another form than version 0.32"),
        (lambda answer: {}, EngineFailed, "answered in another form than version 0.32"),
        (logp(-9999.0), NotFinite, "not finite: its weights are broken. Go back"),
    ],
)
def test_answers_that_cannot_be_used(
    engine: VLLMEngine, server: FakeVLLM, change: Any, error: type[Exception], message: str
) -> None:
    server.change = change
    engine.submit(engine.start([5]), TWO, 0)
    with pytest.raises(error, match=message):
        engine.step()
    assert engine.submitted == 0


def test_an_error_of_the_server(engine: VLLMEngine, server: FakeVLLM) -> None:
    server.answers["/inference/v1/generate"] = (500, {"error": "EngineCore"})
    engine.submit(engine.start([5]), TWO, 0)
    with pytest.raises(EngineFailed, match=r"answered 500: .*EngineCore.*Read its log"):
        engine.step()


def test_closing_drops_what_is_in_flight(model: PreTrainedModel, server: FakeVLLM) -> None:
    engine = VLLMEngine(URL, model, transport=server)
    server.gates[5] = asyncio.Event()
    server.asked.clear()
    engine.submit(engine.start([5]), TWO, 0)
    assert server.waiting.acquire(timeout=30)
    engine.close()
    engine.close()
    assert server.cancelled == [5] and not engine._server._thread.is_alive()
