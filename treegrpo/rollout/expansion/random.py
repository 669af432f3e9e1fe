"""Forks at N nodes of a finished tree in each of L rounds, drawn uniformly.

Source: Tree-GRPO (arXiv 2509.21240) section 3.2 and its released code, which draws with
replacement and counts the root, so that a fork may be a whole new chain; the paper says
neither. Both are options here.

Sees: which nodes went on, so the length of the finished branches and no reward. A long branch
has more nodes to fork at, which breaks the condition of `path` weights mildly.
"""

from __future__ import annotations

import numpy as np

from treegrpo.rollout.expansion.base import Expansion, expansion, forkable
from treegrpo.tree import Tree


@expansion("random")
class Random(Expansion):
    """N nodes of the tree a round, uniformly; a tree with fewer than N may give fewer."""

    include_root: bool = True
    """Whether the root may be forked, which is a whole new chain."""
    with_replacement: bool = True
    """Whether a node may be drawn twice in one round; false: all its nodes where it has < N."""

    def at_rest(self, tree: Tree, round: int, forks: int, rng: np.random.Generator) -> list[int]:
        """Return N nodes that went on; none of a tree that has none."""
        candidates = forkable(tree, include_root=self.include_root)
        if self.with_replacement:
            return _draw(candidates, forks, rng)
        count = min(forks, len(candidates))
        return [candidates[int(i)] for i in rng.permutation(len(candidates))[:count]]

    def max_branches(self, forks: int, rounds: int) -> int:
        """Return L N + 1."""
        return 1 + forks * rounds


def _draw(candidates: list[int], count: int, rng: np.random.Generator) -> list[int]:
    if not candidates:
        return []
    return [candidates[int(i)] for i in rng.integers(len(candidates), size=count)]
