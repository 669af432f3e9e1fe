"""Every loss on one fork, by hand: fractions and powers of two, no code of the package.

        step 0: tokens of ratio 2 and 1/2
          |-- step 1 = leaf A: one token of ratio 4        advantage +1, weight 1/6 a token
          '-- step 2 = leaf B: two tokens of ratio 1/4     advantage -1, weight 1/8 a token

Each leaf weighs 1/2 (3 and 4 tokens). All old and reference log-probs are -2. So step 0 has
adv_pos 1/6, adv_neg -1/8 and weight 7/24 a token.
"""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from treegrpo.edges import Branches, Edges, Preferences
from treegrpo.losses import LossOptions, LossResult, get_loss, loss_names, summarise

LN2 = log(2)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


OLD = vector(-2, -2, -2, -2, -2)
LOGP = OLD + vector(2, 1 / 2, 4, 1 / 4, 1 / 4).log()


def fork() -> Edges:
    branches = Branches(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0, 1, 0, 2]),
        vector(1 / 6, 1 / 6, 1 / 8, 1 / 8),
        vector(1, 1, -1, -1),
        num_leaves=2,
        num_steps=3,
    )
    better = Preferences(torch.tensor([1]), torch.tensor([2]), vector(1))
    steps = torch.tensor([0, 0, 1, 2, 2])
    rho = vector(2, 1, 4, 1 / 2, 1)
    return Edges(OLD, steps, branches, OLD, OLD - rho.log(), better)


def run(name: str, **given: object) -> tuple[LossResult, list[float]]:
    logp_E = LOGP.clone().requires_grad_()
    result = get_loss(name)(logp_E, fork(), LossOptions.model_validate(given))
    return result, torch.autograd.grad(result.loss, logp_E)[0].tolist()


CLIP = {"clip_low": 0.2, "clip_high": 0.3}
WIDE = {"clip_low": 0.9, "clip_high": 1.0}
A, B = 2 ** (2 / 3), 1 / 2  # leaf ratios: exp((0 + 2 ln 2) / 3), exp((0 - 4 ln 2) / 4)
VALUES = [
    # Tokens: 1.3/6 - 2/8, 0.5/6 - 0.8/8, 1.3/6 and twice -0.8/8.
    ("grpo", CLIP, 1 / 30),
    # The -2/8 becomes -1.5/8.
    ("grpo", {**CLIP, "dual_clip": 1.5}, -7 / 240),
    ("grpo", {}, 1 / 15),
    ("dr_grpo", {}, 1 / 15),
    ("dapo", {}, 0.55 - 3.06 / 6),
    # 1/24 (logp + logp) + 1/6 logp - 1/8 (logp + logp).
    ("reinforce", {}, -5 / 6 * LN2),
    # The same with factors 2, 1/2, 4, 1/4, 1/4: none is above 5.
    ("cispo", {}, 17 / 12 - 73 / 48 * LN2),
    # ... with factors 1.5, 1/2, 1.5, 1/2, 1/2.
    ("cispo", {"clip_low": 0.5, "clip_high": 0.5}, 5 / 12 - 19 / 24 * LN2),
    # Each leaf has mass 1/2: A is cut at 1.3, B at 0.8.
    ("gspo", CLIP, -0.25),
    ("gspo", {}, -0.00035),
    ("gspo", WIDE, B / 2 - A / 2),
    # Step ratios 1, 4 and 1/4 with masses 1/3 - 1/4, 1/6 and -1/4.
    ("step_ratio", CLIP, -0.1),
    ("step_ratio", {}, -17 / 12000),
    ("step_ratio", {"clip_low": 0.9, "clip_high": 9.0}, -(1 / 12 + 4 / 6 - 1 / 16)),
    # 7/24 (2 + 2) + 1/6 (2 - 2 ln 2) + 1/8 (4 + 4 ln 2).
    ("sft", {}, 2 + LN2 / 6),
    # D is 2 ln 2 and -4 ln 2: -log sigmoid(6 beta ln 2).
    ("step_dpo", {"dpo_beta": 0.5}, log(9 / 8)),
    ("step_dpo", {}, log(1 + 2**-0.6)),
    # k3 is 1/r - 1 + ln r: ln 2 - 1/2, 1 - ln 2, 2 ln 2 - 3/4, 3 - 2 ln 2.
    ("grpo", {**CLIP, "kl_beta": 2.0}, 1 / 30 + 2 * (37 / 48 - LN2 / 6)),
    ("grpo", {**CLIP, "kl_beta": 2.0, "kl_estimator": "k3"}, 1 / 30 + 2 * (37 / 48 - LN2 / 6)),
    # k1 is r ln r: 2 ln 2, -1/2 ln 2, 8 ln 2, -1/2 ln 2.
    ("grpo", {**CLIP, "kl_beta": 2.0, "kl_estimator": "k1"}, 1 / 30 + 2 * 79 / 48 * LN2),
    # rho is 2, 1, 4, 1/2, 1 by token: terms -2/60, -1/60, 13/60, -6/60, -6/60.
    ("grpo", {**CLIP, "correction": "tis"}, -(2 * -2 - 1 + 2 * 13 - 6 / 2 - 6) / 60),
    (
        "grpo",
        {**CLIP, "correction": "icepop", "correction_low": 0.4, "correction_high": 3.0},
        -(2 * -2 - 1 + 0 - 6 / 2 - 6) / 60,
    ),
    # Leaf A: rho 8^(1/3) = 2 is out; leaf B: 1 stays, 2/8 + 0.8 * 3/8 of it.
    ("grpo", {**CLIP, "correction": "sequence_mask"}, 0.55),
    # Masses of the leaves: (2 + 1 + 2) / 6 and (2 + 1 + 1/2 + 1) / 8.
    ("gspo", {**CLIP, "correction": "tis"}, -(5 / 6 * 1.3 - 4.5 / 8 * 0.8)),
    # Of the steps: 3/6 - 3/8, 2/6 and -1.5/8.
    ("step_ratio", {**CLIP, "correction": "tis"}, -(1 / 8 + 2 / 6 * 1.3 - 1.5 / 8 * 0.8)),
]


