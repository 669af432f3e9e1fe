"""A tiny environment that can be told to break, agents that do break, and a forger."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from treegrpo.envs import Message, Task, ToolEnv, register, tool
from treegrpo.envs.digest import digest
from treegrpo.envs.recorder import Event, ResetEvent, StepEvent
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.leaderboards.bundle import read_bundle, write_bundle
from treegrpo.leaderboards.chain import chain_start
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.trajectories import FOLDER, write_trajectory
from treegrpo.leaderboards.usage import Usage

TOY = "tests/Toy-v0"


class Toy(ToolEnv):
    """Guess a number; `trouble` names what breaks in the tasks whose answer is even."""

    num_tasks: ClassVar = {"train": 50, "test": 50}
    difficulties = (1, 2)
    max_turns = 4

    def __init__(self, *, trouble: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.trouble = trouble

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        answer = int(rng.integers(10**difficulty))
        if self.trouble == "fickle":
            answer = random.randrange(10**9)
        return Task(f"toy-{answer}", f"A number below {10**difficulty}?", answer, difficulty)

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        if self._broken("reset", task):
            raise RuntimeError("no world today")
        return {"guess": None, "noise": int(rng.integers(1000))}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._broken("step", self.task) and self.episode.turns == 1:
            raise RuntimeError("the world ended")
        return super().step(action)

    @tool(effects="write")
    def guess(self, number: int) -> str:
        """Guess.

        Args:
            number: what you think it is.
        """
        self.state["guess"] = number
        if number == self.task.answer:
            self.finish()
        return f"noise {self.state['noise']}"

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | dict[str, float]:
        if self._broken("grader", task):
            raise ZeroDivisionError("grader")
        if self._broken("nan", task):
            return float("nan")
        return {"right": float(state["guess"] == task.answer), "style": 0.1}

    def oracle(self) -> str:
        """Guess wrong once, so that every episode has two steps."""
        wrong = self.episode.turns == 0
        return self.encode_call("guess", number=self.task.answer + wrong)

    def _broken(self, trouble: str, task: Task) -> bool:
        return self.trouble == trouble and task.answer % 2 == 0


register(TOY, "tests.unit.leaderboards.toy:Toy")


class ToyAgent:
    """An agent given as a function of one view; keeps what it was told."""

    digest = "0"

    def __init__(
        self,
        action: Callable[[EpisodeView], Any],
        *,
        tokens: int | Usage | None = None,
        name: str = "toy",
    ) -> None:
        self.name = name
        self.settings: dict[str, Any] = {"temperature": 0.5}
        self.batches: list[int] = []
        self.finished: list[str] = []
        self._action, self._tokens = action, tokens

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        self.batches.append(len(episodes))
        return [self._action(view) for view in episodes]

    def finish(self, key: str) -> int | Usage | None:
        self.finished.append(key)
        return self._tokens


def half_right(view: EpisodeView) -> str:
    """Solve every other task, and give up on the others."""
    return view.env.oracle() if view.env.episode.index % 2 == 0 else "I give up."


def forge(
    source: Path,
    target: Path,
    *,
    head: Callable[[dict[str, Any]], None] = lambda _: None,
    episode: Callable[[EpisodeRecord], dict[str, Any]] = lambda _: {},
    events: Callable[[EpisodeRecord, list[dict[str, Any]]], None] = lambda *_: None,
    rechain: bool = True,
) -> Path:
    """Write a changed copy of a bundle with every digest (and chain) made right again."""
    bundle = read_bundle(source)
    fields = bundle.manifest.model_dump(exclude={"root", "digest"})
    head(fields)
    episodes: list[EpisodeRecord] = []
    (target / FOLDER).mkdir(parents=True)
    for record in bundle.episodes:
        log = [event.model_dump() for event in bundle.events(record)]
        events(record, log)
        if rechain:
            chained(log, fields, record)
        changes = {"chain": log[-1]["chain"] if log else None, **episode(record)}
        rows = [EVENTS[event["kind"]].model_validate(event) for event in log]
        changes = {"trajectory": write_trajectory(target, rows), **changes}
        episodes.append(EpisodeRecord.model_validate(record.model_dump() | changes))
    write_bundle(target, fields, episodes)
    return target


EVENTS: dict[str, type[ResetEvent] | type[StepEvent]] = {"reset": ResetEvent, "step": StepEvent}


def chained(log: list[dict[str, Any]], head: dict[str, Any], record: EpisodeRecord) -> None:
    """Recompute the chain of a log in place, as anybody can."""
    previous = chain_start(
        head["env_id"], head["env_digest"], head["split"], record.index, record.seed
    )
    for event in log:
        facts = {name: value for name, value in event.items() if name != "chain"}
        previous = event["chain"] = digest([previous, facts])


def steps_of(events: Sequence[Event]) -> list[str]:
    """Return the actions of a log."""
    return [event.action for event in events if event.kind == "step"]
