"""Random choices for the generators, all from one NumPy generator, cheap enough for shops.

Floats are drawn in blocks: a shop needs thousands, and a NumPy call for each is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

BLOCK = 256
"""How many floats are drawn at once."""
T = TypeVar("T")


class Draws:
    """Choices drawn from a generator; the same generator state gives the same choices."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Borrow the generator; it is moved on by a block of floats at a time."""
        self._rng = rng
        self._floats: list[float] = []

    def chance(self, share: float) -> bool:
        """Return True in that share of cases."""
        return self._next() < share

    def below(self, limit: int) -> int:
        """Return an integer from 0 to limit - 1."""
        return int(self._next() * limit)

    def between(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order."""
        left, chosen = list(items), list[T]()
        for _ in range(count):
            chosen.append(left.pop(self.below(len(left))))
        return chosen

    def _next(self) -> float:
        if not self._floats:
            self._floats = self._rng.random(BLOCK).tolist()
        return self._floats.pop()