@pytest.mark.parametrize(("name", "given", "expected"), VALUES)
def test_value(name: str, given: dict[str, object], expected: float) -> None:
    result, _ = run(name, **given)
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_no_loss_is_without_a_value() -> None:
    assert {name for name, _, _ in VALUES} == set(loss_names())


GRADIENTS = [
    # Token by token: only B pushes (ratio 2), only A (1/2), both clipped from there.
    ("grpo", CLIP, [1 / 4, -1 / 12, 0, 0, 0]),
    ("grpo", {**CLIP, "dual_clip": 1.5}, [0, -1 / 12, 0, 0, 0]),
    # ... and weight r ln r: the estimate k1 is a constant, the ratio is not.
    (
        "grpo",
        {**CLIP, "kl_beta": 1.0, "kl_estimator": "k1"},
        [
            1 / 4 + 7 / 12 * LN2,
            -1 / 12 - 7 / 48 * LN2,
            8 / 6 * LN2,
            -LN2 / 16,
            -LN2 / 16,
        ],
    ),
    # ... and weight (1 - 1/r).
    (
        "grpo",
        {**CLIP, "kl_beta": 1.0},
        [1 / 4 + 7 / 48, -1 / 12 - 7 / 24, 1 / 8, -3 / 8, -3 / 8],
    ),
    ("reinforce", {}, [-1 / 24, -1 / 24, -1 / 6, 1 / 8, 1 / 8]),
    ("cispo", {}, [-2 / 24, -1 / 48, -4 / 6, 1 / 32, 1 / 32]),
    ("gspo", CLIP, [0, 0, 0, 0, 0]),
    ("gspo", WIDE, [B / 8 - A / 6, B / 8 - A / 6, -A / 6, B / 8, B / 8]),
    ("step_ratio", CLIP, [-1 / 24, -1 / 24, 0, 0, 0]),
    ("sft", {}, [-7 / 24, -7 / 24, -1 / 6, -1 / 8, -1 / 8]),
    # beta (1 - sigmoid(3 ln 2)) = 0.5 / 9.
    ("step_dpo", {"dpo_beta": 0.5}, [0, 0, -1 / 18, 1 / 18, 1 / 18]),
]


@pytest.mark.parametrize(("name", "given", "expected"), GRADIENTS)
def test_gradient(name: str, given: dict[str, object], expected: list[float]) -> None:
    assert run(name, **given)[1] == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("name", "given", "clip_share", "ratio_mean"),
    [
        # Advantage mass 1, 1/6 or 1/8 a token: A is clipped at 2 and 4, B at 1/2, 1/4, 1/4.
        ("grpo", CLIP, 2 / 6 + 3 / 8, 7 / 24 * 2.5 + 4 / 6 + 1 / 16),
        ("grpo", {**CLIP, "dual_clip": 1.5}, 2 / 6 + 4 / 8, 7 / 24 * 2.5 + 4 / 6 + 1 / 16),
        ("reinforce", {}, 0, 7 / 24 * 2.5 + 4 / 6 + 1 / 16),
        # Without regard to sign, and the two leaves cancel to 1/6 + 1/8 a token of step 0.
        ("cispo", {"clip_high": 0.5}, 7 / 24 + 1 / 6, 7 / 24 * 2.5 + 4 / 6 + 1 / 16),
        ("gspo", CLIP, 1, (A + B) / 2),
        ("gspo", {"clip_low": 0.2, "clip_high": 0.6}, 1 / 2, (A + B) / 2),
        ("step_ratio", CLIP, 1 / 6 + 2 / 8, 14 / 24 + 4 / 6 + 1 / 16),
        ("step_ratio", {**CLIP, "clip_high": 3.5}, 2 / 8, 14 / 24 + 4 / 6 + 1 / 16),
    ],
)
def test_metrics(name: str, given: dict[str, object], clip_share: float, ratio_mean: float) -> None:
    result, _ = run(name, **given)
    numbers = summarise([result.metrics])
    assert numbers["clip_share"] == pytest.approx(clip_share, rel=1e-12)
    assert numbers["ratio_mean"] == pytest.approx(ratio_mean, rel=1e-12)
    # logp - sampler_logp = ln(ratio rho): ln 4, -ln 2, ln 16, -ln 8, -ln 4.
    assert numbers["max_abs_log_ratio"] == pytest.approx(4 * LN2, rel=1e-12)
    k3 = [4 - 1 - 2 * LN2, 1 / 2 - 1 + LN2, 16 - 1 - 4 * LN2, 1 / 8 - 1 + 3 * LN2]
    last = 1 / 4 - 1 + 2 * LN2
    expected = 7 / 24 * (k3[0] + k3[1]) + k3[2] / 6 + (k3[3] + last) / 8
    assert numbers["kl_sampler"] == pytest.approx(expected, rel=1e-12)
