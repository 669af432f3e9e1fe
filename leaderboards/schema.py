"""The files of a bundle, as frozen models: what may stand in them and nothing else.

    run.json            Manifest: what was run, with what, and the digests of the other files
    episodes.jsonl      EpisodeRecord: one line per episode, by task index, then trial
    trajectories.jsonl  Trajectory: one line per episode, its hash-chained action log

Every field has a bound, so that a hostile file is refused before anything is built from it.
Rewards are decimal strings (the shortest that gives the float back). Null is not zero: it
says that nobody counted.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from treegrpo.envs.recorder import MAX_EVENTS, Event

FORMAT_VERSION = 1
Failure = Literal["policy", "tool", "sandbox", "environment", "grader"]
"""Who made an episode fail; `treegrpo.leaderboards.play` says which happens when."""

MAX_EPISODES = 1_000_000


def _finite_number(text: str) -> str:
    if not math.isfinite(float(text)):
        raise ValueError("a reward must be finite")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=2_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=MAX_EPISODES)]
Difficulty = Annotated[int, Field(ge=-(2**53), le=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Decimal = Annotated[
    str,
    Field(pattern=r"^-?\d{1,330}(\.\d{1,350})?(e[+-]?\d{1,3})?$", max_length=400),
    AfterValidator(_finite_number),
]


class _Strict(BaseModel):
    """No coercion, no unknown field, no change after construction."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TaskEntry(_Strict):
    """One task of the evaluation; id, difficulty and digest are null if no reset succeeded."""

    index: Count
    id: Name | None
    difficulty: Difficulty | None
    digest: Digest | None
    """Digest of question, answer, difficulty and data."""


class AgentEntry(_Strict):
    """Who acted."""

    name: Name
    digest: Name
    """What identifies the agent's weights or code; declared by the agent."""
    settings: dict[Name, JsonValue]


class Machine(_Strict):
    """Where the evaluation ran; declared."""

    cores: Count
    system: Name


class Manifest(_Strict):
    """run.json: the whole setting of an evaluation, and the digests of its files."""

    format: Literal["treegrpo-bundle"]
    format_version: Literal[1]
    env_id: Annotated[str, Field(pattern=r"^[\w.:/-]{1,200}$")]
    env_kwargs: dict[Name, JsonValue]
    env_digest: Digest | None
    """Digest of the environment's source files; null where they cannot be read."""
    split: Name
    first_index: Count
    num_tasks: Positive
    trials: Positive
    seed: Seed
    tasks: Annotated[list[TaskEntry], Field(min_length=1, max_length=MAX_EPISODES)]
    agent: AgentEntry
    versions: dict[Name, Name]
    command: Text
    """A command line that asks for this evaluation again."""
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    machine: Machine
    files: dict[Literal["episodes.jsonl", "trajectories.jsonl"], Digest]
    digest: Digest
    """Digest of all the above: the bundle's identity."""


class EpisodeRecord(_Strict):
    """One episode. Failures, tokens and seconds are declared, everything else is replayed.

    A failed episode scores 0 whatever happened before.
    """

    index: Count
    trial: Count
    task_id: Name | None
    difficulty: Difficulty | None
    seed: Seed
    reward: Decimal
    reward_components: dict[Name, Decimal]
    success: bool
    end_reason: Name | None
    failure: Failure | None
    failure_detail: Text | None
    turns: Count
    tool_calls: Count
    sampled_tokens: Count | None
    wall_seconds: Annotated[float, Field(ge=0)]
    """From reset to end; episodes of one batch overlap."""
    chain: Digest | None
    """Last hash of the action log; null if not even the reset succeeded."""
    state_hash: Digest | None


class Trajectory(_Strict):
    """The action log of one episode; empty if not even the reset succeeded."""

    index: Count
    trial: Count
    events: Annotated[
        list[Annotated[Event, Field(discriminator="kind")]], Field(max_length=MAX_EVENTS)
    ]
