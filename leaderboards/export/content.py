"""What every format takes from a bundle: who acted, how sure the scores are, what was said.

A bundle keeps observations as text, up to 2,000 characters each, and the agent's text as it
was. So a transcript is the first observation (user), then action (assistant) and observation
by turns. Calls are read out of actions in the default format only; the text stays whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import from_json

from treegrpo.envs.formats import HermesFormat
from treegrpo.envs.recorder import MAX_OBSERVATION_CHARS, Event
from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.stats import Interval, standard_error

UNKNOWN = "unknown"
_LEVELS_ABOVE = 20
"""No format nests a call's arguments deeper than this."""
CONFIDENCE = 0.95
"""Level of the intervals that `summarise` gives."""


@dataclass(frozen=True)
class Call:
    """A tool call that the agent wrote; nobody says that the tool exists."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Said:
    """One message; `call_ids` names the calls that an observation answers."""

    role: Literal["user", "assistant", "tool"]
    text: str
    calls: tuple[Call, ...] = ()
    call_ids: tuple[str, ...] = ()
    cut: bool = False
    """Whether the bundle may hold the beginning of the text only."""


@dataclass(frozen=True)
class Score:
    """A mean over tasks with its interval and its standard error.

    There is no standard error for one task, nor where all tasks have the same mean: no spread
    is not certainty.
    """

    interval: Interval
    standard_error: float | None


def dataset_id(manifest: Manifest) -> str:
    """Return the environment's id without the module that defines it."""
    return manifest.env_id.rpartition(":")[2]


def model_id(manifest: Manifest) -> str:
    """Return "developer/model"; an agent without a model is "unknown/its name"."""
    agent = manifest.agent
    model = agent.model or agent.name
    return model if "/" in model else f"{agent.provider or UNKNOWN}/{model}"


def score(bundle: Bundle, interval: Interval, field: Literal["success", "reward"]) -> Score:
    """Return an interval of `summarise` with the standard error that belongs to it."""
    tasks: dict[int, list[float]] = {}
    for episode in bundle.episodes:
        tasks.setdefault(episode.index, []).append(float(getattr(episode, field)))
    means = [sum(values) / len(values) for values in tasks.values()]
    return Score(interval, (standard_error(means) or None) if len(means) > 1 else None)


def transcript(bundle: Bundle, episode: EpisodeRecord) -> list[Said]:
    """Return what was said in an episode, in order; empty where not even the reset succeeded.

    Raises:
        BundleError: the log has changed since the bundle was read.
    """
    plain = bundle.manifest.env_kwargs.get("format", HermesFormat.name) == HermesFormat.name
    return list(_said(bundle.events(episode), plain))


def _said(events: Sequence[Event], read_calls: bool) -> Iterator[Said]:
    for event in events:
        cut = len(event.observation) >= MAX_OBSERVATION_CHARS
        if event.kind == "reset":
            yield Said("user", event.observation, cut=cut)
            continue
        calls = _calls(event.action, event.step) if read_calls else ()
        yield Said("assistant", event.action, calls)
        ids = tuple(call.id for call in calls)
        yield Said("tool" if ids else "user", event.observation, call_ids=ids, cut=cut)


def _calls(action: str, step: int) -> tuple[Call, ...]:
    """Return the calls of an action, or none where a reader of JSON would not take one.

    Models write NaN, half a character, and lists in lists without end.
    """
    found = HermesFormat().parse(action, {}).calls
    try:
        for call in found:
            text = json.dumps([call.name, call.arguments], allow_nan=False)
            from_json("[" * _LEVELS_ABOVE + text + "]" * _LEVELS_ABOVE)
    except (ValueError, RecursionError):
        return ()
    return tuple(
        Call(f"{step}.{number}", call.name, call.arguments)
        for number, call in enumerate(found, start=1)
    )


def text_of(value: object) -> str:
    """Return a value as a text: itself, or its JSON in one spelling."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def facts(episode: EpisodeRecord) -> dict[str, str]:
    """Return what a format has no field for, as texts; what nobody counted is left out."""
    values = episode.model_dump(
        mode="json",
        include={
            "index", "trial", "task_id", "difficulty", "seed", "reward", "reward_components",
            "end_reason", "failure", "turns", "dollars", "requests", "chain", "trajectory",
            "state_hash",
        },
    )  # fmt: skip
    values |= {f"tokens_{kind}": n for kind, n in episode.tokens.model_dump().items()}
    return {name: text_of(value) for name, value in values.items() if value is not None}


def provenance(bundle: Bundle) -> dict[str, str]:
    """Return what identifies a bundle and its setting, as texts; null is left out."""
    manifest = bundle.manifest
    values = manifest.model_dump(
        mode="json",
        include={
            "env_id", "env_kwargs", "env_digest", "scorer_digest", "budgets", "suite", "split",
            "first_index", "num_tasks", "trials", "seed", "track", "training", "registration",
            "prices", "machine", "root",
        },
    )  # fmt: skip
    values |= {
        "agent": manifest.agent.name,
        "agent_digest": manifest.agent.digest,
        "prompt_digest": manifest.agent.prompt_digest,
        "bundle_digest": manifest.digest,
    }
    return {name: text_of(value) for name, value in values.items() if value is not None}
