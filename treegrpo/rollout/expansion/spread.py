"""Forks at nodes whose children were worth different amounts, in each of L rounds.

    P(node) = explore / nodes + (1 - explore) * variance(node) / sum of variances

The variance is that of the values of a node's children that have any; a value is the mean
episode reward of the scored leaves below. Where no node differs (in the first round none has
two children) all nodes are alike and the draw is uniform, as in `random`.

Source: the finding of a study of forks with exact gradients that forks pay where a step decides
the outcome, and of InfoTree (arXiv 2605.05262) that adaptive forks raise the share of trees with
mixed outcomes. The formula is our own.

Sees: the rewards of the finished tree, so it is adaptive, and `path` weights are *not* exactly
unbiased: whether a node gets another child depends on what its children were worth. Two
children, and a third where they differ, of a node worth 1/4 have a mean of 7/32. What is drawn
by `explore` alone has no such bias beyond that of `random`.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from pydantic import Field

from treegrpo.credit.base import tallies
from treegrpo.rollout.expansion.base import Expansion, expansion, forkable
from treegrpo.tree import Tree


@expansion("spread")
class Spread(Expansion):
    """N nodes of the tree a round, with replacement, where sibling rewards differ."""

    explore: float = Field(default=0.15, ge=0, le=1)
    """Share of the forks that are drawn uniformly from all nodes, the root included."""

    def at_rest(self, tree: Tree, round: int, forks: int, rng: np.random.Generator) -> list[int]:
        """Return N nodes that went on; none of a tree that has none."""
        candidates = forkable(tree)
        if not candidates:
            return []
        variances = np.array([float(spread) for spread in _variances(tree, candidates)])
        chances = np.full(len(candidates), 1 / len(candidates))
        if variances.any():
            chances = self.explore * chances + (1 - self.explore) * variances / variances.sum()
        drawn = rng.choice(len(candidates), size=forks, p=chances)
        return [candidates[int(i)] for i in drawn]

    def max_branches(self, forks: int, rounds: int) -> int:
        """Return L N + 1."""
        return 1 + forks * rounds


def _variances(tree: Tree, nodes: list[int]) -> list[Fraction]:
    """Return the variance of the children's values at each node, exactly; 0 below two values."""
    [below] = tallies([tree])
    found: list[Fraction] = []
    for node in nodes:
        children = [below[child] for child in tree.nodes[node].children]
        values = [child.mean for child in children if child.count]
        mean = sum(values, Fraction(0)) / max(1, len(values))
        found.append(sum(((v - mean) ** 2 for v in values), Fraction(0)) / max(1, len(values)))
    return found
