"""RTPO: leave-one-out at forks, for the tokens of the forked step alone.

    A_v = V(v) - mean{ V(u) : u a sibling of v, u != v }        0 for only children

V(v): mean reward of the scored leaves below v. The first steps of all trees of the question
are siblings: they start from the same state.

Source: RTPO (arXiv 2608.18682), sibling advantage on that turn's tokens; the baseline is that
of BPO (arXiv 2607.14171).
Differences: (1) values come from all leaves below, whatever the order of forking; RTPO grows
its tree in reverse order of turns. (2) The trunks count as a fork at the prompt. (3) A step
whose siblings have no scored leaf below is an only child. (4) No division by a deviation.
Steps that were never forked train on nothing: see treegrpo.credit.sibling.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from treegrpo.credit.base import Credit, along_steps, credit, siblings, tallies
from treegrpo.tree import Tree


@credit("rtpo")
def rtpo(question: Sequence[Tree]) -> list[Credit]:
    """Return each forked step's value minus the mean value of its siblings."""
    scores = against_siblings(question)
    return [along_steps(tree, score) for tree, score in zip(question, scores, strict=True)]


def against_siblings(question: Sequence[Tree]) -> list[dict[int, Fraction]]:
    """Return, by tree and step with siblings, its value minus the mean of the others'."""
    below = tallies(question)
    scores: list[dict[int, Fraction]] = [{} for _ in question]
    for steps in siblings(question, below):
        total = sum((below[i][step].mean for i, step in steps), Fraction(0))
        for i, step in steps:
            value = below[i][step].mean
            scores[i][step] = value - (total - value) / (len(steps) - 1)
    return scores
