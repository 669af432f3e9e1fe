"""The full tree: every node above a depth has b children.

Source: TreeRPO (arXiv 2506.05183), which samples a full N-ary tree of steps. Difference: only
down to a depth, below which every branch is a chain.

Sees: the depth of a node and whether its episode goes on. `path` weights are exactly unbiased,
and so are the others if no episode ends above `max_depth`.
"""

from __future__ import annotations

from pydantic import Field

from treegrpo.rollout.expansion.base import Expansion, Reached, expansion


@expansion("full")
class Full(Expansion):
    """Every branch forks at every node above `max_depth`; forks and rounds have no effect."""

    branching: int = Field(default=2, ge=2)
    """Children of each node above max_depth."""
    max_depth: int = Field(default=3, ge=1)
    """Depth from which branches no longer fork; the root has depth 0."""

    def at_node(self, reached: Reached) -> int:
        """Return b - 1 beside the branch that came here; 0 from `max_depth` on."""
        return self.branching - 1 if len(reached.path) <= self.max_depth else 0

    def max_branches(self, forks: int, rounds: int) -> int:
        """Return b^max_depth."""
        return int(self.branching**self.max_depth)
