"""A single-player game of TextArena, if that package is installed.

    env = TextArenaEnv(game="Wordle-v0")

Its games draw from Python's global generator. Here each game has a generator state of its own,
which is put in place around every call and taken out again: nothing else in the process
notices, and a fork goes on with its parent's luck.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import random
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.adapters.replay import StateLost
from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task
from treegrpo.envs.tools import tool

_SHARES = 5
_NUM_SEEDS: int = 2**31


class Arena:
    """A running game together with the state of the generators that it draws from."""

    def __init__(self, game: Any, seed: int) -> None:
        """Reset the game for one player."""
        self.game, self.log = game, [str(seed)]
        self.luck: tuple[Any, Any] = _seeded(seed)
        with self._own_luck():
            game.reset(num_players=1, seed=seed)

    def look(self) -> str:
        """Return what the player sees that is new."""
        with self._own_luck():
            _, observation = self.game.get_observation()
        self.log.append(str(observation))
        return self.log[-1]

    def act(self, action: str) -> bool:
        """Return whether the game is over after this action."""
        self.log.append(action)
        with self._own_luck():
            done, _ = self.game.step(action=action)
        return bool(done)

    def rewards(self) -> Mapping[int, float]:
        """Return the reward of each player, once the game is over."""
        with self._own_luck():
            found: Any = self.game.close()
        return cast("Mapping[int, float]", found[0] if isinstance(found, tuple) else found)

    def state_facts(self) -> Any:
        """Return what was said and done, and the luck: these determine the game."""
        return [self.log, digest([self.luck[0], list(self.luck[1])])]

    def __deepcopy__(self, memo: dict[int, Any]) -> Arena:
        """Return an independent copy.

        Raises:
            StateLost: the game holds something that cannot be copied.
        """
        twin, parts = object.__new__(Arena), self.__getstate__()
        parts["log"] = list(self.log)
        try:
            parts |= copy.deepcopy({name: parts[name] for name in ("core", "layers")}, memo)
        except Exception as error:
            raise StateLost(
                f"A copy of the TextArena game {type(self.game).__name__} asked for, but it "
                f"cannot be made: {error}. Choose another game."
            ) from error
        twin.__setstate__(parts)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return the state in parts, the game's wrappers one by one.

        Put together whole, they would look for attributes of a game that is not there yet.
        """
        layers: list[tuple[type, dict[str, Any]]] = []
        game: object = self.game
        while "env" in vars(game) and hasattr(type(game), "__getattr__"):
            own: dict[str, Any] = {k: v for k, v in vars(game).items() if k != "env"}
            layers.append((type(game), own))
            game = vars(game)["env"]
        return {"log": self.log, "luck": self.luck, "core": game, "layers": layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the wrappers around the game again."""
        self.log, self.luck, self.game = state["log"], state["luck"], state["core"]
        for kind, own in reversed(state["layers"]):
            wrapper = object.__new__(kind)
            vars(wrapper).update(own, env=self.game)
            self.game = wrapper

    @contextlib.contextmanager
    def _own_luck(self) -> Generator[None]:
        """Put this game's generator states in place, and the process's own back afterwards."""
        others = random.getstate(), np.random.get_state(legacy=True)
        random.setstate(self.luck[0])
        np.random.set_state(self.luck[1])
        try:
            yield
        finally:
            self.luck = random.getstate(), np.random.get_state(legacy=True)
            random.setstate(others[0])
            np.random.set_state(others[1])


class TextArenaEnv(ToolEnv):
    """A single-player game of TextArena, played through the tool `act`.

    Args:
        game: its id, such as "Wordle-v0".
        options: its options.
        max_turns: how many actions there are.

    Reward: the game's own for its player at the end; 0 if the turns ran out before. A task is
    a seed; its digest decides the split.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    system_prompt: ClassVar[str] = "Play the game: one call of act per turn."

    def __init__(
        self,
        *,
        game: str,
        options: Mapping[str, Any] | None = None,
        max_turns: int = 30,
        **settings: Any,
    ) -> None:
        """Find the game; other settings are ToolEnv's."""
        self.game, self.options = game, dict(options or {})
        self.max_turns = self.max_tool_calls = max_turns
        self._make_game()
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, made one by one."""
        return GeneratedTasks(
            lambda rng, level: self._make_task(rng, level, split),
            name=f"TextArena/{self.game}",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def _make_task(self, rng: np.random.Generator, difficulty: int, split: str) -> Task:
        while True:
            seed = int(rng.integers(_NUM_SEEDS))
            share = int(digest(["textarena", seed])[:8], 16) % _SHARES
            if split == ("test" if share == 0 else "validation" if share == 1 else "train"):
                return Task(f"{self.game}-{seed}", f"Play {self.game}.", None, 1, {"seed": seed})

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the game after its reset, and what the player sees."""
        arena = Arena(self._make_game(), task.data["seed"])
        return {"arena": arena, "shown": arena.look(), "reward": 0.0}

    def prompt(self, task: Task) -> str:
        """Return the game's own opening."""
        return f"{task.question}\n{self.state['shown']}"

    @tool(effects="write")
    def act(self, action: str) -> str:
        """Make a move in the game.

        Args:
            action: the move, written as the game asks for it.
        """
        arena = cast("Arena", self.state["arena"])
        if arena.act(action):
            self.state["reward"] = float(arena.rewards().get(0, 0.0))
            self.finish("game_over")
            return "The game is over."
        return arena.look()

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return the game's reward for its player."""
        return {"game": state["reward"]}

    def _make_game(self) -> Any:
        package = _package()
        if package is None:
            raise TreegrpoError(
                f"TextArena game '{self.game}' asked for, but the package 'textarena' is not "
                "installed. Install it with: pip install textarena"
            )
        try:
            return package.make(self.game, **self.options)
        except Exception as error:
            fault = str(error).rstrip(".")
            raise TreegrpoError(
                f"TextArena game '{self.game}' with the options {self.options} asked for, but "
                f"it cannot be made: {fault} ({type(error).__name__}). Check the id and the "
                "options."
            ) from error


@functools.cache
def _package() -> Any:
    try:
        return importlib.import_module("textarena")
    except ImportError:
        return None


def _seeded(seed: int) -> tuple[Any, Any]:
    """Return the states of fresh generators of this seed."""
    legacy = np.random.RandomState(seed % 2**32)
    return random.Random(seed).getstate(), legacy.get_state(legacy=True)
