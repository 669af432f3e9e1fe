"""SPO: what a step changed, the value after it minus the value before it.

    A_v = V(v) - V(parent of v)

V(v): mean reward of the scored leaves below v. All trees of a question have one root: its
value is the mean over the scored leaves of all trees.

Source: SPO-tree (arXiv 2505.23564), segment advantage.
Differences: (1) a segment is one agent step, not a stretch cut at unlikely tokens, and all its
sampled tokens get the advantage (no probability mask). (2) No division by a deviation. (3) The
common root above: with a root per tree a lone chain would have nothing but zeros. Now its
first step has R - mean and later steps have 0. The estimate is biased: V(parent) contains
the step's own leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.credit.base import Credit, along_steps, credit, tallies
from treegrpo.tree import Tree


@credit("spo")
def spo(question: Sequence[Tree]) -> list[Credit]:
    """Return each step's value minus its parent's."""
    credits: list[Credit] = []
    for tree, below in zip(question, tallies(question), strict=True):
        steps = [node for node in tree.nodes[1:] if below[node.id].count]
        gains = {node.id: below[node.id].mean - below[node.parent or 0].mean for node in steps}
        credits.append(along_steps(tree, gains))
    return credits
