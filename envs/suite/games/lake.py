"""Lakes of ice, snow and holes, and the exact chances of crossing them.

Value iteration over (moves left, cell): the best chance of reaching the goal and, among moves
of equal chance, the one that ends soonest on average.

Shapes: C cells, A directions (4), 3 outcomes of a move.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treegrpo.envs.suite.games.base import STEPS, Direction

SNOW, ICE, HOLE, GOAL = "-", "~", "O", "G"
_DIRECTIONS: tuple[Direction, ...] = tuple(STEPS)
_SIDES: dict[Direction, tuple[Direction, Direction]] = {
    "up": ("left", "right"),
    "down": ("left", "right"),
    "left": ("up", "down"),
    "right": ("up", "down"),
}
_DIGITS = 9
"""Chances that agree to so many digits are equal: what is left is rounding."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lake:
    """The ground by rows, the chance that a move on ice goes astray, and the moves allowed.

    A game begins in the first cell, the goal is the last one.
    """

    rows: tuple[str, ...]
    slip: float
    moves: int

    def step(self, row: int, column: int, direction: Direction) -> tuple[int, int]:
        """Return the cell that lies in a direction; at the edge the same cell."""
        down, right = STEPS[direction]
        row, column = row + down, column + right
        height, width = len(self.rows), len(self.rows[0])
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    def sides(self, direction: Direction) -> tuple[Direction, Direction]:
        """Return the two directions in which a move can slip."""
        return _SIDES[direction]


@dataclass(frozen=True, slots=True)
class Plan:
    """The best play of a lake: the directions by moves left and cell, and its chance."""

    choices: tuple[tuple[int, ...], ...]
    width: int
    chance: float

    def direction(self, row: int, column: int, moves_left: int) -> Direction:
        """Return the best direction from a cell with so many moves left."""
        return _DIRECTIONS[self.choices[moves_left - 1][row * self.width + column]]


@functools.lru_cache(maxsize=32)
def plan(lake: Lake) -> Plan:
    """Return the best play of a lake from the upper left, by value iteration."""
    targets_AC3, weights_AC3 = _outcomes(lake)
    chance_C, moves_C, stops_C = _at_rest(lake)
    choices: list[tuple[int, ...]] = []
    cells = np.arange(len(chance_C))
    for _ in range(lake.moves):
        chance_AC: Floats = (chance_C[targets_AC3] * weights_AC3).sum(axis=2)
        moves_AC: Floats = 1 + (moves_C[targets_AC3] * weights_AC3).sum(axis=2)
        rounded_AC = chance_AC.round(_DIGITS)
        is_worse_AC = rounded_AC < rounded_AC.max(axis=0)
        best_C = np.where(is_worse_AC, np.inf, moves_AC.round(_DIGITS)).argmin(axis=0)
        chance_C = np.where(stops_C, chance_C, chance_AC[best_C, cells])
        moves_C = np.where(stops_C, 0.0, moves_AC[best_C, cells])
        choices.append(tuple(best_C.tolist()))
    return Plan(tuple(choices), len(lake.rows[0]), float(chance_C[0]))


def careless_chance(lake: Lake) -> float:
    """Return how often it succeeds to take a shortest way from every cell, as if nothing slipped.

    0 where no way leads from the upper left to the goal.
    """
    distance_C = _distances(lake)
    if not np.isfinite(distance_C[0]):
        return 0.0
    targets_AC3, weights_AC3 = _outcomes(lake)
    chance_C, _, stops_C = _at_rest(lake)
    cells = np.arange(len(chance_C))
    way_C = distance_C[targets_AC3[:, :, 0]].argmin(axis=0)
    targets_C3, weights_C3 = targets_AC3[way_C, cells], weights_AC3[way_C, cells]
    for _ in range(lake.moves):
        chance_C = np.where(stops_C, chance_C, (chance_C[targets_C3] * weights_C3).sum(axis=1))
    return float(chance_C[0])


def _outcomes(lake: Lake) -> tuple[Ints, Floats]:
    """Return the three cells a move can end in (as meant, either side) and their chances."""
    targets_AC3 = _targets(len(lake.rows), len(lake.rows[0]))
    on_ice = (1 - lake.slip, lake.slip / 2, lake.slip / 2)
    weights_C3 = np.array([on_ice if cell == ICE else (1.0, 0.0, 0.0) for cell in _flat(lake)])
    return targets_AC3, np.broadcast_to(weights_C3, targets_AC3.shape)


@functools.cache
def _targets(height: int, width: int) -> Ints:
    """Return the cells in which a move can end on a lake of this size; never changed."""
    empty = Lake((SNOW * width,) * height, 0.0, 0)
    cells = [(row, column) for row in range(height) for column in range(width)]

    def ends(cell: tuple[int, int], directions: Sequence[Direction]) -> list[int]:
        there = [empty.step(*cell, way) for way in directions]
        return [row * width + column for row, column in there]

    return np.array([[ends(cell, (way, *_SIDES[way])) for cell in cells] for way in _DIRECTIONS])


def _at_rest(lake: Lake) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return each cell's chance and moves to go with no move left, and where a game stops."""
    ground = _flat(lake)
    chance_C = np.array([float(cell == GOAL) for cell in ground])
    return chance_C, np.zeros(len(ground)), np.array([cell in (GOAL, HOLE) for cell in ground])


def _distances(lake: Lake) -> Floats:
    """Return the steps from each cell to the goal around the holes; infinite where none lead."""
    ground = _flat(lake)
    neighbours_C4 = _targets(len(lake.rows), len(lake.rows[0]))[:, :, 0].T.tolist()
    distances = [math.inf] * len(ground)
    distances[-1] = 0
    queue = deque([len(ground) - 1])
    while queue:
        cell = queue.popleft()
        for there in neighbours_C4[cell]:
            if distances[there] == math.inf and ground[there] != HOLE:
                distances[there] = distances[cell] + 1
                queue.append(there)
    return np.array(distances)


def _flat(lake: Lake) -> str:
    return "".join(lake.rows)
