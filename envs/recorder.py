"""Action logs: an episode as a chain of hashed events that anyone can replay.

    recorder = Recorder(env)
    recorder.reset(seed=7, options={"split": "test", "index": 3})
    recorder.step(action)
    write_log(path, recorder.events)

    verify_chain(read_log(path))     # nobody changed, dropped or reordered an event
    replay(read_log(path))           # the environment really answers like that

Each event carries H(previous hash, event). A chain proves order and integrity since it was
written, not honesty: who controls the whole file can write another. Only a replay shows that
rewards are real.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import gymnasium
import pydantic
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from treegrpo.envs import registry
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.episode import clean_action
from treegrpo.envs.errors import GraderFailed, LogError, NoEpisode, TreegrpoError
from treegrpo.envs.records import describe
from treegrpo.envs.snapshot import core_of

CHAIN_TAG = "treegrpo action log 1"
MAX_OBSERVATION_CHARS = 2_000
"""How much of an observation's text is kept to be read; its digest covers all of it."""
MAX_EVENTS = 100_000
MAX_LINE_CHARS = 1_000_000

_UNALTERED = "Only a log as it was written can be replayed."
_AS_WRITTEN = "Give a log as treegrpo play --log writes it."
_EXPECTED: Mapping[str, str] = {
    **dict.fromkeys(("observation_digest", "state_hash", "chain"), "a digest of 64 hex digits"),
    **dict.fromkeys(("seed", "step"), "a whole number"),
    **dict.fromkeys(("terminated", "truncated"), "true or false"),
    **dict.fromkeys(("env_kwargs", "options"), "plain JSON data"),
    "env_id": "the id of an environment",
    "reward": "a number written as a text",
    "end_reason": "a text or null",
    "observation": f"a text of at most {MAX_OBSERVATION_CHARS:,} characters",
}

MakeEnv = Callable[..., gymnasium.Env[str, str]]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(max_length=200)]
Reward = Annotated[str, Field(pattern=r"^-?\d{1,330}(\.\d{1,350})?(e[+-]?\d{1,3})?$")]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    observation: Annotated[str, Field(max_length=MAX_OBSERVATION_CHARS)]
    observation_digest: Digest
    state_hash: Digest
    chain: Digest


class ResetEvent(_Event):
    """How the episode began: all that is needed to begin it again."""

    kind: Literal["reset"]
    env_id: Annotated[str, Field(pattern=r"^[\w./-]{1,200}$")]
    env_kwargs: dict[Name, JsonValue]
    seed: Annotated[int, Field(ge=0)]
    options: dict[Name, JsonValue]
    task_id: Name


class StepEvent(_Event):
    """One turn: what the agent wrote, and what came of it. Rewards are decimal strings."""

    kind: Literal["step"]
    step: Annotated[int, Field(ge=1, le=MAX_EVENTS)]
    action: Annotated[str, Field(max_length=200_000)]
    reward: Reward
    terminated: bool
    truncated: bool
    end_reason: Name | None


Event = ResetEvent | StepEvent
_EVENT: pydantic.TypeAdapter[Event] = pydantic.TypeAdapter(
    Annotated[ResetEvent | StepEvent, Field(discriminator="kind")]
)


