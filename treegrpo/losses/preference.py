"""Losses over pairs of sibling steps, one of which led to more reward.

Shapes: E edges, N steps, Q preferences.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from treegrpo.edges import Edges, Preferences
from treegrpo.envs.errors import TreegrpoError
from treegrpo.losses.base import LossResult, loss
from treegrpo.losses.options import LossOptions
from treegrpo.losses.ratio import gap_metrics


@loss("step_dpo", is_policy=False, over_pairs=True, dpo_beta=0.1)
def step_dpo(logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
    """Return the negative log-likelihood of the preferences between sibling steps.

        D = sum over a step's tokens of (logp - ref_logp)
        loss = -sum_Q(weight log sigmoid(beta (D_better - D_worse)))

    Source: DPO (arXiv 2305.18290) equation 7; pairs of steps after a common prefix as in
    Step-DPO (2406.18629); kin to Tree-GRPO's gradient by proposition 3.1 of 2509.21240.
    Differences: pairs come from the forks of the tree; without ref_logp_E the reference is the
    policy that old_logp_E is of. Branch weights and advantages have no part in it.
    Both steps of a pair must be in the batch: batches cut between pairs add up, batches cut
    between leaves do not.

    Shapes: logp_E (E,) with gradient; the loss is a scalar in nats, 0 without pairs.
    """
    pairs = _preferences(edges)
    ref_E = edges.old_logp_E if edges.ref_logp_E is None else edges.ref_logp_E
    gap_N = edges.sum_by_step(logp_E - ref_E)
    assert options.dpo_beta is not None, "the decorator gives it a default"
    margin_Q = options.dpo_beta * (gap_N[pairs.better_Q] - gap_N[pairs.worse_Q])
    metrics = {
        **gap_metrics(logp_E, edges),
        "preference_margin": (pairs.weight_Q * margin_Q.detach()).sum(),
        "preference_accuracy": (pairs.weight_Q * (margin_Q.detach() > 0)).sum(),
    }
    return LossResult(-(pairs.weight_Q * logsigmoid(margin_Q)).sum(), metrics)


def _preferences(edges: Edges) -> Preferences:
    if edges.preferences is None:
        raise TreegrpoError(
            "Loss 'step_dpo' asked for, but the edges carry no preferences between steps. Give "
            "Edges.preferences, pairs of siblings with different values, or choose another loss."
        )
    return edges.preferences
