"""One episode, played and recorded; evaluation and replay both go through here.

Who made an episode fail:
    policy       the agent raised, or gave something that is no text
    provider     the agent said that the service behind it failed (ProviderFailed)
    environment  resetting or stepping the environment raised
    grader       scoring raised, or gave a reward that is not finite
A tool that fails is an observation for the agent, not a failure of the episode.

A failure ends its own episode only, which then scores 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import gymnasium
from pydantic import ValidationError

from treegrpo.envs.core import Message, Task
from treegrpo.envs.digest import digest
from treegrpo.envs.episode import clean_text
from treegrpo.envs.errors import GraderFailed, SandboxFailed
from treegrpo.envs.recorder import Event, Recorder, decimal
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.chain import chain_start, episode_seed
from treegrpo.leaderboards.environment import open_env
from treegrpo.leaderboards.errors import ProviderFailed
from treegrpo.leaderboards.schema import (
    EpisodeRecord,
    Failure,
    SearchEntry,
    TaskEntry,
    Tokens,
)
from treegrpo.leaderboards.usage import NOTHING, Searched, Usage

MAX_DETAIL_CHARS = 500


@dataclass(frozen=True)
class Setting:
    """What all episodes of an evaluation share."""

    env_id: str
    env_kwargs: Mapping[str, Any]
    split: str
    seed: int
    env_digest: str | None
    """As recorded: it starts every chain, whatever the source is now."""


@dataclass
class Play:
    """One episode from reset to end, with its log.

    `live` says whether it waits for an action, `delta` holds the messages since the last one.
    Nothing here raises for what an environment does; `failure` says it afterwards.
    """

    setting: Setting
    index: int
    trial: int
    reruns: int = 0
    """How often it was played before and failed by its provider."""
    spent: Usage = NOTHING
    """What that cost."""
    live: bool = False
    delta: list[Message] = field(default_factory=list[Message])
    rewards: list[float] = field(default_factory=list[float])
    components: dict[str, float] = field(default_factory=dict[str, float])
    info: dict[str, Any] = field(default_factory=dict[str, Any])
    failure: Failure | None = None
    detail: str | None = None
    started: float = 0.0
    env: gymnasium.Env[str, str] | None = None
    log: Recorder | None = None
    task: TaskEntry = field(init=False)

    def __post_init__(self) -> None:
        """Know nothing of the task until a reset succeeds."""
        self.task = TaskEntry(index=self.index, id=None, difficulty=None, digest=None)

    @property
    def key(self) -> str:
        """The name of the episode within its evaluation."""
        return f"{self.index}/{self.trial}"

    @property
    def reset_seed(self) -> int:
        """The seed that the environment is reset with."""
        shared = self.setting
        return episode_seed(shared.env_id, shared.split, self.index, self.trial, shared.seed)

    @classmethod
    def again(cls, setting: Setting, record: EpisodeRecord) -> Play:
        """Return another attempt at an episode that failed by its provider."""
        tokens = record.tokens
        spent = Usage(
            input=tokens.input,
            cached=tokens.cached,
            output=tokens.output,
            reasoning=tokens.reasoning,
            dollars=None if record.dollars is None else Decimal(record.dollars),
            requests=record.requests,
            search=None if record.search is None else Searched(**record.search.model_dump()),
        )
        return cls(setting, record.index, record.trial, (record.reruns or 0) + 1, spent)

    def start(self) -> None:
        """Make and reset the environment."""
        shared, self.started = self.setting, time.perf_counter()
        try:
            self.env = open_env(shared.env_id, shared.env_kwargs)
            seed = self.reset_seed
            log = Recorder(
                self.env,
                start=chain_start(shared.env_id, shared.env_digest, shared.split, self.index, seed),
            )
            options = {"split": shared.split, "index": self.index}
            _, self.info = log.reset(seed=seed, options=options)
            self.task = task_entry(self.index, core_of(self.env).task)
            self.log, self.delta, self.live = log, list(self.info["messages"]), True
        except SandboxFailed as error:
            self.fail("sandbox", error)
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            self.fail("environment", error)

    def step(self, action: object) -> None:
        """Apply one action and log what came of it."""
        assert self.log is not None, "start() comes first"
        if not isinstance(action, str):
            self.fail("policy", TypeError(f"the agent gave {type(action).__name__}, not a text"))
            return
        try:
            _, reward, terminated, truncated, info = self.log.step(action)
            self.rewards.append(reward)
            for name, value in info["reward_components"].items():
                self.components[name] = self.components.get(name, 0.0) + float(value)
            self.info, self.delta = info, list(info["messages"])
            self.live = not (terminated or truncated)
        except GraderFailed as error:
            self.fail("grader", error)
        except SandboxFailed as error:
            self.fail("sandbox", error)
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            self.fail("environment", error)

    def fail(self, who: Failure, error: BaseException) -> None:
        """End the episode as failed by `who`; what went wrong is kept, cut to size."""
        self.failure, self.live = who, False
        self.detail = clean_text(f"{type(error).__name__}: {error}")[:MAX_DETAIL_CHARS]

    def fail_policy(self, error: Exception) -> None:
        """End the episode because the agent raised; a failed service is not its own fault."""
        self.fail("provider" if isinstance(error, ProviderFailed) else "policy", error)

    def record(self, usage: Usage, trajectory: str | None = None) -> EpisodeRecord:
        """Return the line of episodes.jsonl; values that do not fit it fail the episode.

        Args:
            usage: what the agent counted.
            trajectory: digest of the file that holds the log.
        """
        try:
            return self._record(usage, trajectory)
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            self.fail("environment", error)
            self.info = {}
            return self._record(usage, trajectory)

    @property
    def events(self) -> list[Event]:
        """The log so far; empty if not even the reset succeeded."""
        return self.log.events if self.log is not None else []

    def close(self) -> None:
        """Let go of the environment; that it cannot be closed no longer matters."""
        if self.env is not None:
            try:
                self.env.close()
            except Exception as error:  # noqa: BLE001 - the boundary: the episode is over
                self.detail = self.detail or f"close() raised {type(error).__name__}"
            self.env = None

    def _record(self, usage: Usage, trajectory: str | None) -> EpisodeRecord:
        scored = self.failure is None
        usage = self.spent + usage if self.reruns else usage
        components = {name: decimal(value) for name, value in self.components.items()}
        return EpisodeRecord(
            index=self.index,
            trial=self.trial,
            task_id=self.task.id,
            difficulty=self.task.difficulty,
            seed=self.reset_seed,
            reward=decimal(float(sum(self.rewards)) if scored else 0.0),
            reward_components=components if scored else {},
            success=scored and bool(self.info["success"]),
            end_reason=self.info.get("end_reason"),
            failure=self.failure,
            failure_detail=self.detail,
            turns=len(self.rewards),
            tool_calls=int(self.info.get("tool_calls", 0)),
            tokens=Tokens(
                input=usage.input,
                cached=usage.cached,
                output=usage.output,
                reasoning=usage.reasoning,
            ),
            dollars=usage.amount,
            requests=usage.requests,
            wall_seconds=decimal(round(time.perf_counter() - self.started, 6)),
            chain=self.log.chain if self.log else None,
            trajectory=trajectory,
            state_hash=self.events[-1].state_hash if self.log else None,
            **self._optional(usage),
        )

    def _optional(self, usage: Usage) -> dict[str, Any]:
        """Return the fields that are there only where there is something to say."""
        found: dict[str, Any] = {"reruns": self.reruns} if self.reruns else {}
        if usage.search is not None:
            found["search"] = SearchEntry(**asdict(usage.search))
        return found


def task_entry(index: int, task: Task) -> TaskEntry:
    """Return what a manifest says of a task: nothing of the task can change unnoticed."""
    facts = [task.id, task.question, task.answer, task.difficulty, task.data]
    return TaskEntry(index=index, id=task.id, difficulty=task.difficulty, digest=digest(facts))
