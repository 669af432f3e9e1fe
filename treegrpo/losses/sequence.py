"""Losses with one probability ratio per leaf or per step: a geometric mean over its tokens.

The sums of log-ratios are taken once per step and gathered by the leaves that share it; the
gradient flows back the same way. That is exact, whatever is shared.

Shapes: E edges, N steps, P (leaf, step) pairs, L leaves.
"""

from __future__ import annotations

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.losses.base import LossResult, loss
from treegrpo.losses.options import LossOptions
from treegrpo.losses.ratio import Units, mean_by_leaf, mean_by_step


@loss("gspo", normaliser="sequence_mean", clip_low=3e-4, clip_high=4e-4, dual_clip=None)
def gspo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the clipped surrogate with one ratio per leaf, negated.

        s = exp(mean over the tokens on the leaf's path of (logp - old_logp))
        loss = -sum_L(pos min(s, 1 + high) + neg min(max(s, 1 - low), dual_clip))

    with pos = sum over the path's tokens of weight max(A, 0), neg likewise.
    Source: GSPO (arXiv 2507.18071) equations 5 to 7; clip bounds of its section 5.1.
    Differences: advantages may differ along a leaf, but act on all its tokens through s; see
    `step_ratio` for what keeps them apart. A leaf must come with its whole path: the batch may
    be cut between leaves only.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = leaf_units(logp_E, edges)
    return LossResult(-units.clipped_gain(options), units.clipped_metrics(options))


@loss("step_ratio", normaliser="sequence_mean", clip_low=3e-3, clip_high=4e-3, dual_clip=None)
def step_ratio(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the clipped surrogate with one ratio per step of the agent, negated.

        s = exp(mean over the step's tokens of (logp - old_logp))
        loss = -sum_N(pos min(s, 1 + high) + neg min(max(s, 1 - low), dual_clip))

    with pos = sum over the step's tokens of adv_pos, neg likewise. A step is where an agent
    decides and where credit is given, so neither a single odd token nor another step clips it.
    Source: AT2PO (arXiv 2601.04767), its turn-level ratio and clip bounds. Differences: any
    credit and weighting; the default normaliser is GSPO's, so that a leaf of one step is
    trained as `gspo` does it.

    Shapes: logp_E (E,) with gradient; the loss is a scalar, 0 without edges.
    """
    units = step_units(logp_E, edges)
    return LossResult(-units.clipped_gain(options), units.clipped_metrics(options))


def step_units(logp_E: Tensor, edges: Edges) -> Units:
    """Return one unit per step."""
    return Units(
        mean_by_step(logp_E - edges.old_logp_E, edges),
        edges.sum_by_step(edges.adv_pos_E),
        edges.sum_by_step(edges.adv_neg_E),
        edges.sum_by_step(edges.weight_E),
    )


def leaf_units(logp_E: Tensor, edges: Edges) -> Units:
    """Return one unit per leaf; a token's factor goes into the mass of every leaf below."""
    b = edges.branches
    mass_P = b.weight_P * edges.mass_N[b.step_P]
    return Units(
        mean_by_leaf(logp_E - edges.old_logp_E, edges),
        b.sum_by_leaf(mass_P * b.adv_P.clamp(min=0)),
        b.sum_by_leaf(mass_P * b.adv_P.clamp(max=0)),
        b.sum_by_leaf(b.weight_P * edges.tokens_N[b.step_P]),
    )
