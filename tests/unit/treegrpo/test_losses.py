"""treegrpo.losses against plain loops over tokens, and what every loss has in common."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from treegrpo.edges import Branches, Edges, Preferences, concatenate
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.losses import (
    LossOptions,
    LossResult,
    check_options,
    drop_loss,
    get_loss,
    grpo,
    loss,
    loss_names,
    merge,
    sft,
    summarise,
)

ALL_ON = LossOptions(clip_low=0.2, clip_high=0.3, dual_clip=1.5, kl_beta=0.1)
OPTIONS = {
    **dict.fromkeys(("grpo", "dr_grpo", "dapo", "gspo", "step_ratio"), ALL_ON),
    "cispo": LossOptions(clip_low=0.2, clip_high=0.3, kl_beta=0.1),
    "reinforce": LossOptions(kl_beta=0.1),
    "sft": LossOptions(),
}
"""Every loss over branches, with all that it takes."""


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def batch(size: int = 40, seed: int = 0) -> tuple[Tensor, Edges, Tensor]:
    """Log-probs with ratios on both sides of every bound, flat edges, their advantages."""
    random = torch.Generator().manual_seed(seed)
    old_E, noise_E, adv_E, ref_E, weight_E = torch.randn(
        5, size, generator=random, dtype=torch.float64
    )
    logp_E = (old_E + 0.5 * noise_E).requires_grad_()
    return logp_E, Edges.flat(old_E, adv_E, weight_E.abs() / size, ref_E), adv_E


def gradient(result: LossResult, logp_E: Tensor) -> Tensor:
    return torch.autograd.grad(result.loss, logp_E)[0]


def naive_token(logp: Tensor, old: float, advantage: float, ref: float) -> tuple[Tensor, bool]:
    """One token as the papers print it, with the options of ALL_ON; and if it was clipped."""
    ratio = torch.exp(logp - old)
    clipped = torch.minimum(torch.maximum(ratio, vector(0.8)[0]), vector(1.3)[0])
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    if advantage < 0:
        objective = torch.maximum(objective, vector(1.5 * advantage)[0])
    (slope,) = torch.autograd.grad(objective, logp, retain_graph=True)
    divergence = torch.exp(ref - logp) - (ref - logp) - 1
    return 0.1 * divergence - objective, float(slope) == 0


def test_grpo_equals_the_naive_loss_and_gradient() -> None:
    logp_E, edges, adv_E = batch()
    assert edges.ref_logp_E is not None
    tokens = [
        naive_token(logp_E[e], float(edges.old_logp_E[e]), float(adv_E[e]), float(ref))
        for e, ref in enumerate(edges.ref_logp_E)
    ]
    terms = [w * value for w, (value, _) in zip(edges.weight_E, tokens, strict=True)]
    expected = torch.stack(terms).sum()
    result = grpo(logp_E, edges, ALL_ON)
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    (expected_grad,) = torch.autograd.grad(expected, logp_E)
    torch.testing.assert_close(gradient(result, logp_E), expected_grad, rtol=1e-12, atol=1e-12)

    mass_E = edges.weight_E * adv_E.abs()
    clipped_E = torch.tensor([clipped for _, clipped in tokens])
    share = summarise([result.metrics])["clip_share"]
    assert 0 < share < 1
    assert share == pytest.approx(float(mass_E[clipped_E].sum() / mass_E.sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("advantage", "ratio", "dual_clip", "expected", "slope"),
    [
        (2.0, 1.1, None, -2.2, -2.2),
        (2.0, 1.5, None, -2.6, 0.0),
        (2.0, 0.5, None, -1.0, -1.0),
        (-2.0, 0.9, None, 1.8, 1.8),
        (-2.0, 0.5, None, 1.6, 0.0),
        (-2.0, 5.0, None, 10.0, 10.0),
        (-2.0, 5.0, 3.0, 6.0, 0.0),
        (2.0, 5.0, 3.0, -2.6, 0.0),
    ],
)
def test_grpo_clips_by_hand(
    advantage: float, ratio: float, dual_clip: float | None, expected: float, slope: float
) -> None:
    options = LossOptions(clip_low=0.2, clip_high=0.3, dual_clip=dual_clip)
    logp_E = vector(math.log(ratio) - 1).requires_grad_()
    edges = Edges.flat(vector(-1), vector(advantage), vector(1))
    result = grpo(logp_E, edges, options)
    assert float(result.loss.detach()) == pytest.approx(expected)
    assert float(gradient(result, logp_E)) == pytest.approx(slope)
    assert summarise([result.metrics])["clip_share"] == (slope == 0)


def test_first_step_gradient_is_reinforce() -> None:
    logp_E, edges, adv_E = batch()
    assert float(logp_E.detach().std()) > 0.5
    fresh = Edges.flat(logp_E.detach(), adv_E, edges.weight_E)
    result = grpo(logp_E, fresh, LossOptions())
    reinforce = -(edges.weight_E * adv_E * logp_E).sum()
    (expected,) = torch.autograd.grad(reinforce, logp_E)
    assert torch.equal(gradient(result, logp_E), expected)
    numbers = summarise([result.metrics])
    assert numbers["clip_share"] == numbers["kl_sampler"] == numbers["max_abs_log_ratio"] == 0
    assert float(edges.weight_E.sum()) < 0.9, "part of the batch may be left out"
    assert numbers["ratio_mean"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", OPTIONS)
def test_edges_without_weight_have_no_gradient(name: str) -> None:
    logp_E, edges, adv_E = batch()
    assert edges.ref_logp_E is not None
    weight_E = edges.weight_E * (torch.arange(len(adv_E)) % 2)
    masked = Edges.flat(edges.old_logp_E, adv_E, weight_E, edges.ref_logp_E)
    grad_E = gradient(get_loss(name)(logp_E, masked, OPTIONS[name]), logp_E)
    assert torch.equal(grad_E == 0, weight_E == 0)


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"cispo"}))  # it stops a gradient
@pytest.mark.parametrize("seed", range(3))
def test_numeric_gradient(name: str, seed: int) -> None:
    logp_E, edges, _ = batch(12, seed)
    # A numeric slope across a kink is neither side's: keep away from the three bounds.
    ratio_E = (logp_E - edges.old_logp_E).detach().exp()
    for bound in (0.8, 1.3, 1.5):
        assert float((ratio_E - bound).abs().min()) > 1e-4

    def scalar(logp_E: Tensor) -> Tensor:
        return get_loss(name)(logp_E, edges, OPTIONS[name]).loss

    assert torch.autograd.gradcheck(scalar, (logp_E,), eps=1e-6, atol=1e-8)


def test_micro_batches_add() -> None:
    logp_E, edges, adv_E = batch()
    assert edges.ref_logp_E is not None
    parts = [
        grpo(
            logp_E[part],
            Edges.flat(
                edges.old_logp_E[part], adv_E[part], edges.weight_E[part], edges.ref_logp_E[part]
            ),
            ALL_ON,
        )
        for part in (slice(0, 7), slice(7, 7), slice(7, 40))
    ]
    whole = grpo(logp_E, edges, ALL_ON)
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss, rtol=1e-12, atol=0)
    together = summarise([part.metrics for part in parts])
    assert together == pytest.approx(summarise([whole.metrics]), rel=1e-12)
    assert set(together) == {
        "clip_share",
        "kl_reference",
        "kl_sampler",
        "max_abs_log_ratio",
        "ratio_mean",
    }
    log_ratio_E = (logp_E - edges.old_logp_E).detach()
    assert together["max_abs_log_ratio"] == float(log_ratio_E.abs().max())


def test_concatenation_numbers_leaves_and_steps_on() -> None:
    """Every edge of two flat batches stays a leaf and a step of its own."""
    zero_E = torch.zeros(3, dtype=torch.float64)
    edges = concatenate(
        [Edges.flat(zero_E[:size], zero_E[:size], zero_E[:size]) for size in (3, 2)]
    )
    for numbers in (edges.step_E, edges.branches.step_P, edges.branches.leaf_P):
        assert numbers.tolist() == [0, 1, 2, 3, 4]
    assert (edges.branches.num_leaves, edges.branches.num_steps) == (5, 5)


def test_merge_adds_sums_and_keeps_maxima() -> None:
    first = {"max_gap": vector(3)[0], "mass": vector(1)[0]}
    second = {"max_gap": vector(2)[0], "mass": vector(5)[0], "extra": vector(7)[0]}
    merged = {name: float(value) for name, value in merge([first, second]).items()}
    assert merged == {"max_gap": 3, "mass": 6, "extra": 7}
    assert summarise([]) == {}


def test_metrics_are_detached() -> None:
    logp_E, edges, _ = batch()
    for name, options in OPTIONS.items():
        metrics = get_loss(name)(logp_E, edges, options).metrics
        assert metrics
        assert not any(value.requires_grad for value in metrics.values())


def test_kl_to_the_reference_is_zero_at_equality_and_positive_elsewhere() -> None:
    logp_E, edges, _ = batch()
    zero_E = torch.zeros_like(edges.weight_E)
    options = LossOptions(kl_beta=2.0)
    equal = Edges.flat(edges.old_logp_E, zero_E, edges.weight_E, logp_E.detach())
    result = grpo(logp_E, equal, options)
    assert float(result.loss.detach()) == 0
    assert torch.equal(gradient(result, logp_E), zero_E)
    apart = Edges.flat(edges.old_logp_E, zero_E, edges.weight_E, edges.ref_logp_E)
    result = grpo(logp_E, apart, options)
    assert float(result.loss.detach()) == pytest.approx(2 * float(result.metrics["kl_reference"]))
    assert float(result.metrics["kl_reference"]) > 0
    # Down the gradient, each log-prob moves towards the reference's.
    assert edges.ref_logp_E is not None
    step_E = -gradient(result, logp_E)
    assert bool((step_E.sign() == (edges.ref_logp_E - logp_E).sign()).all())


def test_kl_needs_a_reference() -> None:
    logp_E, edges, adv_E = batch()
    bare = Edges.flat(edges.old_logp_E, adv_E, edges.weight_E)
    with pytest.raises(TreegrpoError, match="kl_beta above 0"):
        grpo(logp_E, bare, LossOptions(kl_beta=0.1))
    assert "kl_reference" not in grpo(logp_E, edges, LossOptions()).metrics


@pytest.mark.parametrize("gap", [1000.0, -1000.0])
def test_log_ratios_are_bounded(gap: float) -> None:
    logp_E = vector(gap).requires_grad_()
    edges = Edges.flat(vector(0), vector(-1), vector(1), vector(0))
    result = grpo(logp_E, edges, LossOptions(kl_beta=1.0))
    kl = math.expm1(-math.copysign(20, gap)) + math.copysign(20, gap)
    surrogate = math.exp(20) if gap > 0 else 0.8
    assert float(result.loss.detach()) == pytest.approx(surrogate + kl)
    assert float(gradient(result, logp_E)) == 0
    assert float(result.metrics["max_abs_log_ratio"]) == 1000


def test_sft_is_the_weighted_negative_log_likelihood() -> None:
    logp_E = vector(-1, -2, -4).requires_grad_()
    result = sft(logp_E, Edges.supervised(vector(0.5, 0.25, 0.25)), LossOptions())
    assert float(result.loss.detach()) == 2.0
    assert torch.equal(gradient(result, logp_E), vector(-0.5, -0.25, -0.25))
    assert summarise([result.metrics]) == {"nll": 2.0}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_edges_no_loss(name: str) -> None:
    none_E = torch.zeros(0, requires_grad=True)
    result = get_loss(name)(none_E, Edges.supervised(torch.zeros(0)), LossOptions())
    assert float(result.loss.detach()) == 0
    assert all(number == 0 for number in summarise([result.metrics]).values())


def test_shapes_that_would_broadcast_are_refused() -> None:
    logp_E, edges, _ = batch(4)
    with pytest.raises(
        TreegrpoError, match=r"Loss 'grpo' needs one log-prob per edge, 4; .*\(1,\)"
    ):
        grpo(logp_E[:1], edges, LossOptions())
    with pytest.raises(TreegrpoError, match="Loss 'sft' needs one log-prob per edge"):
        sft(logp_E[:, None], edges, LossOptions())
    four, one = torch.zeros(4), torch.zeros(1)
    for fields in (
        (one, four, four),
        (four, one, four),
        (four, four, one),
        (four, four, four, one),
    ):
        with pytest.raises(TreegrpoError, match="vectors of one length"):
            Edges.flat(*fields)
    for field in ("ref_logp_E", "sampler_logp_E", "factor_E"):
        with pytest.raises(TreegrpoError, match="one number per edge"):
            edges.replace(**{field: one})
    with pytest.raises(TreegrpoError, match="vectors of one length"):
        Edges.supervised(torch.zeros(2, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip_low": 1.0},
        {"clip_low": -0.1},
        {"clip_high": -0.1},
        {"dual_clip": 1.0},
        {"kl_beta": -1.0},
        {"kl_beta": float("nan")},
        {"kl_estimator": "k2"},
        {"correction": "sequence"},
        {"correction_low": 1.1},
        {"correction_high": 0.9},
        {"dpo_beta": 0.0},
        {"clip": 0.2},
    ],
)
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LossOptions.model_validate(wrong)


def test_unknown_loss_suggests() -> None:
    with pytest.raises(UnknownOption, match=r"Unknown loss 'grp'. Did you mean 'grpo'\?"):
        get_loss("grp")
    with pytest.raises(UnknownOption):
        drop_loss("grp")


@pytest.fixture
def mine() -> Iterator[str]:
    yield "mine"
    drop_loss("mine")


def test_users_add_a_loss_by_a_decorator(mine: str) -> None:
    @loss(mine)
    def mean_square(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
        """Return a mean square."""
        return LossResult((edges.weight_E * logp_E.square()).sum(), {})

    assert loss_names() == sorted([*OPTIONS, "step_dpo", "mine"])
    result = get_loss(mine)(vector(2, 4), Edges.supervised(vector(0.5, 0.5)), LossOptions())
    assert float(result.loss) == 10
    assert mean_square.__doc__ == "Return a mean square."
    with pytest.raises(TreegrpoError, match=r"Loss 'mine' .* the name is taken"):
        loss(mine)(mean_square)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda terms_E: terms_E.sum(), "a Tensor"),
        (lambda terms_E: None, "a NoneType"),
        (lambda terms_E: LossResult(terms_E, {}), "a loss of shape (2,)"),
    ],
)
def test_a_users_loss_must_return_one_number(
    mine: str, answer: Callable[[Tensor], Any], found: str
) -> None:
    loss(mine)(lambda logp_E, edges, options: answer(edges.weight_E * logp_E))
    words = f"Loss 'mine' must return LossResult.*found {re.escape(found)}. Sum over the edges"
    with pytest.raises(TreegrpoError, match=words):
        get_loss(mine)(vector(2, 4), Edges.supervised(vector(0.5, 0.5)), LossOptions())


def test_a_users_loss_has_corrections_and_the_kl(mine: str) -> None:
    @loss(mine, clip_high=0.5, dual_clip=None)
    def mass(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
        """Return the corrected mass and the bounds."""
        bound = options.highest_ratio + options.lowest_ratio
        return LossResult((edges.adv_pos_E * logp_E).sum() * bound, {})

    assert mass.takes == {"clip_high", "dual_clip"} | get_loss("reinforce").takes
    assert (mass.defaults.clip_high, mass.defaults.normaliser) == (0.5, "token_mean")
    edges = Edges.flat(vector(0), vector(3), vector(1), vector(-1))
    edges = edges.replace(sampler_logp_E=vector(-math.log(2)))
    options = LossOptions(correction="tis", correction_high=1.5, kl_beta=1.0)
    result = mass(vector(1), edges, options)
    assert float(result.loss) == pytest.approx(1.5 * 3 * 1.5 + math.exp(-2) + 2 - 1)
    assert summarise([result.metrics])["kept_share"] == pytest.approx(1.5)


def test_a_loss_has_no_defaults_of_other_options() -> None:
    with pytest.raises(TreegrpoError, match=r"default for kl_beta\. A loss has its own clip_low"):
        loss("mine", kl_beta=0.1)
    assert "mine" not in loss_names()


def test_a_users_file_is_named_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        import treegrpo.losses as losses

        @losses.loss("halved", is_policy=False)
        def halved(logp_E, edges, options):
            return losses.LossResult(logp_E.sum() / 2, {})
        """
    (tmp_path / "users_losses.py").write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = get_loss("users_losses:halved")
    drop_loss("halved")
    assert found.name == "halved"
    assert float(found(vector(3), Edges.supervised(vector(1)), LossOptions()).loss) == 1.5


