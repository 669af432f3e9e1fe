"""Laws of the losses: shared edges are exact, KL is never negative, weights sum to one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treegrpo.losses import Edges, LossOptions, grpo, summarise
from treegrpo.weighting import NORMALISERS, edge_weights

log_ratios = st.floats(-3, 3)
branches = st.lists(st.tuples(st.floats(0, 1), st.floats(-4, 4)), min_size=1, max_size=6)
options = st.builds(
    LossOptions,
    clip_low=st.floats(0, 0.9),
    clip_high=st.floats(0, 2),
    dual_clip=st.none() | st.floats(1.01, 8),
    kl_beta=st.just(0.3),
)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(tokens=st.lists(st.tuples(log_ratios, branches), min_size=1, max_size=5), chosen=options)
def test_a_shared_edge_equals_its_branches(
    tokens: list[tuple[float, list[tuple[float, float]]]], chosen: LossOptions
) -> None:
    """Two numbers per unique token give the loss, gradient and metrics of the flat batch."""
    rows = [(t, w, a) for t, (_, of_token) in enumerate(tokens) for w, a in of_token]
    token_E = torch.tensor([t for t, _, _ in rows])
    flat_weight_E, flat_adv_E = vector(*[w for _, w, _ in rows]), vector(*[a for *_, a in rows])
    old_U, ref_U = torch.full_like(vector(*[d for d, _ in tokens]), -1.5), vector(-2.0)
    ref_U = ref_U.expand_as(old_U)
    logp_U = (old_U + vector(*[d for d, _ in tokens])).requires_grad_()

    def gathered(values_E: Tensor) -> Tensor:
        return torch.zeros_like(old_U).index_add(0, token_E, values_E)

    flat = Edges.flat(old_U[token_E], flat_adv_E, flat_weight_E, ref_U[token_E])
    shared = Edges(
        old_U,
        gathered(flat_weight_E * flat_adv_E.clamp(min=0)),
        gathered(flat_weight_E * flat_adv_E.clamp(max=0)),
        gathered(flat_weight_E),
        ref_U,
    )
    by_row, by_token = grpo(logp_U[token_E], flat, chosen), grpo(logp_U, shared, chosen)
    torch.testing.assert_close(by_token.loss, by_row.loss, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(by_token.loss, logp_U)[0],
        torch.autograd.grad(by_row.loss, logp_U)[0],
        rtol=1e-10,
        atol=1e-10,
    )
    flat_numbers = summarise([by_row.metrics])
    assert summarise([by_token.metrics]) == pytest.approx(flat_numbers, rel=1e-9, abs=1e-9)


@given(log_ratio=log_ratios, of_token=branches, chosen=options)
def test_the_two_number_form_is_the_printed_clip(
    log_ratio: float, of_token: list[tuple[float, float]], chosen: LossOptions
) -> None:
    """Sum over branches of w min(r A, clip(r) A), bounded by c A for A < 0, in plain floats."""
    ratio = math.exp(log_ratio)
    clipped = min(max(ratio, 1 - chosen.clip_low), 1 + chosen.clip_high)
    expected = 0.0
    for weight, advantage in of_token:
        gain = min(ratio * advantage, clipped * advantage)
        if advantage < 0 and chosen.dual_clip is not None:
            gain = max(gain, chosen.dual_clip * advantage)
        expected -= weight * gain
    edges = Edges(
        vector(0.0),
        vector(sum(w * max(a, 0) for w, a in of_token)),
        vector(sum(w * min(a, 0) for w, a in of_token)),
        vector(sum(w for w, _ in of_token)),
    )
    found = grpo(vector(log_ratio), edges, chosen.model_copy(update={"kl_beta": 0.0}))
    assert float(found.loss) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(log_ratio=st.floats(-30, 30), weight=st.floats(0, 1))
def test_kl_is_never_negative(log_ratio: float, weight: float) -> None:
    zero = vector(0.0)
    edges = Edges(zero, zero, zero, vector(weight), zero)
    metrics = grpo(vector(log_ratio), edges, LossOptions(kl_beta=1.0)).metrics
    assert float(metrics["kl_reference"]) >= 0
    assert float(metrics["kl_sampler"]) >= 0
    if weight > 1e-3 and abs(log_ratio) > 1e-3:
        assert float(metrics["kl_reference"]) > 0
        assert float(metrics["kl_sampler"]) > 0


@given(counts=st.lists(st.integers(0, 500), max_size=20), normaliser=st.sampled_from(NORMALISERS))
def test_weights_sum_to_one(counts: list[int], normaliser: str) -> None:
    weights = edge_weights(counts, normaliser)
    total = math.fsum(w * n for w, n in zip(weights, counts, strict=True))
    assert total == pytest.approx(1.0 if any(counts) else 0.0)
    assert all((w > 0) == (n > 0) for w, n in zip(weights, counts, strict=True))
