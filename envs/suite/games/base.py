"""What the games share: splits by content, a budget of moves, a reward of 1 or 0, text boards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task

Direction = Literal["up", "down", "left", "right"]
STEPS: Mapping[Direction, tuple[int, int]] = {
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
}
"""Rows and columns that a move in each direction goes."""

SPLITS = ("train", "validation", "test")
_SPLIT_OF_DIGIT = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2

Belongs = Callable[[object], bool]
"""Whether content is of the split that is being drawn for."""
_T = TypeVar("_T")


class BadMove(ValueError):
    """A move that cannot be made: told to the agent, and it costs nothing but the turn."""


@dataclass(kw_only=True, slots=True)
class GameState:
    """What every game counts."""

    moves_left: int
    is_won: bool = False


class GameEnv(ToolEnv):
    """A game with a budget of moves: 1 for winning within it, else 0.

    A game writes `draft`, `setup`, its tools and its oracle. Every tool that makes a move ends
    with `count_move`.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5)
    counted: ClassVar[str] = "Moves"
    """What the budget counts, as the agent reads it."""

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a random task, or None if the draw is no good or `belongs` refuses it."""
        raise NotImplementedError(f"{type(self).__name__} needs draft().")

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, made one by one."""
        return GeneratedTasks(
            partial(self._draw, split=split),
            name=type(self).__name__,
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def _draw(self, rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
        def belongs(content: object) -> bool:
            return split_of(content) == split

        while True:
            task = self.draft(rng, difficulty, belongs)
            if task is not None:
                return task

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> Mapping[str, float]:
        """Return 1 for a game that was won, else 0."""
        return {"won": float(cast("GameState", state).is_won)}

    def count_move(self, *, is_won: bool, lost: str | None = None) -> str:
        """Take one move from the budget; return how the game stands.

        Args:
            is_won: the move won the game.
            lost: the end reason of a game that the move lost.
        """
        state = cast("GameState", self.state)
        state.moves_left -= 1
        state.is_won = is_won
        if is_won:
            self.finish("won")
            return "You won."
        if lost is not None:
            self.finish(lost)
            return "You lost."
        if state.moves_left == 0:
            self.finish("no_moves_left")
        return f"{self.counted} left: {state.moves_left}"


def split_of(content: object) -> str:
    """Return the only split that tasks of this content can be in: 60, 20 and 20 % of all."""
    return _SPLIT_OF_DIGIT[int(digest(["games", content])[:8], 16) % len(_SPLIT_OF_DIGIT)]


def task_id(kind: str, content: object) -> str:
    """Return an id that tells tasks of different content apart, and nothing of the content."""
    return f"{kind}-{digest(content)[:16]}"


def show(rows: Sequence[Sequence[str]]) -> str:
    """Return a board as text, its cells apart so that a tokenizer keeps them apart."""
    return "\n".join(" ".join(row) for row in rows)


def canonical(rows: Sequence[str]) -> tuple[str, ...]:
    """Return the one form of a board and its mirror images and rotations."""
    forms: list[tuple[str, ...]] = []
    form = tuple(rows)
    for _ in range(4):
        forms += [form, form[::-1]]
        form = tuple("".join(column) for column in zip(*form[::-1], strict=True))
    return min(forms)


def pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    """Return a random item."""
    return items[int(rng.integers(len(items)))]