DEFAULTS = {
    "reinforce": ("token_mean", None, None),
    "grpo": ("token_mean", 0.2, 0.2),
    "dr_grpo": ("constant", 0.2, 0.2),
    "dapo": ("token_mean", 0.2, 0.28),
    "cispo": ("token_mean", None, 4.0),
    "gspo": ("sequence_mean", 3e-4, 4e-4),
    "step_ratio": ("sequence_mean", 3e-3, 4e-3),
    "sft": ("token_mean", None, None),
    "step_dpo": ("token_mean", None, None),
}


def test_every_loss_has_its_own_defaults() -> None:
    found = {name: get_loss(name).defaults for name in loss_names()}
    assert {n: (d.normaliser, d.clip_low, d.clip_high) for n, d in found.items()} == DEFAULTS
    assert all(d.dual_clip is None and d.kl_beta == 0 for d in found.values())
    assert found["step_dpo"].dpo_beta == 0.1
    chosen = get_loss("dapo").resolve(LossOptions(clip_low=0.1))
    assert (chosen.clip_low, chosen.clip_high, chosen.dual_clip) == (0.1, 0.28, None)


def test_every_loss_is_short_and_says_where_it_is_from() -> None:
    for name in loss_names():
        found = inspect.unwrap(get_loss(name))
        assert len(inspect.getsource(found).splitlines()) <= 30, name
        for part in ("Return ", "loss = " if name != "sft" else "-sum(", "Source: ", "Shapes: "):
            assert part in (found.__doc__ or ""), (name, part)


