"""GiGPO: the leaf within its question, plus the step among all steps from the same state.

    A_i,v = A_i + omega A_v,    omega = 1
    A_i   = (R_i - mean(R)) / (std(R) + 1e-6)            over the scored leaves of the question
    A_v   = (G_v - mean(G)) / (std(G) + 1e-6)            over the steps taken in v's state
    G_v   = mean over the scored leaves i below v of sum_k gamma^k r_k,    gamma = 0.95

r_k: reward of the k-th step from v (k = 0) down to leaf i. A step's state is the one before
it, the `state_hash` of its parent; siblings share it, and so may steps of other branches and
trees. Steps whose state has no hash, or that are alone in it, have A_v = 0. The standard
deviations are unbiased (n - 1).

Source: GiGPO (arXiv 2505.10978), equations of A_E, A_S and their sum, with normalisation by
the deviation (the paper's other choice is to leave it out).
Differences: (1) in a tree a step may lie on several paths. It counts once in its state's group
with its mean return; as rows of a flat batch its copies would be compared with each other, and
a step that nothing else was tried against would get credit. Chains are as in the source. (2)
Equal hashes mean equal states of the environment, whereas the source compares observations.
(3) The
hash of our environments covers the transcript and the budgets used, so there only siblings and
equal histories share a state; an environment whose `state_hash` forgets how it was reached
groups across branches as in the source. (4) Groups of one and constant groups give exactly 0,
as in treegrpo.credit.group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from treegrpo.credit.base import (
    Credit,
    StepAt,
    Tally,
    along_paths,
    along_steps,
    credit,
    standardise,
    tallies,
)
from treegrpo.credit.group import group_scores
from treegrpo.tree import Tree

GAMMA = Fraction(95, 100)
"""Discount of a reward per step that it comes later."""

OMEGA = 1.0
"""Weight of the step's term."""


@credit("gigpo")
def gigpo(question: Sequence[Tree]) -> list[Credit]:
    """Return the sum of the leaf's score in its question and the step's in its state."""
    credits: list[Credit] = []
    parts = zip(question, group_scores(question), step_scores(question), strict=True)
    for tree, by_leaf, by_step in parts:
        episode, step = along_paths(tree, by_leaf), along_steps(tree, by_step)
        credits.append(
            {
                leaf: [a + OMEGA * b for a, b in zip(row, step[leaf], strict=True)]
                for leaf, row in episode.items()
            }
        )
    return credits


def step_scores(question: Sequence[Tree]) -> list[dict[int, float]]:
    """Return, by tree and step, its return standardised over the steps from the same state."""
    groups: defaultdict[str, dict[StepAt, float]] = defaultdict(dict)
    for i, (tree, below) in enumerate(zip(question, tallies(question), strict=True)):
        for step, value in mean_returns(tree, below).items():
            state = tree.nodes[tree.nodes[step].parent or 0].state_hash
            if state:
                groups[state][i, step] = value
    scores: list[dict[int, float]] = [{} for _ in question]
    for group in groups.values():
        for (i, step), score in standardise(group).items():
            scores[i][step] = score
    return scores


def mean_returns(tree: Tree, below: Sequence[Tally]) -> dict[int, float]:
    """Return the discounted return of each step with scored leaves, averaged over them."""
    totals = [Fraction(0)] * len(tree.nodes)
    for node in reversed(tree.nodes[1:]):
        totals[node.id] += below[node.id].count * Fraction(node.reward)
        totals[node.parent or 0] += GAMMA * totals[node.id]
    counts = {node.id: below[node.id].count for node in tree.nodes[1:]}
    return {step: float(totals[step] / count) for step, count in counts.items() if count}