class Recorder:
    """Plays one episode at a time on `env` and keeps its action log.

    `events` is the log so far; `chain` is its last hash. reset() begins a new log. The
    environment's own reset() and step() are called, wrappers included.
    """

    def __init__(self, env: gymnasium.Env[str, str], *, start: str | None = None) -> None:
        """Take the environment, wrapped or bare, and the hash that the first event follows."""
        self._env = env
        self._start = digest(CHAIN_TAG) if start is None else start
        self._core = core_of(env)
        self.events: list[Event] = []

    @property
    def chain(self) -> str:
        """The hash of the last event; it stands for the whole log."""
        return self.events[-1].chain if self.events else self._start

    def reset(
        self, *, seed: int, options: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode and a log; return the observation and info.

        Raises:
            LogError: an option of the environment or of reset() has no JSON form.
        """
        observation, info = self._env.reset(seed=seed, options=dict(options or {}))
        self.events = []
        self._append(
            {
                "kind": "reset",
                "env_id": _env_id(self._core),
                "env_kwargs": _env_kwargs(self._core),
                "seed": seed,
                "options": dict(options or {}),
                "task_id": info["task_id"],
                **self._seen(observation),
            }
        )
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one turn and log it; return what the environment returned.

        A step that raises is not logged.
        """
        if not self.events:
            raise NoEpisode("Recorder.step() asked for without an episode. Call reset() first.")
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._append(
            {
                "kind": "step",
                "step": len(self.events),
                "action": clean_action(action, self._core.max_action_chars),
                "reward": decimal(float(reward)),
                "terminated": terminated,
                "truncated": truncated,
                "end_reason": info["end_reason"],
                **self._seen(observation),
            }
        )
        return observation, float(reward), terminated, truncated, info

    def _seen(self, observation: str) -> dict[str, str]:
        return {
            "observation": observation[:MAX_OBSERVATION_CHARS],
            "observation_digest": digest(observation),
            "state_hash": self._core.state_hash(),
        }

    def _append(self, facts: dict[str, Any]) -> None:
        facts = {**facts, "chain": _link(self.chain, facts)}
        event = _parse(facts, f"Logging event {len(self.events)}", "Use plain values in options.")
        self.events.append(event)


def decimal(reward: float) -> str:
    """Return the shortest decimal text that gives the float back exactly."""
    if not math.isfinite(reward):
        raise LogError(f"A reward of {reward} was to be logged; rewards must be finite.")
    return repr(reward)


def verify_chain(
    events: Sequence[Event],
    *,
    start: str | None = None,
    place: Callable[[int], str] = "event {}".format,
) -> str:
    """Return the last hash of a whole, unaltered log.

    Args:
        events: the log.
        start: as the Recorder had it.
        place: says in a message where the event of a number stands.

    Raises:
        LogError: the first event that is out of place or was altered.
    """
    previous = digest(CHAIN_TAG) if start is None else start
    for number, event in enumerate(events):
        if found := _fault(number, event, previous):
            raise LogError(f"{place(number)}{found} {_UNALTERED}")
        previous = event.chain
    if not events:
        raise LogError("The log holds no event; one reset was expected at its start.")
    return previous


def _fault(number: int, event: Event, previous: str) -> str:
    """Return what is wrong with an event after one of that hash, or an empty text."""
    if (event.kind == "reset") != (number == 0):
        return ": one reset was expected, at the very start of the log."
    if isinstance(event, StepEvent) and event.step != number:
        return f", field step: found {event.step}; an event is missing."
    if event.chain != _link(previous, event.model_dump(exclude={"chain"})):
        return ", field chain: the event was altered; its hash differs."
    whole = len(event.observation) < MAX_OBSERVATION_CHARS
    if whole and digest(event.observation) != event.observation_digest:
        return ", field observation: the text does not match its digest."
    return ""


@dataclass(frozen=True)
class Divergence:
    """Where a replay left the log: at which event (0 is the reset), in which field."""

    step: int
    field: str
    expected: str
    got: str


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found: how many events agreed, and the first that did not."""

    steps: int
    divergence: Divergence | None = None

    @property
    def matches(self) -> bool:
        """Whether every event came out as it was logged."""
        return self.divergence is None


def replay(events: Sequence[Event], *, make: MakeEnv = registry.make) -> ReplayReport:
    """Return whether a fresh environment answers every logged action as logged.

    Args:
        events: a whole log; its chain is verified first.
        make: makes the environment from (id, **kwargs); give one of your own to decide
            which ids and options a stranger's log may ask for.

    Raises:
        LogError: the chain is broken.
        TreegrpoError: the environment cannot be made.
    """
    verify_chain(events)
    first = events[0]
    assert isinstance(first, ResetEvent)  # verify_chain saw to it
    env = make(first.env_id, **first.env_kwargs)
    recorder = Recorder(env)
    try:
        for number, event in enumerate(events):
            try:
                if isinstance(event, ResetEvent):
                    recorder.reset(seed=event.seed, options=event.options)
                else:
                    recorder.step(event.action)
            except (TreegrpoError, GraderFailed) as error:
                return ReplayReport(number, Divergence(number, "error", "no error", str(error)))
            divergence = _difference(number, event, recorder.events[-1])
            if divergence is not None:
                return ReplayReport(number, divergence)
    finally:
        env.close()
    return ReplayReport(len(events))


def write_log(path: Path, events: Sequence[Event]) -> None:
    """Write one event per line, ASCII; the file appears whole or not at all.

    Raises:
        LogError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="ascii") as file:
            file.writelines(json.dumps(event.model_dump()) + "\n" for event in events)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LogError(
            f"Writing an action log to '{path}': it cannot be written ({error.strerror}). Check "
            "the folder, its rights and the free space."
        ) from error


