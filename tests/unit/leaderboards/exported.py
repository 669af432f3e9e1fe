"""A small bundle with everything in it that an export must carry, and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.leaderboards.toy import TOY, Toy, ToyAgent, half_right
from treegrpo.envs import Task, register
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.usage import Usage

USAGE = Usage(
    input=100, cached=40, output=10, reasoning=4, dollars=Decimal("0.25"), requests=2
)  # fmt: skip
WORDY = "tests/WordyToy-v3"


class WordyToy(Toy):
    """The toy with a question of `length` characters, and a limit of seconds that is not whole."""

    max_seconds = 3600.5

    def __init__(self, *, length: int = 2_500, **options: Any) -> None:
        super().__init__(**options)
        self.length = length

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        task = super().make_task(rng, difficulty)
        return Task(task.id, task.question.ljust(self.length, "!"), task.answer, difficulty)


register(WORDY, "tests.unit.leaderboards.exported:WordyToy")


def toy_bundle(
    out: Path,
    *,
    env: str = TOY,
    usage: Usage | int | None = USAGE,
    action: Callable[[EpisodeView], str] = half_right,
    name: str = "half right",
    **options: Any,
) -> Bundle:
    """Return a bundle of tasks 0 to 2, two trials each: tasks 0 and 2 are solved, 1 is not."""
    agent = ToyAgent(action, tokens=usage, name=name)
    given: dict[str, Any] = {"split": "test", "num_tasks": 3, "trials": 2, "seed": 3}
    evaluate(agent, env, out=out, **(given | options))
    return read_bundle(out)
