"""TreeRL: global and local gain of a step, damped where many leaves share it.

    A_v = [ (V(v) - V(root)) + (V(v) - V(parent of v)) ] / sqrt(n(v))

V(v): mean reward of the n(v) scored leaves below v. All trees of a question have one root: its
value is the mean over the scored leaves of all trees, as in the source, whose M chains are
children of one prompt.

Source: TreeRL (arXiv 2506.11902), process reward of a step and its re-weighting.
Differences: (1) the source first replaces R_i by R_i minus the mean of the other leaves, which
multiplies all values of a question by n / (n - 1) once they are centred; left out. (2) All
leaves are trained, not a selected sixteen. (3) Nodes are agent steps, not stretches between
uncertain tokens. A chain has 2 (R - mean) on its first step and R - mean on later ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from treegrpo.credit.base import Credit, along_steps, credit, tallies
from treegrpo.tree import Tree


@credit("treerl")
def treerl(question: Sequence[Tree]) -> list[Credit]:
    """Return each step's gain over root and parent, over the root of its leaves' number."""
    credits: list[Credit] = []
    for tree, below in zip(question, tallies(question), strict=True):
        numbers: dict[int, float] = {}
        for node in tree.nodes[1:]:
            if here := below[node.id].count:
                value, above = below[node.id].mean, below[node.parent or 0].mean
                gain = (value - below[0].mean) + (value - above)
                numbers[node.id] = float(gain) / math.sqrt(here)
        credits.append(along_steps(tree, numbers))
    return credits
