"""Sokoban: push every box onto a goal; a box in a corner stays there.

    env = make("treegrpo/Sokoban-v0")
    env = make("treegrpo/Sokoban-v0", levels="levels.xsb")     # a file in the common text format

Rooms are drawn at random and their boxes pulled away from the goals, so all can be solved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from treegrpo.envs.suite.games.base import (
    STEPS,
    Belongs,
    Direction,
    GameEnv,
    GameState,
    canonical,
    pick,
    show,
    task_id,
)
from treegrpo.envs.suite.games.rooms import MAX_SEARCHED, Room, draw_room, pull_apart, solve
from treegrpo.envs.suite.games.xsb import read_levels
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

FILE_MOVES = 400
"""Moves allowed in a level from a file."""


class Level(NamedTuple):
    """A room's size inside and walls, its boxes, and the least and most pushes to solve it."""

    size: int
    walls: float
    boxes: int
    pushes: tuple[int, int]


LEVELS: Mapping[int, Level] = {
    1: Level(4, 0.1, 1, (3, 5)),
    2: Level(4, 0.1, 2, (4, 7)),
    3: Level(5, 0.15, 2, (6, 9)),
    4: Level(6, 0.2, 2, (8, 12)),
    5: Level(6, 0.15, 3, (7, 11)),
}
MIN_MOVES = 6
MAX_MOVES = 48
"""The plan of a generated level has at least MIN_MOVES and at most MAX_MOVES moves."""


@dataclass(kw_only=True, slots=True)
class SokobanState(GameState):
    """Where the boxes and the player are."""

    boxes: list[int]
    player: int


class SokobanEnv(GameEnv):
    """A room, boxes to push, and as many goals; nothing can be pulled back.

    Args:
        levels: a file of levels in the common text format; None for generated ones. A file
            serves whichever split is asked for.

    Reward: 1 for all boxes on goals within the moves, else 0.
    """

    system_prompt: ClassVar[str] = (
        "Push every box onto a goal. Wall: #, box: $, goal: ., you: @, box on goal: *, you on "
        "goal: +, floor: -. You push one box at a time and never pull."
    )
    shared: ClassVar[tuple[str, ...]] = ("_file_tasks",)

    def __init__(self, *, levels: str | Path | None = None, **settings: Any) -> None:
        """Make the environment; other settings are ToolEnv's."""
        self._file_tasks = None if levels is None else _tasks_of(Path(levels))
        self.max_turns = 100 if levels is None else FILE_MOVES
        self.max_tool_calls = self.max_turns
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, or those of the file."""
        return super().tasks(split) if self._file_tasks is None else self._file_tasks

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a room with its boxes pulled from the goals, or None."""
        level = LEVELS[difficulty]
        room = draw_room(rng, level.size, level.walls, level.boxes)
        if room is None or not belongs(canonical(room.rows())):
            return None
        low, high = level.pushes
        start = pull_apart(rng, room, int(rng.integers(low, high + 1)))
        if start is None or not MIN_MOVES <= len(start.plan) <= MAX_MOVES:
            return None
        moves = 2 * len(start.plan)
        rows = room.rows(start.boxes, start.player)
        return Task(
            id=task_id("room", rows),
            question=f"You have {moves} moves.\n{show(rows)}",
            difficulty=difficulty,
            data={
                "room": room,
                "boxes": start.boxes,
                "player": start.player,
                "plan": start.plan,
                "moves": moves,
            },
        )

    def setup(self, task: Task, rng: np.random.Generator) -> SokobanState:
        """Return the state at the start of the level."""
        data = task.data
        return SokobanState(
            moves_left=data["moves"], boxes=list(data["boxes"]), player=data["player"]
        )

    @tool(effects="write")
    def move(self, direction: Direction) -> str:
        """Move one cell, pushing a box that is in the way.

        Args:
            direction: where to.
        """
        room, state = self._room, self._position
        before = state.player
        boxes, state.player = room.move(state.boxes, state.player, direction)
        state.boxes = list(boxes)
        blocked = "Blocked.\n" if state.player == before else ""
        stands = self.count_move(is_won=room.goals.issuperset(boxes))
        return f"{blocked}{show(room.rows(boxes, state.player))}\n{stands}"

    @property
    def _room(self) -> Room:
        return cast("Room", self.task.data["room"])

    @property
    def _position(self) -> SokobanState:
        return cast("SokobanState", self.state)

    def oracle(self) -> str:
        """Return the next move of the level's plan or, off the plan, of a search from here.

        In a dead end no move helps, and it moves up.

        Raises:
            NotImplementedError: the search finds no plan for a level from a file.
        """
        data, room, state = self.task.data, self._room, self._position
        boxes, player = data["boxes"], data["player"]
        here = (tuple(state.boxes), state.player)
        for direction in data["plan"] or _plan_for(self.task.id, room, boxes, player):
            if (boxes, player) == here:
                return self.encode_call("move", direction=direction)
            boxes, player = room.move(boxes, player, direction)
        moves = solve(room, *here) or ("up",)
        return self.encode_call("move", direction=moves[0])

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a move in a random direction."""
        if rng.random() < 0.2:
            return super().sample_action(rng)
        return self.encode_call("move", direction=pick(rng, tuple(STEPS)))


def _plan_for(
    task_id: str, room: Room, boxes: tuple[int, ...], player: int
) -> tuple[Direction, ...]:
    """Return moves that solve a level from its start."""
    plan = solve(room, boxes, player)
    if plan is None:
        raise NotImplementedError(
            f"The oracle was asked for '{task_id}'; the first {MAX_SEARCHED:,} positions hold no "
            "solution. Leave the level out, or let another agent play it."
        )
    return plan


def _tasks_of(path: Path) -> tuple[Task, ...]:
    """Return the tasks of a level file."""
    tasks: list[Task] = []
    for number, level in enumerate(read_levels(path), start=1):
        rows = level.room.rows(level.boxes, level.player)
        tasks.append(
            Task(
                id=task_id(f"level-{number}", rows),
                question=f"You have {FILE_MOVES} moves.\n{show(rows)}",
                data={
                    "room": level.room,
                    "boxes": level.boxes,
                    "player": level.player,
                    "plan": (),
                    "moves": FILE_MOVES,
                },
            )
        )
    return tuple(tasks)
