"""A share of the questions begins part of the way along the oracle's trajectory.

A long task that the policy never solves teaches nothing: all its leaves are worth the same.
Near the end of the oracle's way the same policy succeeds now and then, and learns from there
backwards.

Source: a study of forks with exact gradients: half of the episodes at reset and half at a
uniform depth of an oracle's trajectory reach 90 % success 3 to 8 times sooner where a policy
succeeds in 0.1 % of episodes, and 0.8 times as soon where it succeeds in 5 %. So it is on below
1 % and off above 5 %, per difficulty. Differences: (1) whole questions are divided, not episodes,
so that all trees of a question begin alike; (2) depth 0 is not drawn, since the other half
begins there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import gymnasium
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import SandboxFailed, TreegrpoError
from treegrpo.envs.snapshot import core_of, restore, snapshot
from treegrpo.rollout.expansion.options import STRICT
from treegrpo.rollout.starts.base import StartState, Turn, start_state
from treegrpo.tree import Tree

MAX_UNSOLVED = 20
"""Questions that an oracle may leave unsolved before it has solved its first."""


class OracleOptions(BaseModel):
    """Options of `oracle_prefix`."""

    model_config = STRICT

    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the questions that begin along the oracle's trajectory, while it is on."""
    on_below: float = Field(default=0.01, ge=0, le=1)
    """Success rate of episodes begun at reset below which it is switched on."""
    off_above: float = Field(default=0.05, ge=0, le=1)
    """Success rate above which it is switched off; in between it stays as it is."""
    window: int = Field(default=1_000, ge=1)
    """Episodes that the success rate is averaged over; older ones fade."""
    min_episodes: int = Field(default=50, ge=1)
    """Episodes of a difficulty before its rate is believed; until then it is on."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.on_below > self.off_above:
            raise ValueError(
                f"on_below={self.on_below} is above off_above={self.off_above}; allowed: at most it"
            )
        return self


class Level(BaseModel):
    """What is known of one difficulty."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seen: int = 0
    """Episodes begun at reset."""
    episodes: float = 0.0
    """The same where those of earlier steps have faded."""
    successes: float = 0.0
    """The solved ones among the faded."""
    is_on: bool = True


class Learned(BaseModel):
    """All that `oracle_prefix` keeps."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    threshold: float = ToolEnv.success_threshold
    """Episode reward from which the environment counts an episode as solved."""
    solved: int = 0
    """Trajectories in which the oracle solved its question."""
    unsolved: int = 0
    """Those in which it did not; the question then begins at its reset."""
    levels: dict[int, Level] = Field(default_factory=dict[int, Level])


@start_state("oracle_prefix")
class OraclePrefix(StartState):
    """Begins at a depth drawn uniformly from 1 to T - 1, where the oracle needs T turns.

    The oracle plays on the environment itself, with the question's own randomness, and a
    snapshot is taken back to. Its turns and tool calls count against the episode's budgets. An
    oracle that needs one turn leaves nothing in between: its questions begin at reset.
    Cost: an episode of the environment and about log(T) snapshots for each such question.
    """

    def __init__(self, **options: JsonValue) -> None:
        self._options = self._read(OracleOptions, options)
        self._learned = Learned()

    def begin(
        self, env: gymnasium.Env[str, str], question_seed: int, rng: np.random.Generator
    ) -> list[Turn]:
        """Return the oracle's turns up to the depth that was drawn; [] for the reset.

        Raises:
            TreegrpoError: the oracle raises, or has solved nothing at all so far.
        """
        core = core_of(env)
        self._learned.threshold = float(core.success_threshold)
        if rng.random() >= self._options.share or not self.is_on(core.task.difficulty):
            return []
        return self._walk(env, core, rng)

    def observe(self, questions: Sequence[Sequence[Tree]]) -> None:
        """Count the episodes begun at reset, and switch each difficulty on or off."""
        rewards: defaultdict[int, list[float]] = defaultdict(list)
        for tree in (tree for question in questions for tree in question):
            if tree.start == "reset":
                rewards[tree.difficulty] += map(tree.episode_reward, tree.scored_leaves())
        for difficulty, found in rewards.items():
            if found:
                self._count(self._learned.levels.setdefault(difficulty, Level()), found)

    def is_on(self, difficulty: int) -> bool:
        """Return whether a share of the questions of a difficulty begins along the way."""
        return self._learned.levels.get(difficulty, Level()).is_on

    def state(self) -> JsonValue:
        """Return the counts by difficulty and the switches."""
        return self._learned.model_dump(mode="json")

    def load(self, state: JsonValue) -> None:
        """Go on from these counts and switches."""
        self._learned = self._restored(Learned, state)

    def _count(self, level: Level, rewards: list[float]) -> None:
        """Let the episodes so far fade by as many as are new, add those, and switch."""
        options = self._options
        level.seen += len(rewards)
        kept = (1 - 1 / options.window) ** len(rewards)
        level.episodes = level.episodes * kept + len(rewards)
        solved = sum(reward >= self._learned.threshold for reward in rewards)
        level.successes = level.successes * kept + solved
        if level.seen < options.min_episodes:
            return
        rate = level.successes / level.episodes
        if rate < options.on_below:
            level.is_on = True
        elif rate > options.off_above:
            level.is_on = False

    def _walk(
        self, env: gymnasium.Env[str, str], core: ToolEnv, rng: np.random.Generator
    ) -> list[Turn]:
        """Let the oracle play to the end, then go back to a depth on its way.

        The depth is drawn without knowing the length: the t-th state is kept with chance 1/t in
        place of the one kept before.
        """
        reset = kept = snapshot(env)
        turns: list[Turn] = []
        depth, ended, is_solved = 0, False, False
        while not ended:
            action = _oracle_action(core)
            _, _, terminated, truncated, info = env.step(action)
            turns.append(Turn(action, info["messages"]))
            ended, is_solved = terminated or truncated, bool(info["success"])
            if not ended and rng.integers(len(turns)) == 0:
                kept, depth = snapshot(env), len(turns)
        if not self._note(is_solved, core):
            kept, depth = reset, 0
        restore(env, kept)
        return turns[:depth]

    def _note(self, is_solved: bool, core: ToolEnv) -> bool:
        """Count a trajectory; return whether it solved the question."""
        self._learned.solved += is_solved
        self._learned.unsolved += not is_solved
        if self._learned.solved == 0 and self._learned.unsolved >= MAX_UNSOLVED:
            raise TreegrpoError(
                f"Start state 'oracle_prefix' asked for, but the oracle of {_env_id(core)} solved "
                f"none of {MAX_UNSOLVED} questions. Correct it, give it enough turns, or use "
                "the start state 'reset'."
            )
        return is_solved


def _oracle_action(core: ToolEnv) -> str:
    try:
        return core.oracle()
    except SandboxFailed:
        raise
    except Exception as error:  # an author's oracle may raise anything
        raise TreegrpoError(
            f"Start state 'oracle_prefix' asked for, but the oracle of {_env_id(core)} gave no "
            f"action ({type(error).__name__}: {error}). Give the environment an oracle(), or use "
            "the start state 'reset'."
        ) from error


def _env_id(core: ToolEnv) -> str:
    return core.spec.id if core.spec is not None else type(core).__qualname__
