"""Any Gymnasium environment with discrete or text actions, as a tool environment.

    env = GymnasiumEnv(game="FrozenLake-v1", options={"is_slippery": False})
    env = GymnasiumEnv(game="Taxi-v4", max_turns=30)

The one tool is `act`. How a fork is made is chosen by the environment (see keepers.py):
toy-text is copied, Arcade games are cloned, every other one is replayed from its seed and its
actions, each observation compared, and refused where they differ.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.adapters.keepers import (
    KEEPERS,
    Recipe,
    Saved,
    Turn,
    choose_keeper,
    keeper_of,
)
from treegrpo.envs.adapters.spelling import ACTION_NAMES, ActionWords
from treegrpo.envs.adapters.tabular import best_actions
from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.snapshot import Snapshot
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task
from treegrpo.envs.tools import tool

DEFAULT_TURNS = 100
REWARDS = ("solved", "return")
_SOLVED_AT: Mapping[str, float] = {"TaxiEnv": 1.0, "CliffWalkingEnv": -50.0, "FrozenLakeEnv": 1.0}
_SHARES = 5
_NUM_SEEDS: int = 2**31


class GymnasiumEnv(ToolEnv):
    """A Gymnasium environment that is played through the tool `act`.

    Args:
        game: its id.
        options: its options.
        actions: names of its actions in order; toy-text environments have theirs.
        snapshots: "copy", "clone" or "replay"; by default what suits it.
        max_turns: how many actions there are; by default its own limit, or 100.
        reward: "solved" (1 if the game ended by itself with a return of `solved_at`, else 0)
            or "return" (the sum of its rewards; note that an agent that never acts gets 0).
        solved_at: the return from which it counts as solved; by default its own threshold.

    A task is the seed of the game's reset; its digest decides the split. A game without
    randomness at its start has one start only, the same in every split.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    system_prompt: ClassVar[str] = "Play the game: one call of act per turn."

    def __init__(
        self,
        *,
        game: str = "FrozenLake-v1",
        options: Mapping[str, Any] | None = None,
        actions: Sequence[str] | None = None,
        snapshots: str | None = None,
        max_turns: int | None = None,
        reward: str = "solved",
        solved_at: float | None = None,
        **settings: Any,
    ) -> None:
        """Make one game to look at; other settings are ToolEnv's."""
        _require_choice("reward", reward, REWARDS)
        recipe = Recipe(game, json.dumps(dict(options or {}), sort_keys=True))
        look = _look_at(recipe)
        kind = snapshots or look.keeper
        _require_choice("snapshots", kind, tuple(KEEPERS))
        self.game, self.reward = game, reward
        self.solved_at = look.solved_at if solved_at is None else solved_at
        self.max_turns = self.max_tool_calls = max_turns or look.max_turns
        self._recipe, self._keeper = recipe, keeper_of(recipe, kind)
        self._words = ActionWords(look.space, actions or look.names, game)
        if reward == "return":
            vars(self)["success_threshold"] = self.solved_at  # of this object, not of the class
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, made one by one."""
        return GeneratedTasks(
            lambda rng, level: self._make_task(rng, level, split),
            name=f"Gymnasium/{self._recipe.game}/{self._recipe.options}",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def _make_task(self, rng: np.random.Generator, difficulty: int, split: str) -> Task:
        while True:
            seed = int(rng.integers(_NUM_SEEDS))
            if _split_of(seed) == split:
                question = f"Play {self.game}. {self._words.describe()}"
                return Task(f"{self.game}-{seed}", question, None, difficulty, {"seed": seed})

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the state after the game's reset."""
        saved, turn = self._keeper.start(task.data["seed"])
        return {"saved": saved, "shown": turn.text, "return": 0.0, "over": False}

    def prompt(self, task: Task) -> str:
        """Return the rules and the first observation."""
        return f"{task.question}\n{self.state['shown']}"

    @tool(effects="write")
    def act(self, action: int | str) -> str:
        """Take one action in the game.

        Args:
            action: one of the actions that the task names.
        """
        wanted = self._words.read(action)
        state = self.state
        saved, turn = self._keeper.act(state["saved"], wanted, self.np_random)
        state["saved"], state["shown"] = saved, turn.text
        state["return"] += turn.reward
        if turn.terminated:
            state["over"] = True
            self.finish("game_over")
        elif turn.truncated:
            self.episode.truncated, self.episode.end_reason = True, "game_limit"
        return self.describe(turn)

    def describe(self, turn: Turn) -> str:
        """Return what the agent is told after an action; a subclass may say it better."""
        reward = f"Reward: {turn.reward:g}." if turn.reward else ""
        over = "The game is over." if turn.terminated or turn.truncated else ""
        return "\n".join(line for line in (turn.text, reward, over) if line)

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return whether it was solved, or the sum of the game's rewards."""
        if self.reward == "return":
            return {"return": state["return"]}
        return {"solved": float(state["over"] and state["return"] >= self.solved_at)}

    def snapshot(self) -> Snapshot:
        """Return the episode as it stands; a replayed game is replayed here first.

        Raises:
            SnapshotUnsupported: it went otherwise when it was replayed.
        """
        self._keeper.prove(cast("Saved", self.state["saved"]))
        return super().snapshot()

    def oracle(self) -> str:
        """Return the best action, for a toy-text game that states its transitions."""
        policy = _policy_of(self._recipe)
        saved = cast("Saved", self.state["saved"]).value
        if policy is None or not isinstance(saved, list):
            raise NotImplementedError(
                f"{self.game} states no transitions to plan by, or is not kept as a copy."
            )
        layers = cast("list[dict[str, Any]]", saved)
        return self.encode_call("act", action=self._words.spell(policy[int(layers[-1]["s"])]))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: mostly one of the game's, at times junk."""
        if rng.random() < 0.1:
            return super().sample_action(rng)
        return self.encode_call("act", action=self._words.draw(rng))


class _Look:
    """What an environment needs to know of a game before it is played."""

    def __init__(self, recipe: Recipe) -> None:
        env = recipe.make()
        kind = type(env.unwrapped).__name__
        spec = recipe.spec()
        self.keeper = choose_keeper(env)
        self.space = env.action_space
        self.names = ACTION_NAMES.get(kind)
        own = spec.reward_threshold
        self.solved_at = _SOLVED_AT.get(kind, 1.0 if own is None else float(own))
        self.max_turns = spec.max_episode_steps or DEFAULT_TURNS
        env.close()


@functools.lru_cache(maxsize=32)
def _look_at(recipe: Recipe) -> _Look:
    return _Look(recipe)


@functools.lru_cache(maxsize=32)
def _policy_of(recipe: Recipe) -> list[int] | None:
    env = recipe.make()
    transitions = getattr(env.unwrapped, "P", None)
    return None if transitions is None else best_actions(transitions)


def _require_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownOption(
            f"{name} '{value}' asked for; Gymnasium environments have: {', '.join(known)}."
            f"{suggest(str(value), known)}"
        )


def _split_of(seed: int) -> str:
    share = int(digest(["gymnasium", seed])[:8], 16) % _SHARES
    return "test" if share == 0 else "validation" if share == 1 else "train"
