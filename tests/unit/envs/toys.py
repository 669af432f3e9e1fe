"""A small sound environment, and one broken environment for each law of snapshots."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np

from treegrpo.envs import Message, Snapshot, Task, ToolEnv, tool
from treegrpo.envs.errors import SnapshotUnsupported


class Sum(ToolEnv):
    """Add numbers up to a target; roll() is random, hold() costs nothing."""

    difficulties: ClassVar[tuple[int, ...]] = (1, 2)
    num_tasks: ClassVar[Mapping[str, int]] = {"train": 1_000, "test": 50}
    system_prompt = "Add up."

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        target = int(rng.integers(10, 100))
        return Task(f"sum-{target}-{rng.integers(10**9)}", f"Reach {target}.", target, difficulty)

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        return {"total": 0, "steps": [], "luck": int(rng.integers(100))}

    @tool(effects="write")
    def add(self, number: int) -> str:
        """Add a number.

        Args:
            number: what to add.
        """
        self.state["total"] += number
        self.state["steps"].append(number)
        return f"The total is {self.state['total']}."

    @tool
    def roll(self) -> str:
        """Roll a die."""
        return f"A {self.np_random.integers(1_000)}."

    @tool
    def answer(self) -> str:
        """End the episode."""
        self.finish()
        return "Noted."

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        return {"sum": float(state["total"] == task.answer)}

    def oracle(self) -> str:
        missing = self.task.answer - self.state["total"]
        return self.encode_call("add", number=missing) if missing else self.encode_call("answer")


class Tally:
    """A state whose copies start from nothing."""

    def __init__(self) -> None:
        self.marks = 0

    def state_facts(self) -> int:
        return self.marks

    def __deepcopy__(self, memo: dict[int, Any]) -> Tally:
        return Tally()


class BreaksS1(Sum):
    """Part of the state is lost when it is copied."""

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        return {"total": 0, "steps": [], "tally": Tally()}

    def add(self, number: int) -> str:
        self.state["tally"].marks += 1
        return super().add(number)

    def roll(self) -> str:
        self.state["tally"].marks += 1
        return "Marked."


class BreaksS2(Sum):
    """Randomness from the process's global generator."""

    def roll(self) -> str:
        return f"A {random.random()}."


class BreaksS2Hidden(Sum):
    """State in an attribute that the class declares to be a world."""

    shared = ("cache",)

    def __init__(self) -> None:
        super().__init__()
        self.cache: list[int] = []

    def roll(self) -> str:
        self.cache.append(1)
        return f"Roll number {len(self.cache)}."


class BreaksS3(Sum):
    """A snapshot that draws a random number."""

    def snapshot(self) -> Snapshot:
        self.np_random.random()
        return super().snapshot()


class BreaksS3Score(Sum):
    """A scorer that writes to the real state instead of its copy."""

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        self.state["total"] += 1
        return 0.0


class BreaksS4(Sum):
    """A restore that uses the snapshot up."""

    def restore(self, snapshot: Snapshot, *, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        result = super().restore(snapshot, seed=seed)
        self._episode = snapshot.episode
        return result


class BreaksS5(Sum):
    """A list that all objects of the class share."""

    rolls: ClassVar[list[int]] = []

    def roll(self) -> str:
        self.rolls.append(1)
        return "Rolled."


BOARD: dict[str, str] = {}


class BreaksS5Module(Sum):
    """A module's variable that all forks write and read."""

    def roll(self) -> str:
        BOARD["word"] = str(self.episode.turns)
        return "Written."

    def add(self, number: int) -> str:
        BOARD["word"] = BOARD.get("word", "") + str(number)
        return "Appended."

    def answer(self) -> str:
        self.finish()
        return f"The board says {BOARD.pop('word', '')}."


class BreaksS6(Sum):
    """State that cannot be captured from the second turn on."""

    def add(self, number: int) -> str:
        self.state["steps"] = iter([number])
        return super().roll()

    roll = add  # type: ignore[assignment]


class BreaksS6Outside(Sum):
    """State in an attribute of the object."""

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        self.total = 0
        return super().setup(task, rng)


class BreaksS7(Sum):
    """An observation that depends on the order of a set of texts."""

    def roll(self) -> str:
        return " ".join({f"word{number}" for number in range(50)})


class BreaksS8(Sum):
    """A restore that keeps the object's own generator."""

    def restore(self, snapshot: Snapshot, *, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        mine = self.np_random
        result = super().restore(snapshot, seed=seed)
        if seed is None:
            self.np_random = mine
        return result


class UnknownWrapper(gymnasium.Wrapper[str, str, str, str]):
    """A wrapper that says nothing about its state."""


class BreaksS9(gymnasium.Wrapper[str, str, str, str]):
    """A wrapper that counts steps and claims to have no state."""

    stateless = True

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        super().__init__(env)
        self.count = 0

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        observation, *others = super().step(action)
        self.count += 1
        return f"{self.count}: {observation}", *others  # type: ignore[return-value]


class BreaksS10(Sum):
    """A prompt that depends on the episodes played before."""

    shared = ("games",)

    def __init__(self) -> None:
        super().__init__()
        self.games = 0

    def prompt(self, task: Task) -> str:
        self.games += 1
        return f"Game {self.games}: {task.question}"


class BreaksS11(Sum):
    """A restore that gives the turns back."""

    def restore(self, snapshot: Snapshot, *, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        result = super().restore(snapshot, seed=seed)
        self.episode.turns = 0
        return result


class BreaksS11Fork(Sum):
    """A fork that gives the tool calls back."""

    def fork(self, *, seed: int | None = None) -> Self:
        twin = super().fork(seed=seed)
        twin.episode.tool_calls = 0
        return twin


class BreaksS12(Sum):
    """A snapshot that silently leaves out what it cannot copy."""

    def snapshot(self) -> Snapshot:
        try:
            return super().snapshot()
        except SnapshotUnsupported:
            state, self.episode.state = self.state, {}
            shot = super().snapshot()
            self.episode.state = state
            return shot
