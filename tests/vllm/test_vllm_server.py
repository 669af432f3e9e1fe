"""The engine against a real vLLM server on this machine's CPU: run by `make test-vllm`."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from treegrpo.engine.base import EngineFailed, EngineRefused, Sampled, SamplingParams, StaleKV
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.vllm import VLLMEngine
from treegrpo.tiny import build_model, build_tokenizer, save_model

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
WORDS = 400
START_SECONDS = 300
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        os.environ.get("TREEGRPO_REQUIRE_VLLM") != "1",
        reason="needs a vLLM server in its own venv: make test-vllm",
    ),
]


@dataclass
class RealServer:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End the server and all its children at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


def command(folder: Path, port: int, *more: str) -> list[str]:
    """Return what starts a server, as docs/vllm.md says."""
    return [
        str(PYTHON), "-m", "vllm.entrypoints.launchers.api_server.entry",
        "--model", str(folder), "--host", "127.0.0.1", "--port", str(port), "--tokens-only",
        "--logprobs-mode", "processed_logprobs", "--dtype", "float32", "--enforce-eager",
        "--enable-prompt-tokens-details", "--max-num-seqs", "64", "--block-size", "32",
        "--no-enable-chunked-prefill", *more,
    ]  # fmt: skip


@contextmanager
def running(folder: Path, log: Path, *more: str) -> Iterator[RealServer]:
    """Start a server and wait until it is healthy; end it whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: text for name, text in os.environ.items() if "_NUM_THREADS" not in name}
    environment |= {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1",
        "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": "1",
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(folder, port, *more),
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = RealServer(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for_health(server)
        yield server
    finally:
        if process.poll() is None:
            server.kill()


def wait_for_health(server: RealServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.25)  # it is another process: there is nothing to wait on
    tail = server.log.read_text(encoding="utf-8", errors="replace")[-4000:]
    pytest.fail(f"no healthy server within {START_SECONDS} s; its log ends with:\n{tail}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers_logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("served") / "model"
    tokenizer = build_tokenizer([f"word{number}" for number in range(WORDS)])
    save_model(build_model(len(tokenizer)), tokenizer, place)
    return place


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    untied = json.dumps({"tie_word_embeddings": False})
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(folder, log, "--hf-overrides", untied) as started:
        yield started


@pytest.fixture
def model(folder: Path) -> PreTrainedModel:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return loaded.eval()


@pytest.fixture
def engine(server: RealServer, model: PreTrainedModel) -> Iterator[VLLMEngine]:
    with VLLMEngine(server.url, model, timeout_s=120) as made:
        yield made


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, WORDS, 3 + 11 * row % 90).tolist() for row in range(count)]


def forward_logps(
    model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int], temperature: float
) -> np.ndarray:
    """Return the trainer's log-probs of `ids`, from one forward without any cache."""
    with torch.no_grad():
        row = torch.tensor([[*prompt, *ids]])
        logits = model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logps = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    return logps.gather(-1, torch.tensor(ids)[:, None])[:, 0].numpy()


def largest_gap(
    model: PreTrainedModel,
    histories: Sequence[Sequence[int]],
    sampled: Sequence[Sampled],
    temperature: float,
) -> float:
    return max(
        float(np.abs(np.array(out.logps) - forward_logps(model, ids, out.ids, temperature)).max())
        for ids, out in zip(histories, sampled, strict=True)
    )


def generated(server: RealServer) -> float:
    """Return how many tokens the server has sampled since it started."""
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    found = [x for x in text.splitlines() if x.startswith("vllm:generation_tokens_total{")]
    return sum(float(line.split()[-1]) for line in found)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_log_probs_equal_the_trainers(
    engine: VLLMEngine, model: PreTrainedModel, temperature: float
) -> None:
    histories = prompts(16)
    contexts = [engine.start(ids) for ids in histories]
    params = SamplingParams(max_tokens=24, temperature=temperature)
    for turn in range(2):
        sampled = engine.sample(contexts, params, range(turn, turn + 16))
        assert largest_gap(model, histories, sampled, temperature) < 1e-3
        for ids, context, out in zip(histories, contexts, sampled, strict=True):
            ids += [*out.ids, 7, 8, 9]
            engine.prefill(context, [7, 8, 9])


def test_more_prompt_tokens_at_once_than_one_batch_holds(
    engine: VLLMEngine, model: PreTrainedModel
) -> None:
    histories = prompts(64)
    assert sum(map(len, histories)) > 2048
    contexts = [engine.start(ids) for ids in histories]
    sampled = engine.sample(contexts, SamplingParams(max_tokens=4), range(64))
    assert largest_gap(model, histories, sampled, 1.0) < 1e-3


def test_greedy_tokens_equal_those_of_hf(engine: VLLMEngine, model: PreTrainedModel) -> None:
    reference = HFEngine(model)
    params = SamplingParams(max_tokens=24, temperature=0.0)
    histories = prompts(16, seed=1)
    ours = engine.sample([engine.start(ids) for ids in histories], params, range(16))
    theirs = reference.sample([reference.start(ids) for ids in histories], params, range(16))
    for ids, out, expected in zip(histories, ours, theirs, strict=True):
        for place, (one, other) in enumerate(zip(out.ids, expected.ids, strict=True)):
            if one != other:  # only where the two best ids are as good as equal
                pair = [forward_logps(model, ids + out.ids[:place], [x], 1.0) for x in (one, other)]
                assert abs(float(pair[0][0] - pair[1][0])) < 1e-3
                break
    assert sum(out.ids == expected.ids for out, expected in zip(ours, theirs, strict=True)) >= 12


