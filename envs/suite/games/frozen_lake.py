"""FrozenLake: cross a lake where ice makes a step go astray and a hole ends the game.

    env = make("treegrpo/FrozenLake-v0")

On snow a move goes where it should. On ice it goes to one of the two sides at times, by the
environment's own generator: two forks with seeds of their own slip differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import numpy as np

from treegrpo.envs.suite.games.base import (
    Belongs,
    Direction,
    GameEnv,
    GameState,
    canonical,
    show,
    task_id,
)
from treegrpo.envs.suite.games.lake import GOAL, HOLE, ICE, SNOW, Lake, careless_chance, plan
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

LEAST_CHANCE = 0.999
"""The least chance of success that the best play of a lake has: the oracle's ceiling."""


class Level(NamedTuple):
    """A lake's size, what it is made of, how slippery it is, and when it is worth crossing.

    slip: the chance that a move on ice goes astray.
    careless: the most that always taking a shortest way may succeed.
    """

    size: int
    holes: float
    ice: float
    slip: float
    careless: float
    moves: int


LEVELS: Mapping[int, Level] = {
    1: Level(4, 0.3, 0.3, 0.2, 0.9, 10),
    2: Level(5, 0.25, 0.35, 0.3, 0.85, 16),
    3: Level(6, 0.2, 0.4, 0.4, 0.7, 26),
    4: Level(7, 0.2, 0.4, 0.5, 0.6, 36),
    5: Level(8, 0.2, 0.4, 0.6, 0.5, 48),
}


@dataclass(kw_only=True, slots=True)
class FrozenLakeState(GameState):
    """Where the agent stands."""

    row: int = 0
    column: int = 0


class FrozenLakeEnv(GameEnv):
    """Walk from the upper left to the goal in the lower right without falling into a hole.

    Reward: 1 for reaching the goal within the moves, else 0.
    """

    system_prompt: ClassVar[str] = (
        f"Walk to the goal. You: @, snow: {SNOW}, ice: {ICE}, hole: {HOLE}, goal: {GOAL}. On ice "
        "a move can slip to one of its two sides. A hole ends the game. The edge holds you back."
    )
    max_turns: int = 64
    max_tool_calls: int = 64

    def draft(self, rng: np.random.Generator, difficulty: int, belongs: Belongs) -> Task | None:
        """Return a lake that careful play crosses and careless play often does not, or None."""
        level = LEVELS[difficulty]
        odds = (level.holes, level.ice, 1 - level.holes - level.ice)
        ground = rng.choice([HOLE, ICE, SNOW], size=(level.size, level.size), p=odds)
        ground[0, 0], ground[-1, -1] = SNOW, GOAL
        rows = tuple("".join(map(str, row)) for row in ground.tolist())
        if not belongs(canonical(rows)):
            return None
        lake = Lake(rows, level.slip, level.moves)
        # The careless walk is the cheaper one to judge; it is 0 where there is no way at all.
        if not 0 < careless_chance(lake) <= level.careless:
            return None
        if plan(lake).chance < LEAST_CHANCE:
            return None
        return Task(
            id=task_id("lake", rows),
            question=f"On ice {round(100 * level.slip)} of 100 moves slip. "
            f"You have {level.moves} moves.\n{picture(lake, 0, 0)}",
            difficulty=difficulty,
            data={"lake": lake},
        )

    def setup(self, task: Task, rng: np.random.Generator) -> FrozenLakeState:
        """Return the state at the upper left."""
        return FrozenLakeState(moves_left=self._lake_of(task).moves)

    @tool(effects="write")
    def move(self, direction: Direction) -> str:
        """Move one cell.

        Args:
            direction: where to.
        """
        lake, state = self._lake_of(self.task), cast("FrozenLakeState", self.state)
        went = direction
        if lake.rows[state.row][state.column] == ICE:
            draw = float(self.np_random.random())
            if draw < lake.slip:
                went = lake.sides(direction)[draw < lake.slip / 2]
        state.row, state.column = lake.step(state.row, state.column, went)
        ground = lake.rows[state.row][state.column]
        fell = "fell_into_a_hole" if ground == HOLE else None
        stands = self.count_move(is_won=ground == GOAL, lost=fell)
        slipped = "" if went == direction else f"You slipped: {went}.\n"
        return f"{slipped}{picture(lake, state.row, state.column)}\n{stands}"

    def oracle(self) -> str:
        """Return the move with the best chance of reaching the goal, the shorter one of equals."""
        state = cast("FrozenLakeState", self.state)
        lake = self._lake_of(self.task)
        direction = plan(lake).direction(state.row, state.column, state.moves_left)
        return self.encode_call("move", direction=direction)

    def _lake_of(self, task: Task) -> Lake:
        return cast("Lake", task.data["lake"])


def picture(lake: Lake, row: int, column: int) -> str:
    """Return the lake as text with the agent in its place."""
    rows = [list(cells) for cells in lake.rows]
    rows[row][column] = "@"
    return show(rows)
