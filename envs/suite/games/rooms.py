"""Sokoban rooms: what can be pushed where, rooms drawn at random, and a search for solutions.

A cell is a number, row * width + column; the outer cells are walls, so a step never leaves the
room. Positions that differ only in where the player stands among cells he can walk to count
as one.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from treegrpo.envs.suite.games.base import STEPS, Direction, pick

MAX_SEARCHED = 20_000
"""Positions after which a search for a solution is given up."""
_BEAM = 12
_MIRRORED: Mapping[Direction, Direction] = {
    "up": "down",
    "down": "up",
    "left": "right",
    "right": "left",
}
Walks = dict[int, tuple[int, Direction] | None]
"""Every cell that can be walked to, with the cell and the step that lead there."""
Position = tuple[int, tuple[int, ...]]
"""The first cell of the region that the player can walk in, and the boxes."""
Push = tuple[int, Direction]
"""The cell that a box is pushed from, and where to."""
Layer = dict[Position, tuple[Push, ...]]
"""Positions, each with pushes that solve it."""


@dataclass(frozen=True, slots=True)
class Room:
    """The walls and the goals of a room."""

    height: int
    width: int
    walls: frozenset[int]
    goals: frozenset[int]

    def step(self, cell: int, direction: Direction) -> int:
        """Return the cell that lies in a direction."""
        down, right = STEPS[direction]
        return cell + down * self.width + right

    def rows(self, boxes: Sequence[int] = (), player: int | None = None) -> list[str]:
        """Return the room as rows in the common signs: # wall, $ box, . goal, @ player, - floor.

        A box on a goal is *, the player on a goal is +.
        """
        signs: list[str] = []
        for cell in range(self.height * self.width):
            is_goal = cell in self.goals
            if cell in self.walls:
                signs.append("#")
            elif cell == player:
                signs.append("+" if is_goal else "@")
            elif cell in boxes:
                signs.append("*" if is_goal else "$")
            else:
                signs.append("." if is_goal else "-")
        text = "".join(signs)
        return [text[start : start + self.width] for start in range(0, len(text), self.width)]

    def move(
        self, boxes: Sequence[int], player: int, direction: Direction
    ) -> tuple[tuple[int, ...], int]:
        """Return boxes and player after a move; both as they were if it is blocked."""
        there = self.step(player, direction)
        beyond = self.step(there, direction) if there in boxes else there
        if there in self.walls or (there in boxes and (beyond in self.walls or beyond in boxes)):
            return tuple(boxes), player
        return tuple(sorted(beyond if box == there else box for box in boxes)), there

    def walks(self, boxes: Sequence[int], start: int) -> Walks:
        """Return every cell that the player can walk to, pushing nothing."""
        found: Walks = {start: None}
        closed = self.walls.union(boxes)
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            for direction, (down, right) in STEPS.items():
                there = cell + down * self.width + right
                if there not in found and there not in closed:
                    found[there] = (cell, direction)
                    queue.append(there)
        return found


class Start(NamedTuple):
    """Where a game begins, and moves that solve it."""

    boxes: tuple[int, ...]
    player: int
    plan: tuple[Direction, ...]


def draw_room(rng: np.random.Generator, size: int, density: float, num_goals: int) -> Room | None:
    """Return a random room with all its floor in one piece, or None if there is too little.

    Args:
        rng: the source of chance.
        size: rows and columns of the inside.
        density: the share of the inside that becomes wall.
        num_goals: how many goals, which is how many boxes.
    """
    width = size + 2
    inside = [(r + 1) * width + c + 1 for r in range(size) for c in range(size)]
    filled = rng.random(len(inside)) < density
    floor = [cell for cell, is_wall in zip(inside, filled.tolist(), strict=True) if not is_wall]
    if not floor:
        return None
    walls = frozenset(range(width * width)) - frozenset(floor)
    piece = sorted(Room(width, width, walls, frozenset()).walks((), pick(rng, floor)))
    if len(piece) < 4 * num_goals or len(piece) < len(inside) // 2:
        return None
    goals = frozenset(int(cell) for cell in rng.permutation(piece)[:num_goals])
    return Room(width, width, frozenset(range(width * width)) - frozenset(piece), goals)


def pull_apart(rng: np.random.Generator, room: Room, num_pulls: int) -> Start | None:
    """Return a start from which `num_pulls` pushes solve the room, or None.

    Boxes are pulled from the goals, some ways at a time, so every position met can be solved.
    """
    layer = _solved_positions(room)
    seen = set(layer)
    for _ in range(num_pulls):
        further: Layer = {}
        for (region, boxes), pushes in layer.items():
            for position, push in _pulls(room, boxes, region):
                if position not in seen:
                    seen.add(position)
                    further[position] = (push, *pushes)
        found = list(further.items())
        layer = dict(found[int(i)] for i in rng.permutation(len(found))[:_BEAM])
    fitting = [(key, pushes) for key, pushes in layer.items() if not room.goals & set(key[1])]
    if not fitting:
        return None
    (region, boxes), pushes = pick(rng, fitting)
    player = pick(rng, sorted(room.walks(boxes, region)))
    return Start(boxes, player, _walked(room, boxes, player, pushes))


def _solved_positions(room: Room) -> Layer:
    """Return the positions with every box on a goal: one for each piece of floor left."""
    goals = tuple(sorted(room.goals))
    floor = set(range(room.height * room.width)) - room.walls - room.goals
    found: Layer = {}
    while floor:
        piece = set(room.walks(goals, min(floor)))
        found[min(piece), goals] = ()
        floor -= piece
    return found


def _pulls(room: Room, boxes: tuple[int, ...], region: int) -> Iterator[tuple[Position, Push]]:
    """Yield the position after each possible pull, and the push that undoes it."""
    reach = room.walks(boxes, region)
    for box in boxes:
        for direction in STEPS:
            near = room.step(box, direction)
            if near not in reach:
                continue
            far = room.step(near, direction)
            if far in room.walls or far in boxes:
                continue
            others = tuple(sorted(near if other == box else other for other in boxes))
            yield (min(room.walks(others, far)), others), (near, _MIRRORED[direction])


def _walked(
    room: Room, boxes: tuple[int, ...], player: int, pushes: Sequence[Push]
) -> tuple[Direction, ...]:
    """Return the moves of a player who walks to each push and makes it."""
    moves: list[Direction] = []
    for box, direction in pushes:
        walks = room.walks(boxes, player)
        moves += _way(walks, room.step(box, _MIRRORED[direction]))
        moves.append(direction)
        boxes, player = room.move(boxes, room.step(box, _MIRRORED[direction]), direction)
    return tuple(moves)


def _way(walks: Walks, cell: int) -> list[Direction]:
    """Return the steps that lead to a cell."""
    steps: list[Direction] = []
    while (before := walks[cell]) is not None:
        cell, direction = before
        steps.append(direction)
    return steps[::-1]


@functools.lru_cache(maxsize=256)
def solve(room: Room, boxes: tuple[int, ...], player: int) -> tuple[Direction, ...] | None:
    """Return moves that solve a position with the fewest pushes, or None if none were found.

    The search is given up after MAX_SEARCHED positions; below that None means a dead end.
    """
    live = _live_cells(room)
    start = (boxes, player)
    queue: deque[tuple[tuple[int, ...], int, tuple[Push, ...]]] = deque()
    queue.append((*start, ()))
    seen = {(start[0], min(room.walks(*start)))}
    while queue and len(seen) < MAX_SEARCHED:
        boxes, player, pushes = queue.popleft()
        if room.goals.issuperset(boxes):
            return _walked(room, *start, pushes)
        reach = room.walks(boxes, player)
        for box in boxes:
            for direction in STEPS:
                behind = room.step(box, _MIRRORED[direction])
                if behind not in reach or room.step(box, direction) not in live:
                    continue
                after, stands = room.move(boxes, behind, direction)
                position = (after, min(room.walks(after, stands)))
                if stands != behind and position not in seen:
                    seen.add(position)
                    queue.append((after, stands, (*pushes, (box, direction))))
    return None


def _live_cells(room: Room) -> set[int]:
    """Return the cells from which a box alone in the room can be pushed to a goal."""
    live = set(room.goals)
    queue = deque(room.goals)
    while queue:
        cell = queue.popleft()
        for direction in STEPS:
            before = room.step(cell, direction)
            if before in room.walls or before in live:
                continue
            if room.step(before, direction) not in room.walls:
                live.add(before)
                queue.append(before)
    return live
