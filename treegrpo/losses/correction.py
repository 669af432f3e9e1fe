"""Corrections for a sampler whose log-probs differ from the trainer's.

An engine with other kernels, another precision or older weights samples from a policy that is
not quite the one the ratio is taken to. With rho = exp(old_logp - sampler_logp) of a token:

    tis            the token's loss times min(rho, high)
    icepop         times rho where low <= rho <= high, else times 0
    sequence_mask  a leaf whose geometric-mean rho leaves [low, high] is dropped

rho depends on the token alone, not on the branch, so one factor per edge is exact: it
multiplies the advantage mass of the token, and a sequence or step loss sums the corrected mass
of its tokens. The ratio of the loss itself is not changed, nor is the KL to the reference, a
regulariser and no expectation over samples. A dropped leaf loses its weight, in the KL too; a
step that it shares keeps the mass of the other leaves. Nothing is renormalised, so
micro-batches still add.

Source: TIS, F. Yao et al., "Your efficient RL framework secretly brings you off-policy RL
training" (2025); IcePop (arXiv 2510.18855); a mask of whole sequences as in arXiv 2512.02556,
which masks those with negative advantage alone. The band of sequence_mask is ours.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.losses.options import LossOptions
from treegrpo.losses.ratio import bounded, mean_by_leaf

_BANDS = {"tis": (0.0, 2.0), "icepop": (0.5, 5.0), "sequence_mask": (0.9, 1.1)}


def corrected(edges: Edges, options: LossOptions) -> Edges:
    """Return the edges with options.correction applied; detached, and before any loss.

    They are returned as they are where nothing is to correct: no correction chosen, or no
    sampler_logp_E, which means that old_logp_E is as sampled.
    """
    if options.correction == "none" or edges.sampler_logp_E is None:
        return edges
    low, high = _BANDS[options.correction]
    low = low if options.correction_low is None else options.correction_low
    high = high if options.correction_high is None else options.correction_high
    gap_E = (edges.old_logp_E - edges.sampler_logp_E).detach()
    if options.correction == "sequence_mask":
        return _without_leaves_outside(edges, gap_E, low, high)
    rho_E = bounded(gap_E).exp()
    if options.correction == "tis":
        rho_E = rho_E.clamp(max=high)
    else:
        rho_E = rho_E * ((rho_E >= low) & (rho_E <= high))
    return edges.replace(factor_E=rho_E if edges.factor_E is None else edges.factor_E * rho_E)


def _without_leaves_outside(edges: Edges, gap_E: Tensor, low: float, high: float) -> Edges:
    rho_L = bounded(mean_by_leaf(gap_E, edges)).exp()
    is_inside_L = (rho_L >= low) & (rho_L <= high)
    branches = edges.branches
    weight_P = branches.weight_P * is_inside_L[branches.leaf_P]
    return edges.replace(branches=dataclasses.replace(branches, weight_P=weight_P))