IDLE: list[tuple[str, dict, str]] = [
    ("reinforce", {"clip_high": 0.3}, "clip_high=0.3"),
    ("reinforce", {"dual_clip": 3.0, "clip_low": 0.1}, "clip_low=0.1, dual_clip=3.0"),
    ("cispo", {"dual_clip": 3.0}, "dual_clip=3.0"),
    ("grpo", {"dpo_beta": 0.1}, "dpo_beta=0.1"),
    ("sft", {"kl_beta": 0.1}, "kl_beta=0.1"),
    ("sft", {"correction": "tis"}, "correction=tis"),
    ("step_dpo", {"kl_estimator": "k1", "kl_beta": 0.1}, "kl_beta=0.1, kl_estimator=k1"),
    ("grpo", {"kl_estimator": "k1"}, "kl_estimator=k1"),
    ("grpo", {"correction_low": 0.5}, "correction_low=0.5"),
    ("grpo", {"correction_high": 2.0}, "correction_high=2.0"),
    ("grpo", {"correction": "tis", "correction_low": 0.5}, "correction_low=0.5"),
]


@pytest.mark.parametrize(("name", "given", "words"), IDLE)
def test_a_setting_without_effect_is_refused(name: str, given: dict, words: str) -> None:
    options = LossOptions.model_validate(given)
    message = rf"Loss '{name}' asked for with {re.escape(words)}, which has no effect there\."
    with pytest.raises(TreegrpoError, match=message):
        check_options(name, options)
    with pytest.raises(TreegrpoError, match=message):
        get_loss(name)(vector(0), Edges.supervised(vector(1)), options)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("sft", {}),
        ("step_dpo", {"dpo_beta": 0.3}),
        ("cispo", {"clip_low": 0.2, "clip_high": 0.3}),
        ("reinforce", {"kl_beta": 0.1, "kl_estimator": "k1"}),
        ("gspo", {"correction": "icepop", "correction_low": 0.1, "correction_high": 9.0}),
        ("grpo", {"correction": "tis", "correction_high": 9.0, "dual_clip": 3.0}),
        # A complete table, as a run records it: what is as by default counts as not given.
        ("sft", LossOptions().model_dump()),
    ],
)
def test_settings_with_effect_are_taken(name: str, given: dict) -> None:
    check_options(name, LossOptions.model_validate(given))


