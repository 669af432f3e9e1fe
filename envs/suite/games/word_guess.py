"""WordGuess: find a secret word from marks on the letters of the words tried.

    env = make("treegrpo/WordGuess-v0")

Words are common English ones (words.py). One or two tries stand on the board from the start,
drawn with the word, so that one word gives many games; a word itself is in one split only.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, cast

import numpy as np

from treegrpo.envs.suite.games.base import BadMove, Belongs, GameEnv, GameState, pick, show, task_id
from treegrpo.envs.suite.games.words import WORDS
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

MAX_WEIGHED = 24
"""How many of the words that still fit the oracle weighs against each other."""


class Level(NamedTuple):
    """The length of the word, how many tries are given, and the guesses allowed."""

    length: int
    openings: int
    guesses: int


LEVELS: Mapping[int, Level] = {
    1: Level(3, 2, 6),
    2: Level(4, 2, 6),
    3: Level(5, 1, 6),
    4: Level(6, 1, 5),
    5: Level(7, 1, 4),
}


@dataclass(kw_only=True, slots=True)
class WordGuessState(GameState):
    """The words tried so far, the given ones first."""

    tried: list[str] = field(default_factory=list[str])


class WordGuessEnv(GameEnv):
    """A secret word and a limited number of guesses, each answered letter by letter.

    Reward: 1 for guessing the word within the limit, else 0.
    """

    system_prompt: ClassVar[str] = (
        "Find the secret word, a common English one. Marks under a word: = right letter and "
        "place, + right letter in another place, - letter not in the word (or not once more)."
    )
    max_turns: int = 12
    max_tool_calls: int = 12
    counted: ClassVar[str] = "Guesses"

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a task that the oracle solves within the limit, or None."""
        length, count, guesses = LEVELS[difficulty]
        secret = pick(rng, WORDS[length])
        if not belongs(secret):
            return None
        openings = tuple(pick(rng, WORDS[length]) for _ in range(count))
        tried = list(openings)
        if secret in openings or len(set(openings)) < count:
            return None
        while secret not in tried:
            if len(tried) == count + guesses:
                return None
            tried.append(next_guess(secret, tried))
        given = "\n".join(marked(secret, word) for word in openings)
        return Task(
            id=task_id("word", [openings, secret]),
            question=f"The word has {length} letters, you have {guesses} guesses. "
            f"Tried so far:\n{given}",
            answer=secret,
            difficulty=difficulty,
            data={"openings": openings, "guesses": guesses},
        )

    def setup(self, task: Task, rng: np.random.Generator) -> WordGuessState:
        """Return the state with the given tries."""
        return WordGuessState(moves_left=task.data["guesses"], tried=list(task.data["openings"]))

    @tool(effects="write")
    def guess(self, word: str) -> str:
        """Guess the word.

        Args:
            word: a common English word of the right length.
        """
        secret, said = str(self.task.answer), word.strip().lower()
        if len(said) != len(secret):
            raise BadMove(f"a word of {len(secret)} letters was asked for, {len(said)} found.")
        if said not in WORDS[len(secret)]:
            raise BadMove(f"'{said}' is not in the list of common words. Try another word.")
        cast("WordGuessState", self.state).tried.append(said)
        stands = self.count_move(is_won=said == secret)
        return f"{marked(secret, said)}\n{stands}"

    def oracle(self) -> str:
        """Return the guess that, of the words that still fit, leaves the fewest at worst."""
        tried = cast("WordGuessState", self.state).tried
        return self.encode_call("guess", word=next_guess(str(self.task.answer), tried))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a word of the right length."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        return self.encode_call("guess", word=pick(rng, WORDS[len(str(self.task.answer))]))


@functools.lru_cache(maxsize=100_000)
def marks(secret: str, guess: str) -> str:
    """Return one mark a letter: "=" placed, "+" elsewhere, "-" not there (or not once more)."""
    spare = Counter(one for one, other in zip(secret, guess, strict=True) if one != other)
    found: list[str] = []
    for one, other in zip(secret, guess, strict=True):
        if one == other:
            found.append("=")
        elif spare[other] > 0:
            spare[other] -= 1
            found.append("+")
        else:
            found.append("-")
    return "".join(found)


def marked(secret: str, guess: str) -> str:
    """Return a guess with its marks underneath."""
    return show([guess, marks(secret, guess)])


def next_guess(secret: str, tried: Sequence[str]) -> str:
    """Return a word that would have had the same marks as the secret.

    Of those it is the one whose own marks would leave the fewest words in the worst case. The
    secret serves for nothing but the marks, so the choice is a fair player's.
    """
    seen = {word: marks(secret, word) for word in tried}
    fits = [
        word
        for word in WORDS[len(secret)]
        if all(marks(word, other) == mark for other, mark in seen.items())
    ]

    def most_left(word: str) -> int:
        return max(Counter(marks(other, word) for other in fits).values())

    return min(fits[:MAX_WEIGHED], key=most_left)
