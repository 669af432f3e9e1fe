"""Sibling values: each step against its siblings, and what follows it inherits the result.

    A_v = V(v) - mean{ V(u) : u a sibling of v, u != v }        A_v = A_parent(v) if it has none

V(v): mean reward of the scored leaves below v. The first steps of all trees of the question
are siblings: they start from the same state. The advantage thus holds for the whole segment
from one fork to the next. At every fork the advantages sum to zero; for trees without forks
the result is that of `leave_one_out`.

Source: the baseline of BPO (arXiv 2607.14171), per fork; values backed up from the leaves as
in TreeRPO (arXiv 2506.05183).
Differences: (1) no division by the standard deviation of the siblings. (2) A sibling is
another child of the same parent: the step itself is left out of the mean. With it the result
shrinks by (k - 1) / k at a fork of k, which weighs forks by their width and is biased where
forks are random; without it the gradient is unbiased with `depth` weights. A value is the
plain mean of the leaves below, so where forks depend on the state it leans to what forked more,
with `path` weights too. (3) A step whose
siblings have no scored leaf below is an only child. A first step without any has 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.credit.base import Credit, along_steps, credit
from treegrpo.credit.rtpo import against_siblings
from treegrpo.tree import Tree


@credit("sibling")
def sibling(question: Sequence[Tree]) -> list[Credit]:
    """Return each step's value minus its siblings' mean, inherited by only children."""
    credits: list[Credit] = []
    for tree, scores in zip(question, against_siblings(question), strict=True):
        for node in tree.nodes[1:]:  # parents come before their children
            if node.id not in scores and node.parent in scores:
                scores[node.id] = scores[node.parent]
        credits.append(along_steps(tree, scores))
    return credits
