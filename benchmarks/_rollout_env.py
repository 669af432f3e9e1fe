"""An environment that does nothing but take its time, with a heavy tail, for rollout.

Every episode has the same number of turns whatever the policy says, so trees and chains have
leaves of equal depth. How long a step takes is drawn from a stream of its own, named by the seed
and by all that was said so far: the order in which threads run cannot change it, siblings that
said other things wait for other times, and the same tree waits for the same times again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from treegrpo.envs import Message, Task, ToolEnv, make
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.episode import Episode
from treegrpo.envs.registry import register

ENV_ID = "benchmarks/Latency-v0"


@dataclass(frozen=True)
class Latency:
    """How long a step takes: exponential, but for a share of the steps that is slow."""

    mean_s: float = 0.05
    slow_share: float = 0.05
    slow_s: float = 1.0

    def draw(self, rng: np.random.Generator) -> float:
        """Return the seconds of one step."""
        is_slow = rng.random() < self.slow_share
        return self.slow_s if is_slow else float(rng.exponential(self.mean_s))

    @property
    def mean_of_all_s(self) -> float:
        """Mean over all steps, slow ones included."""
        return self.slow_share * self.slow_s + (1 - self.slow_share) * self.mean_s


class LatencyEnv(ToolEnv):
    """Answers everything with how long that took; an episode ends with its last turn."""

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        turns: int = 6,
        seed: int = 0,
        latency: Mapping[str, float] | None = None,
    ) -> None:
        """Make the environment; `latency` are the fields of `Latency`, `seed` names its draws."""
        super().__init__(render_mode=render_mode)
        self.max_turns = turns
        self.latency_seed, self.latency = seed, Latency(**(latency or {}))

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        """Return the one question there is, under a number of its own."""
        return Task(f"latency-{int(rng.integers(2**31))}", "Where is the key?", "", difficulty)

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> float:
        """Return 0: nothing is learned here."""
        return 0.0

    def seconds_of_step(self, episode: Episode) -> float:
        """Return how long the step takes whose action is the last of the messages."""
        said = [message["content"] for message in episode.messages]
        name = (self.latency_seed, episode.task.id, said)
        return self.latency.draw(np.random.default_rng(stable_seed("latency", *name)))

    def _run_calls(self, episode: Episode, action: str) -> tuple[list[Message], list[str]]:
        ms = round(1000 * self.seconds_of_step(episode))
        time.sleep(ms / 1000)
        return [{"role": "tool", "content": f"Nobody knows. That took {ms} ms."}], []


def seconds_told(observation: str) -> float:
    """Return the seconds of the step that answered so."""
    return int(observation.rsplit(" ", 2)[1]) / 1000


register(ENV_ID, f"{__name__}:LatencyEnv")


def make_latency(turns: int, seed: int, latency: Latency) -> gymnasium.Env[str, str]:
    """Return the environment as the scheduler takes it."""
    return make(ENV_ID, turns=turns, seed=seed, latency=vars(latency))
