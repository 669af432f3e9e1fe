"""Where trees are forked. A policy sees only what is known before the children are sampled."""

from __future__ import annotations

import numpy as np

from treegrpo.tree import Tree


def random_forks(tree: Tree, count: int, rng: np.random.Generator) -> list[int]:
    """Return `count` nodes to fork, drawn uniformly and with replacement.

    Candidates are the root and every node whose episode went on. Source: Tree-GRPO (arXiv
    2509.21240) section 3.2 and its released code, which draws with replacement and counts the
    root, so a fork may be a whole new chain. No candidates (a bare tree): no forks.
    """
    candidates = [node.id for node in tree.nodes if node.children]
    if not candidates:
        return []
    return [candidates[int(i)] for i in rng.integers(len(candidates), size=count)]
