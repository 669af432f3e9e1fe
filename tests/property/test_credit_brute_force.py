"""Every estimator against its definition, spelled out over sets of leaves on trees of any shape.

Nothing here is backed up, subtracted or kept: for each step the leaves below are looked for
again, and means are taken over what was found. Rewards are eighths, so fractions are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import mean, stdev
from typing import TypeAlias

import pytest
from hypothesis import given, note

from tests.credit_trees import Drawn, build, questions
from treegrpo.credit import get_credit, sibling_preferences
from treegrpo.tree import Tree

EPS = 1e-6
At: TypeAlias = tuple[int, int]
"""Index of the tree, id of the node."""


class Brute:
    """A question as sets of leaves."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = trees
        nodes = [(i, node.id) for i, tree in enumerate(trees) for node in tree.nodes]
        self.steps = [at for at in nodes if self.parent(at) is not None]
        self.leaves = [at for at in self.steps if all(self.parent(b) != at for b in self.steps)]
        self.scored = [(i, n) for i, n in self.leaves if trees[i].nodes[n].has_outcome]

    def parent(self, at: At) -> At | None:
        above = self.trees[at[0]].nodes[at[1]].parent
        return None if above is None else (at[0], above)

    def is_first(self, at: At) -> bool:
        return self.parent(self.parent(at) or (0, 0)) is None

    def up(self, at: At) -> list[At]:
        """From the node up to the root."""
        above = self.parent(at)
        return [at, *(self.up(above) if above else [])]

    def reward(self, leaf: At) -> Fraction:
        return sum((Fraction(self.trees[i].nodes[n].reward) for i, n in self.up(leaf)), Fraction(0))

    def below(self, at: At) -> list[At]:
        """Scored leaves under a step; under a root those of all trees."""
        if self.parent(at) is None:
            return self.scored
        return [leaf for leaf in self.scored if at in self.up(leaf)]

    def value(self, at: At) -> Fraction:
        return mean(self.reward(leaf) for leaf in self.below(at))

    def siblings(self, at: At) -> list[At]:
        """The others, not the step itself."""
        alike = [b for b in self.steps if self.parent(b) == self.parent(at)]
        if self.is_first(at):
            alike = [b for b in self.steps if self.is_first(b)]
        return [b for b in alike if b != at and self.below(b)]

    def state(self, at: At) -> str:
        i, n = self.parent(at) or at
        return self.trees[i].nodes[n].state_hash

    def discounted(self, step: At, leaf: At) -> Fraction:
        path = self.up(leaf)[::-1]
        rewards = [self.trees[i].nodes[n].reward for i, n in path[path.index(step) :]]
        return sum(
            (Fraction(19, 20) ** k * Fraction(r) for k, r in enumerate(rewards)), Fraction(0)
        )

    def mean_return(self, step: At) -> Fraction:
        return mean(self.discounted(step, leaf) for leaf in self.below(step))


def z_score(one: Fraction, group: Sequence[Fraction]) -> float:
    if len(set(group)) < 2:
        return 0.0
    return float(one - mean(group)) / (stdev(map(float, group)) + EPS)


def group(q: Brute, leaf: At, step: At) -> float:
    return z_score(q.reward(leaf), [q.reward(j) for j in q.scored])


def intra_inter(q: Brute, leaf: At, step: At) -> float:
    own = [q.reward(j) for j in q.scored if j[0] == leaf[0]]
    return z_score(q.reward(leaf), own) + group(q, leaf, step)


def leave_one_out(q: Brute, leaf: At, step: At) -> float:
    others = [q.reward(j) for j in q.scored if j not in q.below(step)]
    return float(q.reward(leaf) - mean(others)) if others else 0.0


def rtpo(q: Brute, leaf: At, step: At) -> float:
    others = q.siblings(step)
    return float(q.value(step) - mean(q.value(b) for b in others)) if others else 0.0


def sibling(q: Brute, leaf: At, step: At) -> float:
    # The nearest step above, itself included, that had siblings.
    forked = [at for at in q.up(step)[:-1] if q.siblings(at)]
    return rtpo(q, leaf, forked[0]) if forked else 0.0


def spo(q: Brute, leaf: At, step: At) -> float:
    return float(q.value(step) - q.value(q.up(step)[1]))


def treerl(q: Brute, leaf: At, step: At) -> float:
    root, above = q.up(step)[-1], q.up(step)[1]
    gain = q.value(step) - q.value(root) + q.value(step) - q.value(above)
    return float(gain) / math.sqrt(len(q.below(step)))


def treepo(q: Brute, leaf: At, step: At) -> float:
    subgroups = [q.below(at) for at in q.up(leaf)]
    subgroups = [s for s in subgroups if len(s) > 1]
    # Weighted by its size, a group's mean is one count per member.
    gaps = [q.reward(leaf) - mean(map(q.reward, s)) for s in subgroups for _ in s]
    return float(mean(gaps)) if gaps else 0.0


def gigpo(q: Brute, leaf: At, step: At) -> float:
    here = [b for b in q.steps if q.state(b) == q.state(step) and q.below(b)]
    score = z_score(q.mean_return(step), [q.mean_return(b) for b in here]) if q.state(step) else 0.0
    return group(q, leaf, step) + score


DEFINITIONS: list[Callable[[Brute, At, At], float]] = [
    gigpo,
    group,
    intra_inter,
    leave_one_out,
    rtpo,
    sibling,
    spo,
    treepo,
    treerl,
]
EXACT = (leave_one_out, rtpo, sibling, spo, treepo)


@given(question=questions())
def test_each_is_what_it_says(question: Sequence[Tree]) -> None:
    brute = Brute(question)
    for define in DEFINITIONS:
        note(f"estimator {define.__name__}")
        _require_defined(brute, question, define)


def _require_defined(
    brute: Brute, question: Sequence[Tree], define: Callable[[Brute, At, At], float]
) -> None:
    credits = get_credit(define.__name__)(question)
    assert [(i, leaf) for i, one in enumerate(credits) for leaf in one] == brute.leaves
    for i, leaf in brute.leaves:
        steps = brute.up((i, leaf))[-2::-1]
        expected = [0.0] * len(steps)
        if (i, leaf) in brute.scored:
            expected = [define(brute, (i, leaf), step) for step in steps]
        if define in EXACT:
            assert credits[i][leaf] == expected
        else:
            assert credits[i][leaf] == pytest.approx(expected, abs=1e-8)


@given(question=questions())
def test_preferences_are_all_unequal_pairs(question: Sequence[Tree]) -> None:
    brute = Brute(question)
    expected = {
        (a, b): float(brute.value(a) - brute.value(b))
        for a in brute.steps
        if brute.below(a)
        for b in brute.siblings(a)
        if brute.value(a) > brute.value(b)
    }
    found = sibling_preferences(question)
    assert {(pair.better, pair.worse): pair.gap for pair in found} == expected
    assert len(found) == len(expected)


def test_the_definitions_tell_trees_from_chains() -> None:
    # Guards the test itself: a drawn question that never forks would prove little.
    tree = build([Drawn(0), Drawn(1, eighths=8), Drawn(1)])
    assert sibling(Brute([tree]), (0, 2), (0, 2)) == 1.0
