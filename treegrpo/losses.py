"""Losses over an edge list: pure functions from log-probs to a scalar and its metrics.

An edge is one prediction that is trained: a context token and the target sampled after it. A
token shared by several branches b is one edge that carries their sums (w_b: the branch's
weight with every normaliser folded in, A_b: its advantage):

    weight = sum_b w_b      adv_pos = sum_b w_b max(A_b, 0)      adv_neg = sum_b w_b min(A_b, 0)

A clipped surrogate is exact with the last two: for r > 0
    sum_b w_b min(r A_b, clip(r) A_b) = adv_pos min(r, 1 + high) + adv_neg max(r, 1 - low).
Weights sum to 1 over the global batch, so losses and metrics of micro-batches add.

Shapes: E edges, all tensors of one dtype and device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-this before exp, as in the released Tree-GRPO code."""


class LossOptions(BaseModel):
    """Settings of the policy losses."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Ratios below 1 - clip_low stop pushing a bad token further down."""
    clip_high: float = Field(default=0.2, ge=0)
    """Ratios above 1 + clip_high stop pushing a good token further up."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Ratios above this stop counting against a bad token; None: no such bound."""
    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the k3 estimate of KL(policy || reference); needs reference log-probs."""


@dataclass(frozen=True)
class Edges:
    """What is known of each trained edge before the trainer's forward pass."""

    old_logp_E: Tensor
    """Log-prob of the target when it was sampled."""
    adv_pos_E: Tensor
    """Sum over branches of weight * max(advantage, 0)."""
    adv_neg_E: Tensor
    """Sum over branches of weight * min(advantage, 0)."""
    weight_E: Tensor
    """Sum over branches of weight; sums to 1 over the global batch."""
    ref_logp_E: Tensor | None = None
    """Log-prob of the target under the reference policy."""

    def __post_init__(self) -> None:
        """Refuse shapes that would broadcast into a wrong loss."""
        ref_E = self.weight_E if self.ref_logp_E is None else self.ref_logp_E
        fields = (self.old_logp_E, self.adv_pos_E, self.adv_neg_E, self.weight_E, ref_E)
        shapes = {tuple(tensor_E.shape) for tensor_E in fields}
        if len(shapes) != 1 or self.weight_E.dim() != 1:
            raise TreegrpoError(
                f"Edges need vectors of one length, found shapes {sorted(shapes)}. "
                "Give each field one number per trained edge."
            )

    @classmethod
    def flat(
        cls, old_logp_E: Tensor, adv_E: Tensor, weight_E: Tensor, ref_logp_E: Tensor | None = None
    ) -> Edges:
        """Return the edges of a flat batch, where each has one branch with one advantage."""
        pos_E, neg_E = weight_E * adv_E.clamp(min=0), weight_E * adv_E.clamp(max=0)
        return cls(old_logp_E, pos_E, neg_E, weight_E, ref_logp_E)

    @classmethod
    def supervised(cls, weight_E: Tensor) -> Edges:
        """Return edges with a weight alone, for `sft`."""
        zero_E = torch.zeros_like(weight_E)
        return cls(zero_E, zero_E, zero_E, weight_E)

    def reference(self) -> Tensor:
        """Return ref_logp_E; raises TreegrpoError where there is none."""
        if self.ref_logp_E is None:
            raise TreegrpoError(
                "A KL to the reference asked for (kl_beta above 0), but the edges carry no "
                "reference log-probs. Give ref_logp_E, or set kl_beta to 0."
            )
        return self.ref_logp_E


@dataclass(frozen=True)
class LossResult:
    """A loss to call backward on, and detached metrics for `summarise`."""

    loss: Tensor
    metrics: dict[str, Tensor]


Loss: TypeAlias = Callable[[Tensor, Edges, LossOptions], LossResult]
"""(logp_E with gradient, edges, options) -> result."""

_LOSSES: dict[str, Loss] = {}


def loss(name: str) -> Callable[[Loss], Loss]:
    """Return a decorator that registers a loss, the shape of its input checked.

    Raises:
        TreegrpoError: the name is taken.
    """

    def register(function: Loss) -> Loss:
        if name in _LOSSES:
            raise TreegrpoError(
                f"Loss '{name}' asked to be registered, but the name is taken. "
                "Choose another name, or drop_loss() it first."
            )

        @functools.wraps(function)
        def checked(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
            if logp_E.shape != edges.weight_E.shape:
                raise TreegrpoError(
                    f"Loss '{name}' needs one log-prob per edge, {len(edges.weight_E)}; found "
                    f"shape {tuple(logp_E.shape)}. Gather the targets' log-probs first."
                )
            return function(logp_E, edges, options)

        _LOSSES[name] = checked
        return checked

    return register


def get_loss(name: str) -> Loss:
    """Return the loss registered as `name`.

    Raises:
        UnknownOption: no such loss; suggests the closest name.
    """
    if name not in _LOSSES:
        raise UnknownOption(
            f"Unknown loss '{name}'.{suggest(name, _LOSSES)} Known: {', '.join(loss_names())}."
        )
    return _LOSSES[name]


def loss_names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_LOSSES)


