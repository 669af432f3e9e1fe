"""Sibling steps as preferences: which of two actions in one state led to more reward.

    better > worse  whenever  V(better) > V(worse),    gap = V(better) - V(worse)

V: mean reward of the scored leaves below a step. Siblings are the children of one node, and
the first steps of all trees of a question: pairs share everything up to the action, which is
what a preference loss over steps needs.

Source: the step-level preferences that Tree-GRPO (arXiv 2509.21240, proposition 3.1) compares
itself with; Step-DPO (arXiv 2406.18629) is the loss. Differences: pairs come from forks, not
from a judge, and all pairs of a fork with different values are kept, k (k - 1) / 2 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from treegrpo.credit.base import StepAt, check_question, siblings, tallies
from treegrpo.tree import Tree


@dataclass(frozen=True, slots=True)
class Preference:
    """Two steps from the same state, the first of them with the higher value."""

    better: StepAt
    worse: StepAt
    gap: float
    """Difference of the values, above 0, in units of reward."""


def sibling_preferences(question: Sequence[Tree]) -> list[Preference]:
    """Return all pairs of siblings with different values, in the order of trees and nodes.

    Raises:
        TreegrpoError: trees of several questions, or a reward that is not finite.
    """
    check_question(question)
    below = tallies(question)
    pairs: list[Preference] = []
    for steps in siblings(question, below):
        for one, other in combinations(steps, 2):
            gap = below[one[0]][one[1]].mean - below[other[0]][other[1]].mean
            if gap > 0:
                pairs.append(Preference(one, other, float(gap)))
            elif gap < 0:
                pairs.append(Preference(other, one, float(-gap)))
    return pairs
