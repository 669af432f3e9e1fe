"""Mine fields, what can be deduced about them, and fields that need no guess.

A set of cells is an integer with one bit a cell. What an open number says is a rule: "so many
mines are in this set". Alone or two together, rules name cells that are safe.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

CLOSED, FLAG, MINE = "?", "F", "*"


@dataclass(frozen=True, slots=True)
class Field:
    """Where the mines lie, and the cell that is open from the start."""

    height: int
    width: int
    mines: frozenset[int]
    first: int

    def around(self, cell: int) -> tuple[int, ...]:
        """Return the neighbours of a cell, its diagonal ones included."""
        return _neighbours(self.height, self.width)[cell]

    def number(self, cell: int) -> int:
        """Return how many mines lie around a cell."""
        return sum(other in self.mines for other in self.around(cell))

    def open(self, shown: list[str], cell: int) -> None:
        """Open a safe cell of a board; from a 0 the opening spreads. Changes `shown`."""
        waiting = [cell]
        while waiting:
            cell = waiting.pop()
            if shown[cell] != CLOSED:
                continue
            number = self.number(cell)
            shown[cell] = str(number)
            if number == 0:
                waiting += self.around(cell)

    def begin(self) -> list[str]:
        """Return the board at the start of a game, one sign a cell."""
        shown = [CLOSED] * (self.height * self.width)
        self.open(shown, self.first)
        return shown

    def is_clear(self, shown: Sequence[str]) -> bool:
        """Return whether every cell without a mine is open."""
        return sum(sign.isdigit() for sign in shown) + len(self.mines) == len(shown)


@functools.cache
def _neighbours(height: int, width: int) -> tuple[tuple[int, ...], ...]:
    """Return the neighbours of every cell of a field of this size."""
    cells = list(itertools.product(range(height), range(width)))
    return tuple(
        tuple(
            r * width + c
            for r, c in cells
            if abs(r - row) <= 1 and abs(c - column) <= 1 and (r, c) != (row, column)
        )
        for row, column in cells
    )


def safe_cells(field: Field, shown: Sequence[str], *, is_simple: bool = False) -> list[int]:
    """Return closed cells that cannot be mines, by what is shown and the number of mines.

    Flags count as closed: a player may have set them wrongly.

    Args:
        field: for its shape and how many mines it has; where they lie is not looked at.
        shown: the board as the player sees it.
        is_simple: use every number by itself; else at most two are put together. What can be
            deduced so stays deducible whatever else is opened.
    """
    rules = dict(_rules(field, shown))
    while True:
        mines, safe = _settled(rules)
        if not mines and not safe and not is_simple:
            mines, safe = _settled(_combined(rules))
        if safe:
            return [cell for cell in range(len(shown)) if safe >> cell & 1]
        if not mines:
            return []
        rules = {cells & ~mines: n - (cells & mines).bit_count() for cells, n in rules.items()}
        rules.pop(0, None)


def _settled(rules: Mapping[int, int]) -> tuple[int, int]:
    """Return the cells that single rules settle: those that are mines, those that are safe."""
    mines = safe = 0
    for cells, count in rules.items():
        if count == 0:
            safe |= cells
        elif count == cells.bit_count():
            mines |= cells
    return mines, safe


def _rules(field: Field, shown: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield what each open number says of closed cells, and the number of mines of all."""
    for cell, sign in enumerate(shown):
        if sign.isdigit():
            closed = sum(1 << other for other in field.around(cell) if not shown[other].isdigit())
            if closed:
                yield closed, int(sign)
    closed = sum(1 << cell for cell, sign in enumerate(shown) if not sign.isdigit())
    if closed:
        yield closed, len(field.mines)


def _combined(rules: Mapping[int, int]) -> dict[int, int]:
    """Return what pairs of rules say: one set within another leaves a rule for the rest."""
    found: dict[int, int] = {}
    for (one, few), (other, many) in itertools.permutations(rules.items(), 2):
        if not one & ~other:
            found[other & ~one] = many - few
    return found


def steps_to_clear(field: Field, *, is_simple: bool) -> int | None:
    """Return how many cells a player opens who always takes the first safe one; None if stuck."""
    shown = field.begin()
    steps = 0
    while not field.is_clear(shown):
        safe = safe_cells(field, shown, is_simple=is_simple)
        if not safe:
            return None
        field.open(shown, safe[0])
        steps += 1
    return steps
