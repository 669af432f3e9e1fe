"""Packed training equals the flat batch: loss and the gradient of every parameter.

Errors are relative: a loss to the sum of its terms' sizes, a gradient parameter by parameter,
norm to norm (see `packed_proof.FLOORS` for gradients that vanish).
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packed_flat import SETTINGS, Extra, Flat
from tests.packed_proof import LIMITS, Found, expected, gap, proof, trained
from tests.packed_trees import (
    SHAPES,
    TEMPERATURE,
    WAYS,
    Case,
    Forest,
    Grown,
    batches_of,
    case_of,
    forests,
    model_of,
    parameters,
    path_logps,
)
from treegrpo.logprobs import FLAT, token_logps
from treegrpo.losses import LossOptions, loss_names
from treegrpo.weighting import NORMALISERS, weighting_names

RATIO_LOSSES = ("grpo", "dapo", "gspo", "step_ratio")
UNCLIPPED = ("cispo", "reinforce", "sft")
CELLS = list(itertools.product(loss_names(), weighting_names(), NORMALISERS, WAYS))
SHORT_SHAPES = ("single node", "five levels", "identical siblings", "observations only")
CORRECTED: dict[str, LossOptions] = {
    "none": LossOptions(kl_beta=0.3, kl_estimator="k3"),
    "tis": LossOptions(correction="tis", correction_high=1.1, kl_beta=0.3, kl_estimator="k1"),
    "icepop": LossOptions(correction="icepop", correction_low=0.8, correction_high=1.2),
    "sequence_mask": LossOptions(
        correction="sequence_mask", correction_low=0.9, correction_high=1.05, kl_beta=0.2
    ),
}


def case_named(shape: str) -> Case:
    return case_of(SHAPES[shape], seed=list(SHAPES).index(shape))


def assert_exact(cells: Sequence[Found], limit: float, trains: Sequence[str] = UNCLIPPED) -> None:
    """`trains`: losses whose gradient cannot vanish on these trees."""
    assert {cell[:4] for cell in cells} == set(CELLS)
    for cell in cells:
        assert cell.gap.loss <= limit and cell.gap.gradient <= limit, cell
        assert cell.size > 1e-3 or cell.loss not in trains, "nothing was trained"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_loss_weighting_and_normaliser_in_float64(shape: str) -> None:
    assert_exact(list(proof(case_named(shape), torch.float64)), LIMITS[torch.float64])


@pytest.mark.parametrize("shape", SHORT_SHAPES)
def test_every_loss_weighting_and_normaliser_in_float32(shape: str) -> None:
    assert_exact(list(proof(case_named(shape), torch.float32)), LIMITS[torch.float32])


@given(forest=forests(), seed=st.integers(0, 2**20))
@settings(max_examples=15)
def test_every_loss_weighting_and_normaliser_on_drawn_trees(forest: Forest, seed: int) -> None:
    """Their credit may add up to next to nothing; likelihood does not."""
    cells = list(proof(case_of(forest, seed), torch.float64))
    assert_exact(cells, LIMITS[torch.float64], trains=["sft"])


@given(
    forest=forests(),
    seed=st.integers(0, 2**20),
    cell=st.sampled_from(CELLS),
    slack=st.integers(0, 12),
    row_tokens=st.sampled_from([None, 1, 12]),
)
@settings(max_examples=80)
def test_any_tree_any_loss_any_cut(
    forest: Forest,
    seed: int,
    cell: tuple[str, str, str, str],
    slack: int,
    row_tokens: int | None,
) -> None:
    """By the backward passes of the trainer itself."""
    name, weighting, normaliser, way = cell
    case = case_of(forest, seed)
    flat = Flat(case, model_of())
    reference = expected(flat, name, flat.weights(weighting, normaliser))
    trees = case.weighted(weighting, normaliser)
    batches = batches_of(trees, way, max_tokens=case.longest + slack, row_tokens=row_tokens)
    loss, gradient_W, _ = trained(batches, way, name, case.pairs)
    found = gap(model_of(), reference, loss, gradient_W)
    limit = LIMITS[torch.float64]
    assert found.loss <= limit and found.gradient <= limit


@pytest.mark.parametrize("name", RATIO_LOSSES)
def test_clips_act_on_both_sides_of_these_trees(name: str) -> None:
    """Or the proof would not see them: terms of every kind, with a clip and without."""
    options, kinds = SETTINGS[name], set[str]()
    for shape in SHAPES:
        case = case_named(shape)
        flat = Flat(case, model_of())
        for row in flat.rows:
            gap_T = (row.of(flat.logp_R) - row.old_T).detach()
            by_step = {
                step: gap_T[[own == step for own in row.step_T]].mean() for step in row.step_T
            }
            if name == "gspo":
                gap_T = gap_T.mean().expand(len(gap_T))
            if name == "step_ratio":
                gap_T = torch.stack([by_step[step] for step in row.step_T])
            for ratio, adv in zip(gap_T.exp().tolist(), row.adv_T.tolist(), strict=True):
                kinds.add(_kind(ratio, adv, options))
    signs = {"good": ("low", "inside", "high"), "bad": ("low", "inside", "high")}
    wanted = {f"{sign} {side}" for sign, sides in signs.items() for side in sides}
    if options.dual_clip is not None and name == "dapo":
        wanted.add("bad dual")
    assert kinds >= wanted


def _kind(ratio: float, adv: float, options: LossOptions) -> str:
    assert options.clip_low is not None and options.clip_high is not None
    if adv == 0:
        return "none"
    if adv < 0 and options.dual_clip is not None and ratio > options.dual_clip:
        return "bad dual"
    sides = [ratio < 1 - options.clip_low, ratio > 1 + options.clip_high, True]
    return f"{'good' if adv > 0 else 'bad'} {('low', 'high', 'inside')[sides.index(True)]}"


@pytest.mark.parametrize("correction", CORRECTED)
@pytest.mark.parametrize("name", [*RATIO_LOSSES, "cispo", "reinforce"])
def test_corrections_and_the_kl_equal_the_flat_batch(name: str, correction: str) -> None:
    """The ratio is to one policy, the KL to another, and a third one sampled."""
    own, more = SETTINGS[name].given(), CORRECTED[correction].given()
    options = LossOptions.model_validate({**own, **more})
    others = [model_of(seed=0), model_of(seed=3)]
    kept = dropped = 0
    for shape in ("five levels", "failed leaves"):
        case = case_named(shape)
        flat = Flat(case, model_of())
        with torch.no_grad():
            old, reference = (
                {
                    (row.tree, row.leaf): path_logps(other, case.trees[row.tree], row.leaf)
                    for row in flat.rows
                }
                for other in others
            )
        for row in flat.rows:
            rho = float(torch.exp((old[row.tree, row.leaf] - row.old_T).mean()))
            kept, dropped = kept + (0.9 <= rho <= 1.05), dropped + (not 0.9 <= rho <= 1.05)
        weights = flat.weights("path", "token_mean")
        by_hand = expected(flat, name, weights, options, Extra(old, reference))
        batches = []
        for batch in batches_of(case.weighted("path", "token_mean"), "segments"):
            with torch.no_grad():
                old_E, ref_E = (token_logps(m, batch, TEMPERATURE, "segments") for m in others)
            sampler_E = batch.edges.old_logp_E
            edges = batch.edges.replace(
                old_logp_E=old_E, ref_logp_E=ref_E, sampler_logp_E=sampler_E
            )
            batches.append(replace(batch, edges=edges))
        loss, gradient_W, _ = trained(batches, "segments", name, options=options)
        found = gap(model_of(), by_hand, loss, gradient_W)
        assert found.loss <= 1e-10 and found.gradient <= 1e-10
    assert kept and dropped


def test_a_shared_token_is_clipped_for_each_branch_by_itself() -> None:
    """Ratio 1.5, advantages +1 and -2, weights 1/2: min(1.5, 1.2) / 2 - 2 max(1.5, 0.8) / 2."""
    case = case_of([[Grown(0, 1), Grown(1, 0, 1), Grown(1, 0, 2)]])
    [tree] = case.trees
    step = tree.nodes[1]
    own = float(path_logps(model_of(), tree, 2)[0].detach())
    step.action_logps = [own - float(torch.log(torch.tensor(1.5, dtype=torch.float64)))]
    case.credits[0].update({2: [1.0, 0.0], 3: [-2.0, 0.0]})
    [batch] = batches_of(case.weighted("leaf", "token_mean"), "dense")
    assert batch.edges.adv_pos_E.tolist() == [0.5] and batch.edges.adv_neg_E.tolist() == [-1.0]
    options = LossOptions(clip_low=0.2, clip_high=0.2)
    loss, _, _ = trained([batch], "dense", "grpo", options=options)
    assert loss == pytest.approx(-(1.2 / 2 - 2 * 1.5 / 2), abs=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["grpo", "gspo", "step_dpo"])
def test_k_children_are_k_targets_of_one_predictor(name: str, way: str) -> None:
    """And none is lost: the gradient along random directions is the numeric one."""
    case = case_of([[Grown(0, 1), Grown(0, 2), Grown(0, 2, twin=True), Grown(0, 1)]], seed=7)
    assert len({node.action_ids[0] for node in case.trees[0].nodes[1:]}) == 3
    batches = batches_of(case.weighted("path", "sequence_mean"), way)
    if way != FLAT:
        [batch] = batches
        root = case.trees[0].nodes[0].num_tokens - 1
        assert (batch.predictor_E == root).sum() == 4 and batch.num_tokens == root + 1 + 6
    _, gradient_W, _ = trained(batches, way, name, case.pairs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        shift_W = 1e-6 * torch.randn(gradient_W.shape, generator=generator, dtype=torch.float64)
        up, down = (
            trained(batches, way, name, case.pairs, model=shifted(sign * shift_W))[0]
            for sign in (1, -1)
        )
        slope = float(torch.dot(gradient_W, shift_W))
        assert slope == pytest.approx((up - down) / 2, rel=1e-4)


def shifted(shift_W: torch.Tensor) -> Any:
    """Return a copy of the model whose parameters are moved."""
    model = copy.deepcopy(model_of())
    sizes = [weight.numel() for weight in parameters(model)]
    with torch.no_grad():
        for weight, shift in zip(parameters(model), shift_W.split(sizes), strict=True):
            weight.add_(shift.view_as(weight))
    return model


@pytest.mark.parametrize("way", WAYS)
def test_trees_without_an_outcome_train_nothing(way: str) -> None:
    root = case_of([[]])
    failed = case_of([[Grown(0, 2, failure="tool"), Grown(0, 1, failure="grader")]])
    silent = case_of([[Grown(0, 0, 2), Grown(1, 0, 1)]])
    for case in (root, failed, silent):
        batches = batches_of(case.weighted("leaf", "token_mean"), way)
        loss, gradient_W, metrics = trained(batches, way, "grpo")
        assert (batches, loss, metrics) == ([], 0.0, []) and not gradient_W.any()
