"""treegrpo.gradients: what is accumulated batch by batch is the gradient of the whole update."""

import pytest
import torch

from tests.packed_flat import SETTINGS, Flat
from tests.packed_proof import expected, gap, trained
from tests.packed_trees import SHAPES, TEMPERATURE, Case, batches_of, case_of, model_of
from treegrpo.edges import Preferences, concatenate
from treegrpo.gradients import accumulate
from treegrpo.logprobs import FLAT, token_logps
from treegrpo.losses import get_loss, loss_names
from treegrpo.pack import PackedBatch, pack, split


def forest() -> Case:
    return case_of(SHAPES["several trees"], seed=6)


def cuts(case: Case) -> dict[str, list[PackedBatch]]:
    """The same update: in one batch, cut at every fork, as rows of several batches."""
    trees = case.weighted("path", "sequence_mean")
    return {
        "whole": batches_of(trees, "dense"),
        "cut": batches_of(trees, "dense", max_tokens=case.longest),
        "rows": batches_of(trees, "dense", max_tokens=3 * case.longest, row_tokens=case.longest),
        "flat": batches_of(trees, FLAT),
        "flat in batches": pack(
            split(trees, case.longest, share=False, need_all=True),
            max_tokens=2 * case.longest,
            row_tokens=1,
            dtype=torch.float64,
        ),
    }


@pytest.mark.parametrize("cut", ["whole", "cut", "rows", "flat", "flat in batches"])
def test_step_dpo_is_the_joint_loss_for_any_cut(cut: str) -> None:
    """Its pairs lie in different batches, and a cut repeats steps."""
    case = forest()
    batches = cuts(case)[cut]
    assert len(case.pairs) > 4
    if "cut" in cut or "batches" in cut:
        where = {step: index for index, one in enumerate(batches) for step in one.steps}
        assert any(where[better] != where[worse] for better, worse, _ in case.pairs)
        assert len(where) < sum(len(one.steps) for one in batches)
    flat = Flat(case, model_of())
    reference = expected(flat, "step_dpo", flat.weights("leaf", "token_mean"))
    found = trained(batches, "dense", "step_dpo", case.pairs)
    error = gap(model_of(), reference, found.loss, found.gradient_W)
    assert error.loss <= 1e-10 and error.gradient <= 1e-10 and len(found.metrics) == 1


def test_step_dpo_is_the_loss_over_all_edges_at_once() -> None:
    """Beside one backward pass through the log-probs of all batches."""
    case = forest()
    batches = cuts(case)["cut"]
    model = model_of()
    logps = [token_logps(model, batch, TEMPERATURE, "dense") for batch in batches]
    first: dict[tuple[int, int], int] = {}
    for index, step in enumerate(step for batch in batches for step in batch.steps):
        first.setdefault(step, index)
    preferences = Preferences(
        torch.tensor([first[better] for better, _, _ in case.pairs]),
        torch.tensor([first[worse] for _, worse, _ in case.pairs]),
        torch.tensor([pair[2] for pair in case.pairs], dtype=torch.float64),
    )
    edges = concatenate([batch.edges for batch in batches]).replace(preferences=preferences)
    joint = get_loss("step_dpo")(torch.cat(logps), edges, SETTINGS["step_dpo"])
    grads = torch.autograd.grad(joint.loss, list(model.parameters()))
    found = trained(batches, "dense", "step_dpo", case.pairs)
    gradient_W = torch.cat([grad.flatten() for grad in grads])
    assert found.loss == pytest.approx(float(joint.loss.detach()), abs=1e-12)
    assert float((found.gradient_W - gradient_W).norm()) <= 1e-12 * float(gradient_W.norm())


@pytest.mark.parametrize("name", loss_names())
def test_gradients_are_added_to_those_that_are_there(name: str) -> None:
    """Two calls give twice the gradient; nothing is zeroed on the way."""
    case, model = forest(), model_of()
    batches, loss = cuts(case)["cut"], get_loss(name)
    once = trained(batches, "dense", name, case.pairs)
    for _ in range(2):
        found = accumulate(
            batches,
            lambda batch: token_logps(model, batch, TEMPERATURE, "dense"),
            loss,
            SETTINGS[name],
            case.pairs,
        )
        assert found.loss == once.loss
    grads = [weight.grad for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = None
    twice_W = torch.cat([grad.flatten() for grad in grads if grad is not None])
    assert float((twice_W - 2 * once.gradient_W).norm()) <= 1e-12 * float(twice_W.norm())


@pytest.mark.parametrize("name", loss_names())
def test_no_batches_no_gradient(name: str) -> None:
    def never(batch: PackedBatch) -> torch.Tensor:
        raise AssertionError("there is nothing to compute")

    found = accumulate([], never, get_loss(name), SETTINGS[name])
    assert (found.loss, found.metrics) == (0.0, [])


def test_metrics_come_batch_by_batch() -> None:
    batches = cuts(forest())["cut"]
    found = trained(batches, "dense", "grpo")
    assert len(found.metrics) == len(batches) > 2
    weights = [float(batch.edges.weight_E.sum()) for batch in batches]
    assert [float(one["weight"]) for one in found.metrics] == pytest.approx(weights, abs=1e-15)
