"""One episode, played and recorded; evaluation and replay both go through here.

Who made an episode fail:
    policy       the agent raised, or gave something that is no text
    tool         never from here: a tool's failure is an observation of the agent
    sandbox      the sandbox that runs the agent's code failed (raised as such by an environment)
    environment  making, resetting or stepping the environment raised
    grader       scoring raised, or gave a reward that is not finite

A failure ends its own episode only, which then scores 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium
from pydantic import ValidationError

from treegrpo.envs.core import Message, Task
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import GraderFailed
from treegrpo.envs.recorder import Recorder
from treegrpo.leaderboards.bundle import episode_seed
from treegrpo.leaderboards.environment import open_env, tool_env
from treegrpo.leaderboards.schema import EpisodeRecord, Failure, TaskEntry, Trajectory

MAX_DETAIL_CHARS = 500


@dataclass(frozen=True)
class Setting:
    """What all episodes of an evaluation share."""

    env_id: str
    env_kwargs: Mapping[str, Any]
    split: str
    seed: int


class BadAction(Exception):
    """The agent gave something that is not a text."""


@dataclass
class Play:
    """One episode from reset to end, with its log.

    `live` says whether it waits for an action; `delta` holds the messages since the last one.
    Nothing here raises for what an environment does; `failure` says it afterwards.
    """

    setting: Setting
    index: int
    trial: int
    env: gymnasium.Env[str, str] = field(init=False)
    log: Recorder = field(init=False)
    live: bool = False
    delta: list[Message] = field(default_factory=list[Message])
    task: TaskEntry = field(init=False)
    rewards: list[float] = field(default_factory=list[float])
    components: dict[str, float] = field(default_factory=dict[str, float])
    info: dict[str, Any] = field(default_factory=dict[str, Any])
    state_hash: str | None = None
    failure: Failure | None = None
    detail: str | None = None
    seconds: float = 0.0
    turns: int = 0

    @property
    def key(self) -> str:
        """The name of the episode within its evaluation."""
        return f"{self.index}/{self.trial}"

    @property
    def reset_seed(self) -> int:
        """The seed that the environment is reset with."""
        shared = self.setting
        return episode_seed(shared.env_id, shared.split, self.index, self.trial, shared.seed)

    def start(self) -> None:
        """Make and reset the environment."""
        shared, started = self.setting, time.perf_counter()
        self.task = TaskEntry(index=self.index, id=None, difficulty=None, digest=None)
        options = {"split": shared.split, "index": self.index}
        self.log = Recorder(
            shared.env_id, seed=self.reset_seed, options=options, kwargs=dict(shared.env_kwargs)
        )
        try:
            self.env = open_env(shared.env_id, shared.env_kwargs)
            observation, info = self.env.reset(seed=self.reset_seed, options=options)
            core = tool_env(self.env)
            self.task = task_entry(self.index, core.task)
            self.state_hash = core.state_hash()
            self.log.reset(observation, state_hash=self.state_hash)
            self.info, self.delta, self.live = info, list(info["messages"]), True
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            self.fail("environment", error)
        self.seconds += time.perf_counter() - started

    def step(self, action: str) -> None:
        """Apply one action and record what came of it."""
        started = time.perf_counter()
        try:
            action = readable_text(action)
            observation, reward, terminated, truncated, info = self.env.step(action)
            reward = finite_reward(reward)
            self.state_hash = tool_env(self.env).state_hash()
            self.log.step(
                action, observation, reward, terminated, truncated, state_hash=self.state_hash
            )
            self._count(reward, info)
            self.live = not (terminated or truncated)
        except BadAction as error:
            self.fail("policy", error)
        except GraderFailed as error:
            self.fail("grader", error)
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            self.fail("environment", error)
        self.seconds += time.perf_counter() - started

    def fail(self, who: Failure, error: BaseException) -> None:
        """End the episode as failed by `who`; what went wrong is kept, cut to size."""
        text = f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS]
        self.failure, self.live = who, False
        self.detail = text.encode("utf-8", "replace").decode()

    def record(self, sampled_tokens: int | None) -> EpisodeRecord:
        """Return the line of episodes.jsonl; what does not fit its schema fails the episode."""
        try:
            return self._record(sampled_tokens)
        except (ValidationError, TypeError, ValueError) as error:
            self.fail("environment", error)
            self.info, self.components = {}, {}
            return self._record(sampled_tokens)

    def trajectory(self) -> Trajectory:
        """Return the line of trajectories.jsonl."""
        return Trajectory(index=self.index, trial=self.trial, events=list(self.log.events))

    def close(self) -> None:
        """Close the environment, if there is one; its errors no longer matter."""
        env = vars(self).get("env")
        if env is not None:
            try:
                env.close()
            except Exception as error:  # noqa: BLE001 - the boundary: the episode is over
                self.detail = self.detail or f"close(): {type(error).__name__}"

    def _count(self, reward: float, info: dict[str, Any]) -> None:
        self.turns += 1
        self.rewards.append(reward)
        for name, value in info["reward_components"].items():
            self.components[name] = self.components.get(name, 0.0) + float(value)
        self.info, self.delta = info, list(info["messages"])

    def _record(self, sampled_tokens: int | None) -> EpisodeRecord:
        scored = self.failure is None
        components = {name: decimal(value) for name, value in self.components.items()}
        return EpisodeRecord(
            index=self.index,
            trial=self.trial,
            task_id=self.task.id,
            difficulty=self.task.difficulty,
            seed=self.reset_seed,
            reward=decimal(sum(self.rewards) if scored else 0.0),
            reward_components=components if scored else {},
            success=scored and bool(self.info["success"]),
            end_reason=self.info.get("end_reason"),
            failure=self.failure,
            failure_detail=self.detail,
            turns=self.turns,
            tool_calls=int(self.info.get("tool_calls", 0)),
            sampled_tokens=sampled_tokens,
            wall_seconds=round(self.seconds, 6),
            chain=self.log.root,
            state_hash=self.state_hash,
        )


def decimal(value: float) -> str:
    """Return the shortest decimal that gives the float back; rewards are never bare floats."""
    return repr(float(value))


def task_entry(index: int, task: Task) -> TaskEntry:
    """Return what a manifest says of a task: nothing of it can be changed unnoticed."""
    facts = [task.id, task.question, task.answer, task.difficulty, task.data]
    return TaskEntry(index=index, id=task.id, difficulty=task.difficulty, digest=digest(facts))


def readable_text(action: object) -> str:
    """Return the action if it is a text that can be written down.

    Raises:
        BadAction: another type, or half a surrogate pair.
    """
    if not isinstance(action, str):
        raise BadAction(f"the agent gave {type(action).__name__}, not a text")
    try:
        action.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadAction(f"the agent's text is not valid Unicode: {error.reason}") from None
    return action


def finite_reward(reward: object) -> float:
    """Return the reward as a float.

    Raises:
        GraderFailed: it is infinite or not a number.
    """
    value = float(cast("float", reward))
    if not math.isfinite(value):
        raise GraderFailed(f"the reward is {value}")
    return value