def test_a_seed_decides(engine: VLLMEngine) -> None:
    contexts = engine.fork(engine.start([5, 6, 7]), 3)
    params = SamplingParams(max_tokens=16)
    one, same, other = engine.sample(contexts, params, [2**100, 2**100, 5])
    assert one.ids == same.ids and one.ids != other.ids
    alone = engine.sample([engine.start([5, 6, 7])], params, [2**100])[0]
    assert alone.ids == one.ids
    np.testing.assert_allclose(alone.logps, one.logps, atol=1e-3)


def test_stop_ids_end_a_row_and_the_end_of_text_does_not(engine: VLLMEngine) -> None:
    free = engine.sample(
        [engine.start(ids) for ids in prompts(16)], SamplingParams(max_tokens=24), range(16)
    )
    stops = frozenset({out.ids[5] for out in free})
    params = SamplingParams(max_tokens=24, stop_ids=stops)
    ended = engine.sample([engine.start(ids) for ids in prompts(16)], params, range(16))
    for whole, cut in zip(free, ended, strict=True):
        assert cut.stopped and cut.ids[-1] in stops and not stops & {*cut.ids[:-1]}
        assert cut.ids == whole.ids[: len(cut.ids)] and not whole.stopped
        assert len(whole.ids) == 24


def test_forks_go_on_as_contexts_from_scratch(engine: VLLMEngine) -> None:
    params = SamplingParams(max_tokens=12)
    trunk = engine.start(list(range(10, 74)))
    first = engine.sample([trunk], params, [0])[0]
    engine.prefill(trunk, [11, 12])
    forks = engine.fork(trunk, 4)
    before = engine.stats.prefill_tokens
    on = engine.sample(forks, params, [1, 2, 3, 4])
    computed = engine.stats.prefill_tokens - before
    scratch = [engine.start([*range(10, 74), *first.ids, 11, 12]) for _ in forks]
    again = engine.sample(scratch, params, [1, 2, 3, 4])
    assert [out.ids for out in on] == [out.ids for out in again]
    assert len({tuple(out.ids) for out in on}) == 4
    # 64 ids and 12 sampled ones hold 2 whole blocks of 32, which no fork computes again
    assert computed == 4 * (64 + 12 + 2 - 64)


def test_entropy_of_the_first_id(server: RealServer, model: PreTrainedModel) -> None:
    ids = [5, 6, 7]
    with VLLMEngine(server.url, model, entropy_ids=20) as engine:
        params = SamplingParams(max_tokens=2, temperature=0.5)
        out = engine.sample([engine.start(ids)], params, [0])[0]
    with torch.no_grad():
        p = torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1] / 0.5, dim=-1)
    exact = -float((p * p.log()).sum())
    best = p.topk(18).values  # the sampled id takes one of the 20 places
    rest = 1.0 - float(best.sum())
    bound = -float((best * best.log()).sum()) - rest * float(np.log(rest))
    assert bound <= out.first_entropy <= exact + 1e-4


def test_new_weights_change_log_probs_to_the_trainers(
    engine: VLLMEngine, model: PreTrainedModel
) -> None:
    histories = prompts(16)
    params = SamplingParams(max_tokens=16, temperature=0.8)
    old = [engine.start(ids) for ids in histories]
    before = engine.sample(old, params, range(16))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    engine.set_weights(1)
    with pytest.raises(StaleKV):
        engine.submit(old[0], params, 0)
    after = engine.sample([engine.start(ids) for ids in histories], params, range(16))
    assert largest_gap(model, histories, after, 0.8) < 1e-3
    moved = [abs(one.logps[0] - two.logps[0]) for one, two in zip(before, after, strict=True)]
    assert float(np.median(moved)) > 1e-2


def test_a_released_row_ends_at_the_server(engine: VLLMEngine, server: RealServer) -> None:
    contexts = [engine.start([5, 6, 7 + row]) for row in range(4)]
    quiet = generated(server)
    for context in contexts:
        engine.submit(context, SamplingParams(max_tokens=2000), 0)
    deadline = time.monotonic() + 60
    while generated(server) == quiet:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # it is another process: there is nothing to wait on
    for context in contexts:
        engine.release(context)
    quick = engine.start([5, 6, 20])
    engine.sample([quick], SamplingParams(max_tokens=20), [1])  # the server takes note meanwhile
    before = generated(server)
    assert before - quiet < 4 * 2000
    engine.sample([quick], SamplingParams(max_tokens=200), [2])
    assert generated(server) - before == 200


def test_another_model_is_refused(server: RealServer) -> None:
    with pytest.raises(EngineRefused, match=r"vocabulary of \d+ ids, and the model one of 99"):
        VLLMEngine(server.url, build_model(99))
    size = WORDS + 8
    with pytest.raises(EngineRefused, match=r"hidden_size=128, and the trainer's has 64"):
        VLLMEngine(server.url, build_model(size, width=64))


def test_a_killed_server_is_told(folder: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    untied = json.dumps({"tie_word_embeddings": False})
    with (
        running(folder, tmp_path / "server.log", "--hf-overrides", untied) as server,
        VLLMEngine(server.url, model) as engine,
    ):
        context = engine.start([5, 6, 7])
        engine.submit(context, SamplingParams(max_tokens=2000), 0)
        server.kill()
        with pytest.raises(EngineFailed, match=r"the connection broke.*start it again"):
            engine.step()
        assert engine.submitted == 0
        with pytest.raises(EngineRefused, match="nothing answers there"):
            VLLMEngine(server.url, model)
