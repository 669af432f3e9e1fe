"""treegrpo.logprobs: the same numbers in chunks or whole, and what was sampled is met again."""

from typing import Any

import pytest
import torch

from tests.fakes_models import tiny_model
from tests.packed_trees import SHAPES, Grown, batches_of, case_of, model_of, path_logps
from tests.toy_game import ID, scheduler
from treegrpo.credit import get_credit
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import make
from treegrpo.logprobs import FLAT, WHOLE, edge_dtype, token_logps
from treegrpo.losses import LossOptions, get_loss
from treegrpo.pack import PackedBatch, Weighted, pack, split
from treegrpo.rollout import Question
from treegrpo.weighting import get_weighting, token_weights


def packed(way: str = "dense", shape: str = "five levels") -> PackedBatch:
    [batch] = batches_of(case_of(SHAPES[shape], 3).weighted("leaf", "token_mean"), way)
    return batch


def values_and_gradients(
    model: Any, batch: PackedBatch, way: str, temperature: float = 0.8, **limits: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logp_E = token_logps(model, batch, temperature, way, **limits)
    factors_E = torch.linspace(-1, 2, len(logp_E), dtype=logp_E.dtype)
    grads = torch.autograd.grad((factors_E * logp_E).sum(), list(model.parameters()))
    return logp_E.detach(), list(grads)


def gap(
    one: tuple[torch.Tensor, list[torch.Tensor]], two: tuple[torch.Tensor, list[torch.Tensor]]
) -> float:
    pairs = zip([one[0], *one[1]], [two[0], *two[1]], strict=True)
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


@pytest.mark.parametrize("rows", [1, 2, 7, 10])
def test_chunks_change_neither_values_nor_gradients(rows: int) -> None:
    model, batch = model_of(), packed()
    assert len(batch.target_E) == 21
    whole = values_and_gradients(model, batch, "dense")
    chunked = values_and_gradients(model, batch, "dense", logits_at_once=19 * rows)
    assert gap(whole, chunked) <= 1e-13


@pytest.mark.parametrize(("limit", "rows"), [(19 * 4, 4), (19 * 5 - 1, 4), (3, 1), (10**9, 21)])
def test_never_more_logits_at_once_than_allowed(limit: int, rows: int) -> None:
    """Forward, and computed again backward; one prediction is the least there is."""
    model, batch, counts = model_of(), packed(), list[tuple[int, ...]]()
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda *call: counts.append(tuple(call[2].shape)))
    try:
        logp_E = token_logps(model, batch, 1.0, "dense", logits_at_once=limit)
        forward = list(counts)
        torch.autograd.grad(logp_E.sum(), head.weight)
    finally:
        handle.remove()
    assert sum(shape[0] for shape in forward) == 21
    assert max(shape[0] for shape in counts) == rows
    assert len(counts) == (1 if rows == 21 else 2 * len(forward))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("way", ["dense", "segments", FLAT, WHOLE])
