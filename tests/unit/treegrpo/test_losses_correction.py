"""Corrections for a sampler that differs from the trainer, by hand and on shared steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from treegrpo.edges import Branches, Edges, concatenate
from treegrpo.losses import LossOptions, corrected, get_loss, summarise


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def options(**given: object) -> LossOptions:
    return LossOptions.model_validate(given)


def tokens(*rho: float) -> Edges:
    """One token a leaf, of weight 1 and advantage 1, -1, 1, ...; and its old/sampler ratio."""
    old_E = vector(*[-1.0 for _ in rho])
    adv_E = vector(*[(-1.0) ** i for i in range(len(rho))])
    edges = Edges.flat(old_E, adv_E, torch.ones_like(old_E), old_E)
    return edges.replace(sampler_logp_E=old_E - vector(*rho).log())


def masses(edges: Edges) -> list[float]:
    return (edges.adv_pos_E - edges.adv_neg_E).tolist()


RHO = (0.1, 0.5000001, 1.0, 1.9, 4.9999999, 60.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"correction": "none"}, (1, 1, 1, 1, 1, 1)),
        ({"correction": "tis"}, (0.1, 0.5, 1, 1.9, 2, 2)),
        ({"correction": "tis", "correction_high": 10.0}, (0.1, 0.5, 1, 1.9, 5, 10)),
        ({"correction": "icepop"}, (0, 0.5, 1, 1.9, 5, 0)),
        (
            {"correction": "icepop", "correction_low": 0.6, "correction_high": 1.5},
            (0, 0, 1, 0, 0, 0),
        ),
        ({"correction": "sequence_mask"}, (0, 0, 1, 0, 0, 0)),
        ({"correction": "sequence_mask", "correction_high": 2.0}, (0, 0, 1, 1, 0, 0)),
        ({"correction": "sequence_mask", "correction_low": 0.3}, (0, 1, 1, 0, 0, 0)),
    ],
)
def test_factors_of_single_tokens(given: dict[str, object], expected: tuple[float, ...]) -> None:
    found = corrected(tokens(*RHO), options(**given))
    assert masses(found) == pytest.approx(expected, rel=1e-6)
    assert bool((found.adv_neg_E[1::2] <= 0).all()), "signs stay"
    assert bool((found.adv_pos_E[1::2] == 0).all())


def test_bounds_belong_to_the_band() -> None:
    edges = tokens(1.0)
    for kind in ("icepop", "sequence_mask"):
        band = options(correction=kind, correction_low=1.0, correction_high=1.0)
        assert masses(corrected(edges, band)) == [1.0]


def test_nothing_to_correct() -> None:
    edges = tokens(3.0)
    assert corrected(edges, LossOptions()) is edges
    same = edges.replace(sampler_logp_E=None)
    assert corrected(same, options(correction="tis")) is same


def test_a_factor_that_is_there_stays() -> None:
    edges = tokens(1.5).replace(factor_E=vector(4))
    assert masses(corrected(edges, options(correction="tis"))) == pytest.approx([6.0])
    together = concatenate([edges, tokens(1.0).replace(factor_E=vector(2))])
    assert masses(together) == [4.0, 2.0]


def test_huge_gaps_stay_finite() -> None:
    edges = tokens(1.0).replace(sampler_logp_E=vector(-1e4))
    assert masses(corrected(edges, options(correction="tis"))) == [2.0]
    wide = options(correction="icepop", correction_high=1e30)
    assert masses(corrected(edges, wide)) == pytest.approx([math.exp(20)])


def fork(gap_0: float, gap_1: float, gap_2: float) -> Edges:
    """A step of 2 tokens above two leaves of 1 token; the gaps old - sampler per step."""
    branches = Branches(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0, 1, 0, 2]),
        vector(0.1, 0.1, 0.3, 0.3),
        vector(2, 2, -1, -1),
        2,
        3,
    )
    old_E = vector(-1, -2, -3, -4)
    gap_E = vector(gap_0, gap_0, gap_1, gap_2)
    edges = Edges(old_E, torch.tensor([0, 0, 1, 2]), branches, old_E - 0.5)
    return edges.replace(sampler_logp_E=old_E - gap_E)


def test_a_masked_leaf_leaves_the_shared_step_to_the_others() -> None:
    """Leaf 0: mean gap (0.1 + 0.1 + 0.4) / 3 = 0.2. Leaf 1: (0.1 + 0.1 - 0.2) / 3 = 0."""
    edges = fork(0.1, 0.4, -0.2)
    found = corrected(edges, options(correction="sequence_mask"))
    assert found.weight_E.tolist() == [0.3, 0.3, 0.0, 0.3]
    assert found.adv_pos_E.tolist() == [0, 0, 0, 0]
    assert found.adv_neg_E.tolist() == [-0.3, -0.3, 0, -0.3]
    # exp(0.2) = 1.2214: just inside, and just outside.
    for high, kept in ((1.2215, [0.4, 0.4, 0.1, 0.3]), (1.2213, [0.3, 0.3, 0.0, 0.3])):
        band = options(correction="sequence_mask", correction_high=high)
        assert corrected(edges, band).weight_E.tolist() == kept


def test_a_masked_leaf_has_no_kl_either_but_a_factor_leaves_the_kl_alone() -> None:
    edges, kl = fork(0.1, 0.4, -0.2), {"kl_beta": 1.0}
    logp_E = edges.old_logp_E
    each = math.exp(-0.5) + 0.5 - 1
    for kind, weight in (("none", 0.4 * 2 + 0.1 + 0.3), ("tis", 1.2), ("sequence_mask", 0.9)):
        result = get_loss("grpo")(logp_E, edges, options(correction=kind, **kl))
        assert float(result.metrics["kl_reference"]) == pytest.approx(weight * each)


@pytest.mark.parametrize("name", ["reinforce", "grpo", "cispo", "gspo", "step_ratio"])
def test_corrections_are_constants_of_the_gradient(name: str) -> None:
    """Log-probs of the sampler and the old policy are data, even where they ask for gradient."""
    edges = fork(0.1, 0.02, -0.2)
    old_E = edges.old_logp_E.clone().requires_grad_()
    for kind in ("tis", "icepop", "sequence_mask"):
        found = corrected(edges.replace(old_logp_E=old_E), options(correction=kind))
        assert not found.adv_pos_E.requires_grad
    logp_E = edges.old_logp_E.clone().requires_grad_()
    factors = corrected(edges, options(correction="tis")).factor_E
    assert factors is not None
    (plain_E,) = torch.autograd.grad(get_loss(name)(logp_E, edges, LossOptions()).loss, logp_E)
    result = get_loss(name)(logp_E, edges, options(correction="tis"))
    (found_E,) = torch.autograd.grad(result.loss, logp_E)
    if name in ("reinforce", "grpo", "cispo"):
        torch.testing.assert_close(found_E, plain_E * factors)
    elif name == "step_ratio":
        mean_E = torch.stack([factors[:2].mean(), factors[:2].mean(), factors[2], factors[3]])
        torch.testing.assert_close(found_E, plain_E * mean_E)
    else:  # Each leaf's gradient is spread over its 3 tokens: mass / 3.
        shared, first, second = math.exp(0.1) * 2, math.exp(0.02), math.exp(-0.2)
        leaf_0, leaf_1 = -0.2 * (shared + first) / 3, 0.3 * (shared + second) / 3
        expected_E = vector(leaf_0 + leaf_1, leaf_0 + leaf_1, leaf_0, leaf_1)
        torch.testing.assert_close(found_E, expected_E)


def test_the_gap_is_measured_to_the_sampler_and_before_the_correction() -> None:
    edges = fork(0.1, 0.4, -0.2)
    logp_E = edges.old_logp_E
    result = get_loss("grpo")(logp_E, edges, options(correction="sequence_mask"))
    numbers = summarise([result.metrics])
    assert numbers["max_abs_log_ratio"] == pytest.approx(0.4)
    k3 = [math.exp(d) - d - 1 for d in (0.1, 0.1, 0.4, -0.2)]
    weighted = 0.4 * k3[0] + 0.4 * k3[1] + 0.1 * k3[2] + 0.3 * k3[3]
    assert numbers["kl_sampler"] == pytest.approx(weighted / 1.2)
    assert numbers["ratio_mean"] == pytest.approx(1.0), "over what is left"
    mass = 0.2 * 3 + 0.3 * 3
    assert numbers["kept_share"] == pytest.approx(0.9 / mass)
    silent = get_loss("grpo")(logp_E, edges.replace(sampler_logp_E=None), LossOptions())
    assert summarise([silent.metrics])["max_abs_log_ratio"] == 0
    assert "kept_share" not in summarise([silent.metrics])
