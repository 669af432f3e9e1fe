"""Minesweeper: open every cell without a mine; one wrong cell ends the game.

    env = make("treegrpo/Minesweeper-v0")

The first cell is open from the start, and from there every field can be cleared by deduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import numpy as np

from treegrpo.envs.suite.games.base import (
    BadMove,
    Belongs,
    GameEnv,
    GameState,
    canonical,
    show,
    task_id,
)
from treegrpo.envs.suite.games.mines import CLOSED, FLAG, MINE, Field, safe_cells, steps_to_clear
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

SPARE_MOVES = 4


class Level(NamedTuple):
    """A field's size and mines, the cells to open at least, and how hard it may be.

    is_simple: each number by itself suffices; else two must be put together at times.
    """

    size: int
    mines: int
    steps: int
    is_simple: bool


LEVELS: Mapping[int, Level] = {
    1: Level(5, 4, 4, True),
    2: Level(6, 7, 6, True),
    3: Level(6, 8, 8, False),
    4: Level(7, 11, 10, False),
    5: Level(8, 14, 12, False),
}


@dataclass(kw_only=True, slots=True)
class MinesweeperState(GameState):
    """The board as the agent sees it, one sign a cell."""

    shown: list[str]


class MinesweeperEnv(GameEnv):
    """A field of mines that can be cleared without a guess.

    Reward: 1 for opening every cell without a mine, else 0.
    """

    system_prompt: ClassVar[str] = (
        "Open every cell that has no mine. A number says how many mines are among the up to "
        f"eight cells around it. {CLOSED} is closed, {FLAG} your flag. Opening a mine ends the "
        "game."
    )
    max_turns: int = 72
    max_tool_calls: int = 72

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a field that is cleared by deduction from its first cell, or None."""
        level = LEVELS[difficulty]
        cells = [int(cell) for cell in rng.permutation(level.size**2)[: level.mines + 1]]
        field = Field(level.size, level.size, frozenset(cells[1:]), cells[0])
        if not belongs(canonical(_drawn(field))):
            return None
        steps = steps_to_clear(field, is_simple=level.is_simple)
        if steps is None or steps < level.steps:
            return None
        if not level.is_simple and steps_to_clear(field, is_simple=True) is not None:
            return None
        moves = steps + level.mines + SPARE_MOVES
        return Task(
            id=task_id("mines", _drawn(field)),
            question=f"{level.mines} mines, {moves} moves.\n{picture(field, field.begin())}",
            answer=tuple(sorted(field.mines)),
            difficulty=difficulty,
            data={"field": field, "moves": moves},
        )

    def setup(self, task: Task, rng: np.random.Generator) -> MinesweeperState:
        """Return the state with the first cell open."""
        field = cast("Field", task.data["field"])
        return MinesweeperState(moves_left=task.data["moves"], shown=field.begin())

    @tool(effects="write")
    def reveal(self, row: int, column: int) -> str:
        """Open a cell.

        Args:
            row: counted from 1, from the top.
            column: counted from 1, from the left.
        """
        field, state, cell = self._field, self._board, self._cell(row, column)
        if state.shown[cell] != CLOSED:
            what = "has your flag; take it off first" if state.shown[cell] == FLAG else "is open"
            raise BadMove(f"row {row}, column {column} {what}.")
        if cell in field.mines:
            state.shown[cell] = MINE
            stands = self.count_move(is_won=False, lost="mine")
        else:
            field.open(state.shown, cell)
            stands = self.count_move(is_won=field.is_clear(state.shown))
        return f"{picture(field, state.shown)}\n{stands}"

    @tool(effects="write")
    def flag(self, row: int, column: int) -> str:
        """Set a flag on a closed cell, or take it off.

        Args:
            row: counted from 1, from the top.
            column: counted from 1, from the left.
        """
        state, cell = self._board, self._cell(row, column)
        if state.shown[cell] not in (CLOSED, FLAG):
            raise BadMove(f"row {row}, column {column} is open; only closed cells take a flag.")
        state.shown[cell] = CLOSED if state.shown[cell] == FLAG else FLAG
        stands = self.count_move(is_won=False)
        return f"{picture(self._field, state.shown)}\n{stands}"

    @property
    def _field(self) -> Field:
        return cast("Field", self.task.data["field"])

    @property
    def _board(self) -> MinesweeperState:
        return cast("MinesweeperState", self.state)

    def _cell(self, row: int, column: int) -> int:
        height, width = self._field.height, self._field.width
        if not (1 <= row <= height and 1 <= column <= width):
            raise BadMove(
                f"row {row:.6g}, column {column:.6g} asked for; the field has rows 1 to {height} "
                f"and columns 1 to {width}."
            )
        return (row - 1) * width + column - 1

    def oracle(self) -> str:
        """Return the opening of a cell that is safe by what the board shows.

        A flag on such a cell is taken off first.
        """
        field, shown = self._field, self._board.shown
        cell = safe_cells(field, shown)[0]
        row, column = divmod(cell, field.width)
        name = "flag" if shown[cell] == FLAG else "reveal"
        return self.encode_call(name, row=row + 1, column=column + 1)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a cell of the field."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        name = "flag" if rng.random() < 0.2 else "reveal"
        row, column = (int(rng.integers(self._field.height)) + 1 for _ in range(2))
        return self.encode_call(name, row=row, column=column)


def picture(field: Field, shown: list[str]) -> str:
    """Return the board with the numbers of its rows and columns."""
    numbers = [str(number + 1) for number in range(max(field.height, field.width))]
    width = field.width
    rows = [["+", *numbers[:width]]]
    rows += [[numbers[r], *shown[r * width : (r + 1) * width]] for r in range(field.height)]
    return show(rows)


def _drawn(field: Field) -> list[str]:
    """Return the field as rows of signs: mines, the first cell, the rest."""
    signs = [MINE if cell in field.mines else "-" for cell in range(field.height * field.width)]
    signs[field.first] = "o"
    text = "".join(signs)
    return [text[start : start + field.width] for start in range(0, len(text), field.width)]
