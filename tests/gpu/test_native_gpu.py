"""The native engine on a GPU: against the reference engine, and graphs against eager runs."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.fakes_models import Family, tiny_model
from treegrpo.engine.base import Sampled, SamplingParams
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine
from treegrpo.engine.tables import Tables

pytestmark = pytest.mark.gpu
FAMILIES: list[Family] = ["qwen3", "qwen2", "llama"]


def words(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 61, count).tolist()


def on_gpu(family: Family, dtype: torch.dtype) -> Any:
    model = tiny_model(family, hidden_size=256, layers=4)
    return torch.nn.Module.to(model, device="cuda", dtype=dtype)


def rollout(engine: Any, params: SamplingParams) -> list[Sampled]:
    """Sample three turns of a small forest whose rows have many lengths."""
    live = [engine.start(words(row, 5 + 17 * row)) for row in range(5)]
    live += engine.fork(live[2], 4)
    found: list[Sampled] = []
    for turn in range(3):
        found += engine.sample(live, params, [20 * turn + row for row in range(9)])
        for row, context in enumerate(live):
            engine.prefill(context, words(50 + row, row % 4))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_native_equals_the_reference_engine(family: Family) -> None:
    model = on_gpu(family, torch.float32)
    params = SamplingParams(max_tokens=8, temperature=0)
    for out, other in zip(
        rollout(NativeEngine(model, poison=True), params),
        rollout(HFEngine(model), params),
        strict=True,
    ):
        assert out.ids == other.ids
        np.testing.assert_allclose(out.logps, other.logps, atol=1e-3)


def test_bfloat16_stays_near_the_trainer() -> None:
    model = on_gpu("qwen3", torch.bfloat16)
    engine = NativeEngine(model)
    gaps: list[float] = []
    prompts = [words(row, 5 + 30 * row) for row in range(8)]
    params = SamplingParams(max_tokens=10, temperature=2.0)
    outs = engine.sample([engine.start(prompt) for prompt in prompts], params, range(8))
    for prompt, out in zip(prompts, outs, strict=True):
        ids = torch.tensor([prompt + out.ids], device="cuda")
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        expected = torch.log_softmax(logits / 2.0, dim=-1).gather(-1, ids[0, 1:, None])[:, 0]
        gaps += (expected[len(prompt) - 1 :].cpu() - torch.tensor(out.logps)).abs().tolist()
    assert np.mean(gaps) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_sees_what_an_eager_run_sees(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_gpu("qwen3", dtype)
    params = SamplingParams(max_tokens=24)  # rows grow through several blocks of one bucket
    replayed = rollout(NativeEngine(model), params)
    monkeypatch.setattr(Tables, "_replayed", lambda self, size, packed: self._eager(packed))
    eager = rollout(NativeEngine(model), params)
    for out, other in zip(replayed, eager, strict=True):
        assert out.ids == other.ids
        np.testing.assert_allclose(out.logps, other.logps, atol=1e-3)
