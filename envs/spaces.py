"""The space of texts: any str up to a length, unlike Gymnasium's character-set Text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np


class UnicodeText(gymnasium.Space[str]):
    """Every `str` of at most `max_length` characters, the empty one included.

    `sample()` is seeded by the space's own generator. Without `sampler` it draws short
    runs of words and punctuation; an environment passes a sampler that also writes calls.
    """

    def __init__(
        self,
        max_length: int,
        *,
        sampler: Callable[[np.random.Generator], str] | None = None,
        seed: int | None = None,
    ) -> None:
        """Make the space; `max_length` is counted in characters."""
        self.max_length = max_length
        self._sampler = sampler
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: a text has no fixed-size vector."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a random text; masks are not supported."""
        text = self._sampler(self.np_random) if self._sampler else random_words(self.np_random)
        return text[: self.max_length]

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a str that is short enough."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        """Return whether `other` holds the same texts."""
        return isinstance(other, UnicodeText) and other.max_length == self.max_length

    def __hash__(self) -> int:
        """Return a hash that agrees with equality."""
        return hash((UnicodeText, self.max_length))

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"UnicodeText({self.max_length})"


_WORDS = ("the", "of", "and", "home", "Oslo", "7", "<tool_call>", "{", "}", "\u00e9", "?", "select")


def random_words(rng: np.random.Generator) -> str:
    """Return up to eight words of junk, hostile to parsers on purpose."""
    count = int(rng.integers(0, 9))
    return " ".join(_WORDS[int(i)] for i in rng.integers(0, len(_WORDS), size=count))
