"""TreePO: each leaf against its subgroup at every depth, larger subgroups counting more.

    A_i = sum_d n_d (R_i - mean_d) / sum_d n_d        d: depths of the path with n_d > 1

n_d and mean_d: number and mean reward of the scored leaves below the path's node at depth d;
at depth 0 those of all trees of the question. One number per leaf, on all its steps.

Source: TreePO (arXiv 2508.17445), subgroup advantage weighted by group size.
Differences: (1) the source then whitens over all tokens of the batch. Credit sees one question
and does not whiten: the batch's mean would add a baseline that depends on other questions, its
deviation is one factor on the whole gradient. (2) A subgroup of one leaf is skipped at depth
0, too, where the released code keeps the raw reward: a lone leaf has 0. (3) Depths are agent
steps, not stretches of 512 tokens. As there, a subgroup counts once per depth, so one that
lasts for several steps counts several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from treegrpo.credit.base import Credit, along_paths, credit, outcomes, tallies
from treegrpo.tree import Tree


@credit("treepo")
def treepo(question: Sequence[Tree]) -> list[Credit]:
    """Return each leaf's mean distance from its subgroups, on all its steps."""
    credits: list[Credit] = []
    for tree, below in zip(question, tallies(question), strict=True):
        by_leaf: dict[int, Fraction] = {}
        for leaf, reward in outcomes(tree).items():
            groups = [below[node] for node in tree.path(leaf) if below[node].count > 1]
            weight = sum(group.count for group in groups)
            total = sum((group.total for group in groups), Fraction(0))
            by_leaf[leaf] = Fraction(reward) - total / weight if weight else Fraction(0)
        credits.append(along_paths(tree, by_leaf))
    return credits
