"""Packed training beside the flat batch: loss and the gradient of every parameter.

    python -m tests.packed_proof        prints the worst errors, by loss and way

Shapes: R log-probs, W numbers of all parameters together.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.packed_flat import SETTINGS, Extra, Flat
from tests.packed_trees import (
    SHAPES,
    TEMPERATURE,
    WAYS,
    Case,
    batches_of,
    case_of,
    model_of,
    parameters,
)
from treegrpo.gradients import StepPair, accumulate
from treegrpo.logprobs import FLAT, token_logps
from treegrpo.losses import LossOptions, get_loss, loss_names
from treegrpo.pack import PackedBatch, Weighted
from treegrpo.weighting import NORMALISERS, weighting_names

LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest relative error, see `Gap`."""

FLOORS = {torch.float64: 1e-3, torch.float32: 1e-1}
"""A parameter's gradient whose norm is below this share of the loss's slope (the sum of
|d loss / d log-prob| over the flat batch) is 0, or what terms left that cancel: its error is
compared with that share. Norms of whole gradients are 4 to 60 times the slope."""


def jacobian(logp_R: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return how each log-prob moves with each parameter, (R, W)."""
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(logp, weights, retain_graph=True)])
        for logp in logp_R
    ]
    return torch.stack(rows)


@dataclass(frozen=True)
class Expected:
    """What the flat batch says about one loss."""

    loss: float
    gradient_W: Tensor
    scale: float
    """Sum of the sizes of the loss's terms, which cancellation cannot shrink."""
    slope: float
    """Sum of |d loss / d log-prob|."""
    sizes_P: list[float]
    """Norm of each parameter's gradient."""


def expected(
    flat: Flat,
    name: str,
    weights: Sequence[Tensor],
    options: LossOptions | None = None,
    extra: Extra | None = None,
    jacobian_RW: Tensor | None = None,
) -> Expected:
    """Return loss and gradient of the flat batch, through its rows or their Jacobian."""
    logp_R = flat.logp_R.detach().requires_grad_()
    loss, scale = flat.loss(name, options or SETTINGS[name], weights, logp_R, extra)
    (slope_R,) = torch.autograd.grad(loss, logp_R)
    if jacobian_RW is None:
        grads = torch.autograd.grad(flat.logp_R, parameters(flat.model), slope_R, retain_graph=True)
        gradient_W = torch.cat([grad.flatten() for grad in grads])
    else:
        gradient_W = jacobian_RW.T @ slope_R
    slope, sizes_P = float(slope_R.abs().sum()), norms(flat.model, gradient_W)
    return Expected(float(loss.detach()), gradient_W, scale, slope, sizes_P)


class Trained(NamedTuple):
    """An update that is not made."""

    loss: float
    gradient_W: Tensor
    metrics: list[dict[str, Tensor]]


def trained(
    batches: Sequence[PackedBatch],
    way: str,
    name: str,
    pairs: Sequence[StepPair] = (),
    options: LossOptions | None = None,
    model: Any = None,
) -> Trained:
    """Return what the code under test makes of batches, by its own backward passes."""
    model = model_of() if model is None else model
    weights = parameters(model)
    for weight in weights:
        weight.grad = None

    def log_probs(batch: PackedBatch) -> Tensor:
        return token_logps(model, batch, TEMPERATURE, way)

    found = accumulate(batches, log_probs, get_loss(name), options or SETTINGS[name], pairs)
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    for weight in weights:
        weight.grad = None
    return Trained(found.loss, torch.cat([grad.flatten() for grad in grads]), found.metrics)


@dataclass(frozen=True)
class Gap:
    """How far packed training is from the reference."""

    loss: float = 0.0
    """|difference| / sum of the sizes of the loss's terms."""
    gradient: float = 0.0
    """The worst parameter's |difference| / |gradient|, Euclidean norms."""


def gap(model: Any, flat: Expected, loss: float, gradient_W: Tensor) -> Gap:
    """Compare a loss and the gradient of every parameter with those of the flat batch."""
    floor = FLOORS[model.dtype] * flat.slope
    differences_P = norms(model, flat.gradient_W - gradient_W)
    errors = [
        _relative(difference, max(size, floor))
        for difference, size in zip(differences_P, flat.sizes_P, strict=True)
    ]
    return Gap(_relative(abs(flat.loss - loss), flat.scale), max(errors))


def norms(model: Any, value_W: Tensor) -> list[float]:
    """Return the Euclidean norm of each parameter's part."""
    counts_P = torch.tensor([weight.numel() for weight in parameters(model)])
    owner_W = torch.repeat_interleave(torch.arange(len(counts_P)), counts_P)
    squares_P = value_W.new_zeros(len(counts_P)).index_add(0, owner_W, value_W.square())
    return squares_P.sqrt().tolist()


def _relative(difference: float, size: float) -> float:
    """Return difference / size; 0 if both are, infinity for what is not a number."""
    if difference == 0:
        return 0.0
    return difference / size if size and math.isfinite(difference) else math.inf


class Packed:
    """What a way of training makes of a case: its log-probs, and how they move, once for all."""

    def __init__(self, case: Case, model: Any, way: str, max_tokens: int) -> None:
        self.case, self.model, self.way, self.max_tokens = case, model, way, max_tokens
        batches = self.batches(case.weighted("leaf", "token_mean"))
        logps = [token_logps(model, batch, TEMPERATURE, way) for batch in batches]
        self._logps = [logp_E.detach() for logp_E in logps]
        self._jacobians = [jacobian(logp_E, parameters(model)) for logp_E in logps]

    def batches(self, trees: Sequence[Weighted]) -> list[PackedBatch]:
        """Return the batches of the same trees with other weights."""
        dtype = self.model.dtype
        return batches_of(trees, self.way, max_tokens=self.max_tokens, dtype=dtype)

    def trained(self, batches: Sequence[PackedBatch], name: str) -> Trained:
        """Return an update by the chain rule through the log-probs."""
        leaf = {
            id(batch): logp_E.clone().requires_grad_()
            for batch, logp_E in zip(batches, self._logps, strict=True)
        }
        loss, options = get_loss(name), SETTINGS[name]
        found = accumulate(batches, lambda one: leaf[id(one)], loss, options, self.case.pairs)
        slopes = [leaf[id(batch)].grad for batch in batches]
        parts = [
            jacobian_EW.T @ slope_E
            for jacobian_EW, slope_E in zip(self._jacobians, slopes, strict=True)
            if slope_E is not None
        ]
        return Trained(found.loss, torch.stack(parts).sum(0), found.metrics)


class Found(NamedTuple):
    """One cell of the proof."""

    loss: str
    weighting: str
    normaliser: str
    way: str
    gap: Gap
    size: float
    """Norm of the whole gradient."""


def proof(case: Case, dtype: torch.dtype) -> Iterator[Found]:
    """Yield the gap of every loss x weighting x normaliser x way on one case.

    `dense` holds whole trees in one row; `segments` cuts them wherever they can be cut.
    """
    model = model_of(dtype)
    flat = Flat(case, model)
    jacobian_RW = jacobian(flat.logp_R, parameters(model))
    budgets = {"dense": 10**6, "segments": case.longest, FLAT: 10**6}
    ways = [Packed(case, model, way, budgets[way]) for way in WAYS]
    for weighting, normaliser in itertools.product(weighting_names(), NORMALISERS):
        trees = case.weighted(weighting, normaliser)
        weights = flat.weights(weighting, normaliser)
        batches = [way.batches(trees) for way in ways]
        for name in loss_names():
            one = expected(flat, name, weights, jacobian_RW=jacobian_RW)
            for way, its_own in zip(ways, batches, strict=True):
                loss, gradient_W, _ = way.trained(its_own, name)
                found = gap(model, one, loss, gradient_W)
                size = float(one.gradient_W.norm())
                yield Found(name, weighting, normaliser, way.way, found, size)


def worst(cells: Iterable[Found]) -> dict[tuple[str, str], Gap]:
    """Return the worst gap by loss and way."""
    found: dict[tuple[str, str], Gap] = {}
    for cell in cells:
        key = (cell.loss, cell.way)
        before = found.get(key, Gap())
        found[key] = Gap(max(before.loss, cell.gap.loss), max(before.gradient, cell.gap.gradient))
    return found


def main() -> None:
    """Print the worst errors over all shapes, weightings and normalisers."""
    cases = [case_of(forest, seed) for seed, forest in enumerate(SHAPES.values())]
    for dtype in (torch.float64, torch.float32):
        cells = worst(cell for case in cases for cell in proof(case, dtype))
        sys.stdout.write(f"{dtype}: worst relative error of loss / of a parameter's gradient\n")
        for name in loss_names():
            gaps = [cells[name, way] for way in WAYS]
            text = "   ".join(
                f"{way} {one.loss:.1e} / {one.gradient:.1e}"
                for way, one in zip(WAYS, gaps, strict=True)
            )
            sys.stdout.write(f"  {name:12}{text}\n")


if __name__ == "__main__":
    main()
