"""Mastermind: find a secret code of letters from counts of letters that are right.

    env = make("treegrpo/Mastermind-v0")

The oracle guesses, in a fixed order, the first code that agrees with every reply so far.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from treegrpo.envs.suite.games.base import BadMove, Belongs, GameEnv, GameState, pick, task_id
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

ALPHABET = "ABCDEFGHIJKLMNOPQRST"
_SEPARATORS = re.compile(r"[\s,.;|-]+")


class Level(NamedTuple):
    """The length of the code, how many letters it may be made of, and the guesses allowed."""

    places: int
    letters: int
    guesses: int


LEVELS: Mapping[int, Level] = {
    1: Level(3, 6, 6),
    2: Level(4, 5, 7),
    3: Level(4, 6, 8),
    4: Level(4, 8, 9),
    5: Level(5, 8, 10),
}

Table = NDArray[np.int8]


@dataclass(kw_only=True, slots=True)
class MastermindState(GameState):
    """The guesses so far, as they were understood."""

    guesses: list[str] = field(default_factory=list[str])


class MastermindEnv(GameEnv):
    """A secret code and a limited number of guesses; each reply counts what was right.

    Reward: 1 for guessing the code within the limit, else 0.
    """

    system_prompt: ClassVar[str] = (
        "Find the secret code. Letters may repeat. A reply counts placed letters (right letter, "
        "right place) and misplaced ones (right letter, another place)."
    )
    max_turns: int = 16
    max_tool_calls: int = 16
    counted: ClassVar[str] = "Guesses"

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a task that the oracle solves within the limit, or None."""
        places, count, guesses = LEVELS[difficulty]
        letters = "".join(sorted(rng.permutation(list(ALPHABET))[:count]))
        secret = "".join(pick(rng, letters) for _ in range(places))
        if not belongs([letters, secret]):
            return None
        played: list[str] = []
        while secret not in played:
            if len(played) == guesses:
                return None
            played.append(next_guess(secret, letters, played))
        return Task(
            id=task_id("code", [letters, secret]),
            question=f"The code has {places} letters, each one of {' '.join(letters)}. "
            f"You have {guesses} guesses.",
            answer=secret,
            difficulty=difficulty,
            data={"letters": letters, "guesses": guesses},
        )

    def setup(self, task: Task, rng: np.random.Generator) -> MastermindState:
        """Return the state before the first guess."""
        return MastermindState(moves_left=task.data["guesses"])

    @tool(effects="write")
    def guess(self, code: str) -> str:
        """Guess the code.

        Args:
            code: its letters in order, with or without spaces.
        """
        letters, secret = str(self.task.data["letters"]), str(self.task.answer)
        said = _SEPARATORS.sub("", code).upper()
        if len(said) != len(secret) or not set(said) <= set(letters):
            raise BadMove(
                f"a code of {len(secret)} letters was asked for, '{said[:20]}' found. "
                f"Use the letters {' '.join(letters)}."
            )
        cast("MastermindState", self.state).guesses.append(said)
        placed, misplaced = reply_to(secret, said)
        stands = self.count_move(is_won=said == secret)
        return f"{' '.join(said)}: {placed} placed, {misplaced} misplaced\n{stands}"

    def oracle(self) -> str:
        """Return the guess of the first code that agrees with every reply so far."""
        guesses = cast("MastermindState", self.state).guesses
        code = next_guess(str(self.task.answer), str(self.task.data["letters"]), guesses)
        return self.encode_call("guess", code=" ".join(code))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a valid guess."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        letters = str(self.task.data["letters"])
        code = " ".join(pick(rng, letters) for _ in str(self.task.answer))
        return self.encode_call("guess", code=code)


def reply_to(secret: str, guess: str) -> tuple[int, int]:
    """Return how many letters of a guess are placed and how many misplaced."""
    placed = sum(one == other for one, other in zip(secret, guess, strict=True))
    common = sum(min(secret.count(letter), guess.count(letter)) for letter in set(guess))
    return placed, common - placed


def next_guess(secret: str, letters: str, guesses: Sequence[str]) -> str:
    """Return the first code that would have had the same replies as the secret.

    The secret serves for nothing but these replies, so the choice is a fair player's.
    """
    codes, counts = _all_codes(len(secret), len(letters))
    for guess in guesses:
        said = np.array([letters.index(letter) for letter in guess], dtype=np.int8)
        had = np.bincount(said, minlength=len(letters)).astype(np.int8)
        placed, misplaced = reply_to(secret, guess)
        fits = (codes == said).sum(axis=1) == placed
        fits &= np.minimum(counts, had).sum(axis=1) == placed + misplaced
        codes, counts = codes[fits], counts[fits]
    return "".join(letters[index] for index in codes[0].tolist())


@functools.cache
def _all_codes(places: int, letters: int) -> tuple[Table, Table]:
    """Return every code in a fixed shuffled order, and how often each holds each letter.

    In the order of the alphabet the first guesses would be poor: all of one letter.
    """
    axes = np.meshgrid(*[np.arange(letters)] * places, indexing="ij")
    codes = np.stack([axis.ravel() for axis in axes], axis=1).astype(np.int8)
    codes = codes[np.random.default_rng(0).permutation(len(codes))]
    counts = np.stack([(codes == letter).sum(axis=1) for letter in range(letters)], axis=1)
    return codes, counts.astype(np.int8)
