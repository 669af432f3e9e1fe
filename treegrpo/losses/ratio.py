"""Probability ratios, and the clipped surrogate over whatever shares one ratio.

A unit is a token, a step or a leaf: all its tokens have one ratio. Branches share units, with
weights and advantages of their own. Their sums are enough, for each min below depends on the
sign of A alone: for a ratio r > 0,

    sum_b w_b min(r A_b, clip(r) A_b) = pos min(r, 1 + high) + neg max(r, 1 - low),
    pos = sum_b w_b max(A_b, 0),   neg = sum_b w_b min(A_b, 0).

A dual clip c > 1, which bounds each term with A_b < 0 by c A_b from below, turns the factor of
neg into min(max(r, 1 - low), c).

Shapes: U units; E edges, N steps, L leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.losses.options import LossOptions

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-this before exp, as in the released Tree-GRPO code."""


@dataclass(frozen=True)
class Units:
    """What shares one ratio, with the sums over all branches through it."""

    log_ratio_U: Tensor
    pos_U: Tensor
    """Sum of weight * max(advantage, 0) over the unit's tokens and branches."""
    neg_U: Tensor
    """Sum of weight * min(advantage, 0) likewise."""
    weight_U: Tensor

    @cached_property
    def ratio_U(self) -> Tensor:
        """Ratio of each unit; beyond the clamp its gradient is 0."""
        return bounded(self.log_ratio_U).exp()

    def clipped_gain(self, options: LossOptions) -> Tensor:
        """Return the clipped surrogate, a scalar to maximise."""
        good_U = self.pos_U * self.ratio_U.clamp(max=options.highest_ratio)
        bad_U = self.neg_U * self.ratio_U.clamp(options.lowest_ratio, options.dual_clip)
        return (good_U + bad_U).sum()

    def clipped_metrics(self, options: LossOptions) -> dict[str, Tensor]:
        """Return the metrics of `clipped_gain`."""
        ratio_U = self.ratio_U.detach()
        ceiling = math.inf if options.dual_clip is None else options.dual_clip
        is_too_good_U = ratio_U > options.highest_ratio
        is_too_bad_U = (ratio_U < options.lowest_ratio) | (ratio_U > ceiling)
        return self.metrics((self.pos_U * is_too_good_U - self.neg_U * is_too_bad_U).sum())

    def metrics(self, clipped_mass: Tensor) -> dict[str, Tensor]:
        """Return sums that add over micro-batches and do not depend on packing."""
        return {
            "adv_mass": (self.pos_U - self.neg_U).sum(),
            "clipped_mass": clipped_mass,
            "ratio_sum": (self.weight_U * self.ratio_U.detach()).sum(),
            "ratio_weight": self.weight_U.sum(),
        }


def token_units(logp_E: Tensor, edges: Edges) -> Units:
    """Return one unit per edge."""
    log_ratio_E = logp_E - edges.old_logp_E
    return Units(log_ratio_E, edges.adv_pos_E, edges.adv_neg_E, edges.weight_E)


def mean_by_step(value_E: Tensor, edges: Edges) -> Tensor:
    """Return the mean over each step's trained tokens, (N,); 0 for a step without any."""
    return edges.sum_by_step(value_E) / edges.tokens_N.clamp(min=1)


def mean_by_leaf(value_E: Tensor, edges: Edges) -> Tensor:
    """Return the mean over all trained tokens on each leaf's path, (L,); 0 without any."""
    b = edges.branches
    total_L = b.sum_by_leaf(edges.sum_by_step(value_E)[b.step_P])
    return total_L / b.sum_by_leaf(edges.tokens_N[b.step_P]).clamp(min=1)


def gap_metrics(logp_E: Tensor, edges: Edges) -> dict[str, Tensor]:
    """Return how far the trainer's log-probs are from those that were sampled with."""
    sampled_E = edges.old_logp_E if edges.sampler_logp_E is None else edges.sampler_logp_E
    gap_E = logp_E.detach() - sampled_E
    return {
        "weight": edges.weight_E.sum(),
        "kl_sampler": (edges.weight_E * k3(gap_E)).sum(),
        "max_abs_log_ratio": torch.cat([gap_E.abs(), gap_E.new_zeros(1)]).max(),
    }


def bounded(log_ratio: Tensor) -> Tensor:
    """Return log-ratios clamped to +-MAX_LOG_RATIO, so that exp stays finite."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def k3(log_ratio: Tensor) -> Tensor:
    """Return exp(d) - d - 1, bounded: an estimate of KL, never below 0."""
    clamped = bounded(log_ratio)
    return torch.expm1(clamped) - clamped
