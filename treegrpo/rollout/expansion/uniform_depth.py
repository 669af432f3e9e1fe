"""Forks of the trunk at N depths that are drawn before it is rolled out.

Source: the trees of a study of forks with exact gradients, in which fork depths are uniform
over the T steps of an episode. Difference: T is a setting, since the length of an episode is
not known beforehand; a depth that the trunk does not reach makes no fork.

Sees: nothing but the depth. The forks start as soon as the trunk gets there, beside it, and
`path` weights are exactly unbiased.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from treegrpo.envs.digest import stable_seed
from treegrpo.rollout.expansion.base import Expansion, Reached, expansion


@expansion("uniform_depth")
class UniformDepth(Expansion):
    """N forks of the trunk, each at a depth drawn uniformly; rounds have no effect."""

    max_depth: int = Field(default=3, ge=1)
    """Number of depths to draw from: 0 (the root) to max_depth - 1; the turns of an episode."""

    def at_node(self, reached: Reached) -> int:
        """Return how many of the tree's N depths are this one."""
        if not reached.is_trunk:
            return 0
        rng = np.random.default_rng(stable_seed("fork depths", reached.tree_seed))
        depths = rng.integers(self.max_depth, size=reached.forks)
        return int((depths == len(reached.path) - 1).sum())

    def max_branches(self, forks: int, rounds: int) -> int:
        """Return N + 1."""
        return 1 + forks
