"""Losses with one probability ratio per token.

Shapes: E edges, one per trained token of the tree however many leaves share it.
"""

from __future__ import annotations

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.losses.base import LossResult, loss
from treegrpo.losses.options import LossOptions
from treegrpo.losses.ratio import token_units


@loss("reinforce")
def reinforce(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the policy gradient's surrogate, negated: no ratio and no clip.

        loss = -sum((adv_pos + adv_neg) logp)

    Source: REINFORCE (Williams 1992), for language models arXiv 2402.14740 (RLOO: with
    credit of the leave-one-out kind). Difference: none; the baseline belongs to the credit.
    It is the policy gradient only while old_logp is the policy itself: take one update per
    batch of samples. The ratio is reported, not used.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    del options
    units = token_units(logp_E, edges)
    total = -((units.pos_U + units.neg_U) * logp_E).sum()
    return LossResult(total, units.metrics(clipped_mass=total.new_zeros(())))


@loss("grpo", clip_low=0.2, clip_high=0.2, dual_clip=None)
def grpo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the clipped surrogate, negated.

        r = exp(clamp(logp - old_logp, -20, 20))
        loss = -sum(adv_pos min(r, 1 + high) + adv_neg min(max(r, 1 - low), dual_clip))

    Source: PPO clip (arXiv 1707.06347), GRPO (2402.03300), dual clip (1912.09729);
    Tree-GRPO (2509.21240) equation 8 with weights of `sequence_mean`.
    Differences: the normaliser is in the weights, `token_mean` unless chosen; the two clip
    bounds are separate; dual clip and KL are off by default; no entropy bonus. Beyond the
    clamp the gradient is 0.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = token_units(logp_E, edges)
    return LossResult(-units.clipped_gain(options), units.clipped_metrics(options))


@loss("dr_grpo", normaliser="constant", clip_low=0.2, clip_high=0.2, dual_clip=None)
def dr_grpo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the loss of `grpo`, meant for weights that do not depend on any length.

        loss = -sum(adv_pos min(r, 1 + high) + adv_neg min(max(r, 1 - low), dual_clip))

    Source: Dr. GRPO (arXiv 2503.20783). It removes two biases of GRPO, neither of which is in
    this sum: the division by a response's length (its normaliser is `constant`), and that by
    the standard deviation of rewards, so choose a credit without one, such as leave-one-out.
    Difference: the constant is a setting of the normaliser.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = token_units(logp_E, edges)
    return LossResult(-units.clipped_gain(options), units.clipped_metrics(options))


@loss("dapo", normaliser="token_mean", clip_low=0.2, clip_high=0.28, dual_clip=None)
def dapo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the loss of `grpo` with DAPO's defaults: clip-higher and a mean over tokens.

        loss = -sum(adv_pos min(r, 1 + high) + adv_neg min(max(r, 1 - low), dual_clip))

    Source: DAPO (arXiv 2503.14476) equation 8. Groups whose rewards are all equal have no
    advantage and drop out by themselves. Differences: DAPO samples until the batch is full of
    other groups, and shapes the reward of overlong answers; both belong to the rollout.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = token_units(logp_E, edges)
    return LossResult(-units.clipped_gain(options), units.clipped_metrics(options))


@loss("cispo", normaliser="token_mean", clip_low=None, clip_high=4.0)
def cispo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the policy gradient's surrogate under a clipped importance weight, negated.

        loss = -sum(sg(clip(r, 1 - low, 1 + high)) (adv_pos + adv_neg) logp)

    where sg stops the gradient: a clipped token still trains, with a bounded weight.
    Source: CISPO (arXiv 2506.13585) equations 4 and 5; the default bound, a ratio of 5, is
    among those of arXiv 2510.13786. No lower bound unless chosen, as there. A dual clip would
    be a second upper bound, so there is none. Difference: none.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = token_units(logp_E, edges)
    ratio_E = units.ratio_U.detach()
    used_E = ratio_E.clamp(options.lowest_ratio, options.highest_ratio)
    total = -(used_E * (units.pos_U + units.neg_U) * logp_E).sum()
    clipped_mass = ((units.pos_U - units.neg_U) * (used_E != ratio_E)).sum()
    return LossResult(total, units.metrics(clipped_mass))