def read_log(path: Path) -> list[Event]:
    """Return the events of a file; their chain is not verified here.

    Raises:
        LogError: names the file, the line and the field.
    """
    events: list[Event] = []
    asked = f"Reading an action log from '{path}'"
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_CHARS + 1):
                where = f"{asked}, line {len(events) + 1}"
                if len(line) > MAX_LINE_CHARS or len(events) >= MAX_EVENTS:
                    raise LogError(
                        f"{where}: the log is too large; a line may have {MAX_LINE_CHARS:,} "
                        f"characters, a log {MAX_EVENTS:,} events. {_AS_WRITTEN}"
                    )
                events.append(_parse(_loads(line, where), where, _AS_WRITTEN))
    except OSError as error:
        raise LogError(f"{asked}: it cannot be read ({error.strerror}). {_AS_WRITTEN}") from error
    if not events:
        raise LogError(f"{asked}: the file is empty. {_AS_WRITTEN}")
    return events


def _loads(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("ascii"))
    except UnicodeDecodeError as error:
        raise LogError(
            f"{where}: byte 0x{line[error.start]:02x} found, where a log has ASCII text alone. "
            f"{_AS_WRITTEN}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise LogError(f"{where}: not valid JSON. {_AS_WRITTEN}") from error


def _parse(value: Any, where: str, to_do: str) -> Event:
    try:
        return _EVENT.validate_python(value)
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    path = [str(part)[:80] for part in fault["loc"][1:]]  # loc[0] is the kind of event
    if not isinstance(value, dict):
        found = f"one object was expected, found {describe(value)}"
    elif not path:
        found = f"field kind: 'reset' or 'step' was expected, found {_shown(value, 'kind')}"
    elif fault["type"] == "missing":
        found = f"field {path[0]}: it is missing"
    elif fault["type"] == "extra_forbidden":
        found = f"field {path[0]}: a log has no such field"
    else:
        expected = _EXPECTED.get(path[0], "a text")
        given = describe(cast("object", fault["input"]))
        found = f"field {'.'.join(path)}: {expected} was expected, found {given}"
    raise LogError(f"{where}, {found}. {to_do}")


def _shown(value: Any, field: str) -> str:
    return describe(cast("object", value[field])) if field in value else "none"


def _link(previous: str, facts: Mapping[str, Any]) -> str:
    return digest([previous, facts])


def _difference(number: int, expected: Event, got: Event) -> Divergence | None:
    before, after = expected.model_dump(), got.model_dump()
    for name in [*(key for key in before if key != "chain"), "chain"]:
        if before[name] != after.get(name):
            return Divergence(number, name, str(before[name]), str(after.get(name)))
    return None


def _env_id(core: ToolEnv) -> str:
    if core.spec is None:
        raise LogError(
            f"{type(core).__name__} was made without an id, so nobody could make it again. "
            "Register it and use make(id)."
        )
    return core.spec.id


def _env_kwargs(core: ToolEnv) -> dict[str, Any]:
    kwargs = core.spec.kwargs if core.spec is not None else {}
    return {name: value for name, value in kwargs.items() if name != "render_mode"}
