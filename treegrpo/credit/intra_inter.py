"""Tree-GRPO: each leaf against the leaves of its own tree, plus against its whole question.

    A_i = (R_i - mean_T) / (std_T + 1e-6)  +  (R_i - mean_Q) / (std_Q + 1e-6)

T: scored leaves of the leaf's own tree; Q: of all trees of the question. Both terms count
equally, the standard deviations are unbiased (n - 1).

Source: Tree-GRPO (arXiv 2509.21240), section 3, equations of A_intra, A_inter and A_tree.
Differences from the released code: as in treegrpo.credit.group. In particular a tree with one
scored leaf (a chain) has an intra term of 0, not its raw reward: chains alone give `group`.
With one tree both sets are the same and the result is exactly twice `group`.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.credit.base import Credit, along_paths, credit, outcomes, standardise
from treegrpo.credit.group import group_scores
from treegrpo.tree import Tree


@credit("intra_inter")
def intra_inter(question: Sequence[Tree]) -> list[Credit]:
    """Return the sum of each leaf's scores within its tree and question, on all its steps."""
    credits: list[Credit] = []
    for tree, inter in zip(question, group_scores(question), strict=True):
        intra = standardise(outcomes(tree))
        credits.append(along_paths(tree, {leaf: intra[leaf] + inter[leaf] for leaf in intra}))
    return credits
