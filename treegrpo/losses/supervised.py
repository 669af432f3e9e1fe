"""Losses that imitate: no advantage, no ratio.

Shapes: E edges.
"""

from __future__ import annotations

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.losses.base import LossResult, loss
from treegrpo.losses.options import LossOptions


@loss("sft", is_policy=False)
def sft(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the weighted negative log-likelihood, -sum(weight logp).

    Source: maximum likelihood; the warm start uses it. Advantages and old log-probs have no
    part in it, and it takes no settings.

    Shapes: logp_E (E,) with gradient; the loss is a scalar in nats, 0 without edges.
    """
    del options
    total = -(edges.weight_E * logp_E).sum()
    return LossResult(total, {"nll": total.detach()})
