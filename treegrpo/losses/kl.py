"""The KL of the policy to a reference, as a term of the loss.

The value and the gradient of an estimate are two things. Samples come from the policy, so the
gradient of E[k] has a part from the sampling that autograd does not see. For one token with
policy p, reference q and samples from p:

    estimate               value in expectation   gradient in expectation
    k1 = log p - log q     KL(p || q)             0: as a loss term it does nothing
    k3 = q/p - log q/p - 1 KL(p || q)             that of KL(q || p), the other direction
    r sg(k1), r = p/old    KL(p || q)             that of KL(p || q), also off-policy

So `k3` is the term that GRPO prints, and `k1` is the last line, what a k1 penalty in the reward
amounts to: the detached estimate is a coefficient of the ratio. `k3` is never negative and has
the lower variance; `k1` is the one whose gradient is that of the KL it reports.

Both are taken token by token: how a token moves the KL of later ones is left out.

Source: J. Schulman, "Approximating KL divergence" (2020); GRPO (arXiv 2402.03300) for k3 in
the loss; gradients after arXiv 2506.09477 and 2512.21852.
"""

from __future__ import annotations

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.envs.errors import TreegrpoError
from treegrpo.losses.options import LossOptions
from treegrpo.losses.ratio import bounded, k3


def reference_kl(logp_E: Tensor, edges: Edges, options: LossOptions) -> Tensor:
    """Return sum(weight kl) over edges, a scalar with gradient.

    Shapes: logp_E (E,) with gradient.

    Raises:
        TreegrpoError: the edges carry no reference log-probs.
    """
    if edges.ref_logp_E is None:
        raise TreegrpoError(
            "A KL to the reference asked for (kl_beta above 0), but the edges carry no "
            "reference log-probs. Give ref_logp_E, or set kl_beta to 0."
        )
    if options.kl_estimator == "k1":
        ratio_E = bounded(logp_E - edges.old_logp_E).exp()
        return (edges.weight_E * ratio_E * (logp_E.detach() - edges.ref_logp_E)).sum()
    return (edges.weight_E * k3(edges.ref_logp_E - logp_E)).sum()
