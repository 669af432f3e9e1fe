"""The task of start_states: a corridor of rooms in which one wrong word loses the way for good.

Each room shows a sign, and one of five words is right for it. The corridor looks the same after a
wrong word, and nothing is paid before its end: an episode is worth 1 if every word was right,
else 0. Which word is right for a sign never changes; which signs hang where is the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypedDict

import numpy as np

from treegrpo.envs import Message, Task, ToolEnv, register, tool
from treegrpo.envs.digest import stable_seed
from treegrpo.warmstart import Demonstration, record_demonstrations

ROOMS = 12
SIGNS = (
    *("anchor", "arrow", "bell", "bird", "boat", "book", "bridge", "candle"),
    *("cloud", "coin", "crown", "drum", "feather", "fish", "flame", "gate"),
    *("key", "lamp", "leaf", "moon", "star", "tower", "tree", "wave"),
)
WORDS = ("ash", "elm", "fir", "oak", "yew")
ENV_ID = "benchmarks/Corridor-v0"


def _right_words() -> dict[str, str]:
    """Return the word that is right for each sign."""
    rng = np.random.default_rng(stable_seed("corridor"))
    return {sign: WORDS[int(rng.integers(len(WORDS)))] for sign in SIGNS}


RIGHT = _right_words()


class Walk(TypedDict):
    """Where an episode stands."""

    room: int
    is_astray: bool


class Corridor(ToolEnv):
    """Say the right word in each of the rooms."""

    num_tasks: ClassVar[Mapping[str, int]] = {"train": 1_000_000, "test": 100_000}
    max_turns = ROOMS
    max_tool_calls = ROOMS

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        """Return a row of signs, one for each room."""
        signs = [SIGNS[int(i)] for i in rng.integers(len(SIGNS), size=ROOMS)]
        return Task("-".join(signs), room_text(0, signs[0]), None, difficulty, {"signs": signs})

    def setup(self, task: Task, rng: np.random.Generator) -> Walk:
        """Return the first room."""
        return {"room": 0, "is_astray": False}

    @tool
    def say(self, word: str) -> str:
        """Say a word and go on to the next room."""
        state: Walk = self.state
        state["is_astray"] |= word != self._right_word()
        state["room"] += 1
        if state["room"] == ROOMS:
            self.finish("end of the corridor")
            return "end"
        return room_text(state["room"], self.task.data["signs"][state["room"]])

    def score(self, state: Walk, transcript: Sequence[Message], task: Task) -> float:
        """Return 1 for the end of the corridor without a wrong word, else 0."""
        return float(state["room"] == ROOMS and not state["is_astray"])

    def oracle(self) -> str:
        """Return the right word's call."""
        return self.encode_call("say", word=self._right_word())

    def _right_word(self) -> str:
        return RIGHT[self.task.data["signs"][self.state["room"]]]


register(ENV_ID, f"{__name__}:{Corridor.__name__}")


def room_text(room: int, sign: str) -> str:
    """Return what a room shows."""
    return f"room {room + 1} {sign}"


def demonstrations(env: Corridor, right: float, count: int, seed: int) -> list[Demonstration]:
    """Return episodes of a walker whose every word is right with the chance `right`.

    Otherwise it is one of the other words, each as likely.
    """
    rng = np.random.default_rng(stable_seed("corridor walker", seed))

    def act() -> str:
        if rng.random() < right:
            return env.oracle()
        others = [word for word in WORDS if env.encode_call("say", word=word) != env.oracle()]
        return env.encode_call("say", word=others[int(rng.integers(len(others)))])

    return record_demonstrations(env, lambda: None, act, count, seed)


def every_text() -> list[str]:
    """Return texts that hold every word of the task, for a tokenizer."""
    env = Corridor(format="xml")
    calls = [env.encode_call("say", word=word) for word in WORDS]
    return [
        *calls,
        "end error",
        *(room_text(room, sign) for room in range(ROOMS) for sign in SIGNS),
    ]