def drop_loss(name: str) -> None:
    """Forget a registered loss, so that its name is free again."""
    get_loss(name)
    del _LOSSES[name]


@loss("grpo")
def grpo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the clipped surrogate, negated, plus an optional KL to the reference.

        r = exp(clamp(logp - old_logp, -20, 20))
        loss = -sum(adv_pos min(r, 1 + high) + adv_neg min(max(r, 1 - low), dual_clip))
               + kl_beta sum(weight k3),    k3 = exp(d) - d - 1,  d = clamp(ref_logp - logp)

    Source: PPO clip (arXiv 1707.06347), GRPO (2402.03300) with its k3 term, dual clip
    (1912.09729); Tree-GRPO (2509.21240) equation 8 with weights of `sequence_mean`.
    Differences: the normaliser is in the weights, not here; the two clip bounds are separate;
    dual clip and KL are off by default; no entropy bonus. Beyond the clamp the gradient is 0.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    ratio_E = _bounded(logp_E - edges.old_logp_E).exp()
    gain_E = edges.adv_pos_E * ratio_E.clamp(max=1 + options.clip_high)
    gain_E = gain_E + edges.adv_neg_E * ratio_E.clamp(1 - options.clip_low, options.dual_clip)
    total = -gain_E.sum()
    metrics = _ratio_metrics(logp_E.detach(), edges, options)
    if options.kl_beta:
        kl = (edges.weight_E * _k3(edges.reference() - logp_E)).sum()
        total, metrics["kl_reference"] = total + options.kl_beta * kl, kl.detach()
    return LossResult(total, metrics)


@loss("sft")
def sft(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the weighted negative log-likelihood, -sum(weight logp).

    Source: maximum likelihood; the warm start uses it. Advantages, old log-probs and options
    have no part in it.

    Shapes: logp_E (E,) with gradient; the loss is a scalar in nats, 0 without edges.
    """
    del options
    total = -(edges.weight_E * logp_E).sum()
    return LossResult(total, {"nll": total.detach()})


def merge(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metrics of all micro-batches together: `max_` by maximum, the rest by sum."""
    merged: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            if name not in merged:
                merged[name] = value
            elif name.startswith("max_"):
                merged[name] = torch.maximum(merged[name], value)
            else:
                merged[name] = merged[name] + value
    return merged


def summarise(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return readable metrics of a global batch from those of its micro-batches.

    `clip_share` is the share of advantage mass whose gradient the clip removed, `ratio_mean`
    and the KLs are weighted means over edges, `max_abs_log_ratio` the largest
    |trainer - sampler| log-prob gap, `nll` the mean negative log-likelihood in nats.
    """
    numbers = {name: float(value) for name, value in merge(parts).items()}
    if "adv_mass" in numbers:
        mass, clipped = numbers.pop("adv_mass"), numbers.pop("clipped_mass")
        numbers["clip_share"] = clipped / mass if mass else 0.0
        # Edges without advantage may have been left out: what is left is the whole then.
        weight = numbers.pop("weight")
        for name in ("ratio_mean", "kl_sampler"):
            numbers[name] = numbers[name] / weight if weight else 0.0
    return numbers


def _bounded(log_ratio_E: Tensor) -> Tensor:
    return log_ratio_E.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _k3(log_ratio_E: Tensor) -> Tensor:
    """Return exp(d) - d - 1: an estimate of KL, never below 0."""
    bounded_E = _bounded(log_ratio_E)
    return torch.expm1(bounded_E) - bounded_E


def _ratio_metrics(logp_E: Tensor, edges: Edges, options: LossOptions) -> dict[str, Tensor]:
    """Return sums and maxima that add over micro-batches and do not depend on packing."""
    log_ratio_E = logp_E - edges.old_logp_E
    ratio_E = _bounded(log_ratio_E).exp()
    too_good_E = ratio_E > 1 + options.clip_high
    too_bad_E = ratio_E < 1 - options.clip_low
    if options.dual_clip is not None:
        too_bad_E = too_bad_E | (ratio_E > options.dual_clip)
    clipped_E = edges.adv_pos_E * too_good_E - edges.adv_neg_E * too_bad_E
    gap_E = torch.cat([log_ratio_E.abs(), log_ratio_E.new_zeros(1)])
    return {
        "adv_mass": (edges.adv_pos_E - edges.adv_neg_E).sum(),
        "clipped_mass": clipped_E.sum(),
        "weight": edges.weight_E.sum(),
        "ratio_mean": (edges.weight_E * ratio_E).sum(),
        "kl_sampler": (edges.weight_E * _k3(log_ratio_E)).sum(),
        "max_abs_log_ratio": gap_E.max(),
    }
