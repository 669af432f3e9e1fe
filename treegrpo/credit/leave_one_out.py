"""Leave-one-out: each leaf against the leaves of its question that do not share the step.

    A_i,v = R_i - mean{ R_j : j not below v }        v: a step on the path to leaf i

j runs over the scored leaves of all trees of the question. For trees without forks those are
all leaves but i, on all steps, and A_i = n / (n - 1) (R_i - mean(R)).

Source: RLOO (arXiv 2402.14740; Kool et al. 2019), where nothing is shared.
Differences: in a tree every leaf below a step was sampled after it and depends on it. A
baseline with such leaves would be biased; so the step's whole subtree is left out, not leaf i
alone. Under forks placed at random the gradient is then unbiased with `depth` weights. A step
that all leaves share (the trunk of a lone tree, above its forks) has nothing to be compared
with, and 0. Leaves without outcome have no part and 0. No division by a deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from treegrpo.credit.base import Credit, Tally, credit, outcomes, tallies
from treegrpo.tree import Tree


@credit("leave_one_out")
def leave_one_out(question: Sequence[Tree]) -> list[Credit]:
    """Return, for each step, the leaf's reward minus the mean reward elsewhere."""
    credits: list[Credit] = []
    for tree, below in zip(question, tallies(question), strict=True):
        rows = {leaf: [0.0] * tree.nodes[leaf].depth for leaf in tree.leaves()}
        for leaf, reward in outcomes(tree).items():
            elsewhere = [below[0] - below[step] for step in tree.path(leaf)[1:]]
            rows[leaf] = [_above(reward, others) for others in elsewhere]
        credits.append(rows)
    return credits


def _above(reward: float, others: Tally) -> float:
    return float(Fraction(reward) - others.mean) if others.count else 0.0