def test_log_probs_are_those_of_the_tempered_distribution(way: str, temperature: float) -> None:
    case = case_of([[Grown(0, 3, 2), Grown(1, 2)]])
    share = FLAT if way in (FLAT, WHOLE) else way
    [batch] = batches_of(case.weighted("leaf", "token_mean"), share)
    found_E = token_logps(model_of(), batch, temperature, way).detach()
    expected_E = path_logps(model_of(), case.trees[0], 2, temperature).detach()
    assert float((found_E - expected_E).abs().max()) <= 1e-13
    other_E = path_logps(model_of(), case.trees[0], 2, 1.1 * temperature).detach()
    assert float((found_E - other_E).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", ["five levels", "several trees", "empty steps"])
def test_the_whole_model_says_the_same(shape: str) -> None:
    model, batch = model_of(), packed(FLAT, shape)
    assert batch.layout.is_chain and len(batch.ids_BU) > 1
    flat, whole = (values_and_gradients(model, batch, way) for way in (FLAT, WHOLE))
    assert gap(flat, whole) <= 1e-13


@pytest.mark.parametrize("way", [FLAT, WHOLE])
def test_rows_that_branch_are_refused_without_tree_attention(way: str) -> None:
    with pytest.raises(TreegrpoError) as caught:
        token_logps(model_of(), packed("dense"), 1.0, way)
    assert str(caught.value) == (
        f"Log-probs of rows that branch asked for with attention '{way}', which would show "
        "siblings each other. Name an attention backend, or split with share=False and pack "
        "with row_tokens=1."
    )


def test_rows_of_several_paths_are_refused_too() -> None:
    case = case_of([[Grown(0, 2)], [Grown(0, 3)]])
    trees = case.weighted("leaf", "token_mean")
    [batch] = pack(split(trees, 100, share=False), max_tokens=100, dtype=torch.float64)
    assert len(batch.ids_BU) == 1
    with pytest.raises(TreegrpoError, match="rows that branch"):
        token_logps(model_of(), batch, 1.0, FLAT)


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(TreegrpoError, match=r"Unknown attention 'densee'. Did you mean 'dense'"):
        token_logps(model_of(), packed(), 1.0, "densee")


def test_observations_carry_no_loss() -> None:
    """The gradient by the logits is 0 except where a sampled token is predicted."""
    batch = packed(FLAT)
    logits_BUV = torch.randn(*batch.ids_BU.shape, 19, dtype=torch.float64, requires_grad=True)

    class Fixed(torch.nn.Module):
        def forward(self, **_: Any) -> Any:
            return type("Output", (), {"logits": logits_BUV})

    result = get_loss("sft")(token_logps(Fixed(), batch, 1.0, WHOLE), batch.edges, LossOptions())
    result.loss.backward()
    assert logits_BUV.grad is not None
    touched = logits_BUV.grad.abs().sum(-1).flatten().nonzero().flatten().tolist()
    assert touched == sorted(batch.predictor_E.tolist())
    assert len(touched) < batch.num_tokens - len(batch.ids_BU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_log_probs_are_at_least_float32(dtype: torch.dtype) -> None:
    model: Any = tiny_model(vocab_size=19, hidden_size=16, heads=2, kv_heads=1)
    model = model.to(dtype)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert token_logps(model, packed(), 1.0, "dense").dtype == wanted == edge_dtype(dtype)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("way", ["dense", "segments", FLAT])
def test_trainer_and_sampler_agree_on_a_real_tree(way: str, temperature: float) -> None:
    """Shared prompts, kept and forked KV, padding: all within 1e-5 of one forward pass."""
    model = tiny_model(vocab_size=128)
    made, _ = scheduler(
        HFEngine(model, max_batch_rows=3), make(ID), rounds=2,
        max_context_tokens=400, temperature=temperature,
    )  # fmt: skip
    questions = made.grow([Question(seed, {"split": "train"}) for seed in range(2)]).questions
    trees = [tree for question in questions for tree in question]
    credits = [one for question in questions for one in get_credit("group")(question)]
    shares = [one for question in questions for one in get_weighting("leaf")(question)]
    weights = token_weights(shares, trees, "token_mean", 400)
    rows = [Weighted(*one) for one in zip(trees, credits, weights, strict=True)]
    parts = split(rows, 800, share=way != FLAT, need_all=True)
    batches = pack(parts, max_tokens=800, row_tokens=1 if way == FLAT else None)
    assert sum(batch.edges.branches.num_leaves for batch in batches) == 2 * 2 * 5
    gaps, sampled = list[float](), list[float]()
    for batch in batches:
        with torch.no_grad():
            logp_E = token_logps(model, batch, temperature, way)
        gaps.append(float((logp_E - batch.edges.old_logp_E).abs().max()))
        sampled += batch.edges.old_logp_E.tolist()
    assert max(gaps) < 1e-5
    assert max(sampled) - min(sampled) > 1, "the model is not uniform"