def test_settings_load_without_torch_and_the_table_is_whole_at_once() -> None:
    code = """
        import sys
        from treegrpo.losses import LossDefaults, LossOptions
        assert "torch" not in sys.modules
        from treegrpo.losses import loss, loss_names
        assert {"grpo", "gspo", "sft", "step_dpo"} < set(loss_names())
        import treegrpo.losses
        assert not [n for n in treegrpo.losses.__all__ if not hasattr(treegrpo.losses, n)]
        assert not hasattr(treegrpo.losses, "ppo")
        assert "get_loss" in dir(treegrpo.losses)
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_options_of_an_unknown_loss() -> None:
    with pytest.raises(UnknownOption, match=r"Unknown loss 'gspoo'. Did you mean 'gspo'\?"):
        check_options("gspoo", LossOptions())


def test_a_group_of_equal_rewards_trains_nothing() -> None:
    logp_E, edges, adv_E = batch()
    silent = Edges.flat(edges.old_logp_E, torch.zeros_like(adv_E), edges.weight_E)
    for name in OPTIONS.keys() - {"sft"}:
        result = get_loss(name)(logp_E, silent, LossOptions())
        assert torch.count_nonzero(gradient(result, logp_E)) == 0, name
        assert summarise([result.metrics])["clip_share"] == 0


def test_preferences_are_needed() -> None:
    logp_E, edges, _ = batch(4)
    with pytest.raises(TreegrpoError, match="Loss 'step_dpo' asked for, but the edges carry no"):
        get_loss("step_dpo")(logp_E, edges, LossOptions())


def test_step_dpo_reports_margin_and_accuracy() -> None:
    """Steps 0, 1 and 2 of one token move by +1, -2 and 0 nats; two of three pairs hold."""
    index = torch.arange(3)
    branches = Branches(index, index, vector(1, 1, 1), vector(0, 0, 0), 3, 3)
    pairs = Preferences(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 1]), vector(0.5, 0.25, 0.25))
    edges = Edges(vector(-3, -3, -3), index, branches, preferences=pairs)
    result = get_loss("step_dpo")(vector(-2, -5, -3), edges, LossOptions(dpo_beta=0.5))
    numbers = summarise([result.metrics])
    assert numbers["preference_accuracy"] == 0.75
    assert numbers["preference_margin"] == pytest.approx(0.5 * (0.5 * 3 - 0.25 * 2 + 0.25 * 2))
    assert numbers["max_abs_log_ratio"] == 2
    assert "clip_share" not in numbers
    none = torch.zeros(0, dtype=torch.long)
    empty = edges.replace(preferences=Preferences(none, none, vector()))
    assert float(get_loss("step_dpo")(vector(-2, -5, -3), empty, LossOptions()).loss) == 0
