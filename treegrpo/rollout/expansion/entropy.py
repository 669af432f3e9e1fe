"""Forks after tool results, more often where the policy has become less sure than at the start.

    P(fork at node) = clip(base + scale * (H(node) - H(root)), 0, 1)

H is the entropy in nats of the first token's distribution after the node. At most N forks are
made along a path, one at a node, none at the root, where no tool has answered.

Source: ARPO (arXiv 2507.19849), whose constants are the defaults; AT2PO ranks turns by entropy
in the same spirit. Differences: (1) ARPO averages over the first twenty or so *sampled* tokens,
so its forks look at a child that is then trained on; the first token's distribution is decided
by the state alone. (2) ARPO divides H by the log of the vocabulary, some 12 nats, which makes
its decision close to a coin toss; here `scale` is per nat. (3) ARPO's limit is per question and
goes to whichever branch comes first, which depends on who finishes first; here it is per path.

Sees: the entropies along the path. `path` weights are exactly unbiased.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from treegrpo.rollout.expansion.base import Expansion, Reached, expansion


@expansion("entropy")
class Entropy(Expansion):
    """A fork where entropy rose, at most N along a path; rounds have no effect."""

    needs_entropy: ClassVar[bool] = True

    base: float = Field(default=0.5, ge=0, le=1)
    """Chance of a fork where the entropy is that of the root."""
    scale: float = Field(default=0.2, ge=0)
    """What each nat above the root's entropy adds to the chance, and each below takes away."""

    def at_node(self, reached: Reached) -> int:
        """Return 1 or 0, drawn from the node's own stream."""
        if len(reached.path) == 1 or reached.forked >= reached.forks:
            return 0
        rise = reached.entropies[-1] - reached.entropies[0]
        return int(reached.rng.random() < self.base + self.scale * rise)

    def max_branches(self, forks: int, rounds: int) -> int:
        """Return 2^N: both branches of a fork may fork N - 1 times more."""
        return int(2**forks)
