"""What came of growing trees: the trees, what they cost, who failed, how the time went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from treegrpo.tree import Tree


@dataclass
class Grown:
    """The trees of each question (none where reset failed), and what they cost."""

    questions: list[list[Tree]] = field(default_factory=list[list[Tree]])
    sampled_tokens: int = 0
    tool_calls: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    """Rollouts that failed, by who failed."""
    faults: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """The same by who failed and what it said, for people to read."""
    unstarted: Counter[str] = field(default_factory=Counter[str])
    """Branches that were refused before they sampled anything, by reason; they leave no leaf."""
    fork_depths: list[int] = field(default_factory=list[int])
    timeouts: int = 0
    """Calls of an environment that were given up; each is among the failures, too."""
    timing: Timing = field(default_factory=lambda: Timing())

    def count_failure(self, who: str, message: str) -> None:
        """Count a rollout that failed."""
        self.failures[who] += 1
        self.faults[who, message] += 1


@dataclass
class Timing:
    """Where the seconds went; nothing that is trained depends on it."""

    generation: float = 0.0
    """In the engine."""
    environment: float = 0.0
    """In environments, of all threads together: may exceed the whole."""
    waiting: float = 0.0
    """With nothing to decode, waiting for an environment."""
    whole: float = 0.0
    rows: int = 0
    """Rows decoded, added up over the engine's steps."""
    live: int = 0
    """Branches alive, added up over the same steps."""

    @property
    def fill(self) -> float:
        """Share of the live branches that were being decoded, over the engine's steps."""
        return self.rows / self.live if self.live else 0.0


@dataclass(frozen=True)
class Status:
    """One moment of growing, for a live line."""

    tokens_per_s: float
    live: int
    """Branches in flight."""
    decoding: int
    """Of them, those in the engine."""
    answering: int
    """Of them, those in or before an environment."""
    ended: int
    """Branches that have ended."""
    waiting_share: float
    """Share of the time so far with nothing to decode."""
