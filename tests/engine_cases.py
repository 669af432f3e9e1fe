"""What the tests of every engine share: random ids, the trainer's log-probs, a comparison."""

import numpy as np
import torch
from transformers import PreTrainedModel

from tests.fakes_models import Family
from treegrpo.engine.base import Sampled

VOCAB = 61
FAMILIES: list[Family] = ["qwen3", "qwen2", "llama"]


def words(seed: int, count: int) -> list[int]:
    """Return `count` pseudo-random ids."""
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def trainer_logps(model: PreTrainedModel, ids: list[int], temperature: float) -> torch.Tensor:
    """Return log p(ids[i] | ids[:i]) for i >= 1, from one forward without any cache."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    return logps.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


def assert_same(one: list[Sampled], other: list[Sampled]) -> None:
    assert [row.ids for row in one] == [row.ids for row in other]
    assert [row.stopped for row in one] == [row.stopped for row in other]
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left.logps, right.logps, atol=1e-5)
