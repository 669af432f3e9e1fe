"""The files of a bundle, as frozen models: what may stand in them and nothing else.

    run.json                          Manifest: what was run, with what, and the root of it all
    episodes.jsonl                    EpisodeRecord: one line per episode, by task, then trial
    trajectories/CHAIN.jsonl.gz       one event a line: the action log that ends in hash CHAIN

Every field has a bound, so that a hostile file is refused before anything is built from it.
A number that is no integer is a decimal string with one spelling only. Null is not zero: it
says that nobody counted.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

FORMAT = "treegrpo-bundle"
FORMAT_VERSION = 2
Failure = Literal["policy", "provider", "tool", "sandbox", "environment", "grader"]
"""Who made an episode fail; `treegrpo.leaderboards.play` says which happens when."""
AGENT_FAILURES = frozenset({"policy"})
"""The agent's own. All others are failures of the infrastructure; both score 0."""
Track = Literal["single-pass", "search"]
Training = Literal["zero-shot", "trained-in-suite", "tuned-on-benchmark"]

MAX_EPISODES = 200_000


def _one_spelling(text: str) -> str:
    if not math.isfinite(float(text)):
        raise ValueError("the number must be finite")
    if repr(float(text)) != text:
        raise ValueError(f"the one spelling of this number is {float(text)!r}")
    return text


def _one_amount(text: str) -> str:
    if "." in text and text.endswith("0"):
        raise ValueError("an amount has no zeros at its end")
    return text


def _plain_name(text: str) -> str:
    """Refuse what looks like another name: hidden, reordering or composed characters."""
    for character in text:
        category = unicodedata.category(character)
        if category[0] == "C" or category in ("Zl", "Zp"):
            raise ValueError(f"a name may not hold the hidden character U+{ord(character):04X}")
    if unicodedata.normalize("NFKC", text) != text:
        raise ValueError("a name must be in Unicode's normal form NFKC")
    if text != text.strip():
        raise ValueError("a name may not begin or end with a space")
    return text


Label = Annotated[str, Field(min_length=1, max_length=200)]
"""A word that the environment gives; replay compares it."""
Name = Annotated[Label, AfterValidator(_plain_name)]
"""A word that people read and compare by eye."""
Text = Annotated[str, Field(max_length=2_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=MAX_EPISODES)]
Difficulty = Annotated[int, Field(ge=-(2**53), le=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[
    str,
    Field(pattern=r"^-?\d{1,330}(\.\d{1,350})?(e[+-]?\d{1,3})?$", max_length=400),
    AfterValidator(_one_spelling),
]
"""The shortest decimal text that gives a float back."""
Seconds = Annotated[
    str,
    Field(pattern=r"^\d{1,9}(\.\d{1,30})?(e-\d{1,3})?$", max_length=50),
    AfterValidator(_one_spelling),
]
"""A Number from 0 to below 10**9 (31 years): no sum of what is declared is infinite."""
Dollars = Annotated[
    str,
    Field(pattern=r"^(0|[1-9]\d{0,11})(\.\d{1,12})?$", max_length=25),
    AfterValidator(_one_amount),
]


class _Strict(BaseModel):
    """No coercion, no unknown field, no change after construction."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TaskEntry(_Strict):
    """One task of the evaluation; id, difficulty and digest are null if no reset succeeded."""

    index: Count
    id: Label | None
    difficulty: Difficulty | None
    digest: Digest | None
    """Digest of question, answer, difficulty and data."""


class SuiteRef(_Strict):
    """The suite that this evaluation is a part of."""

    name: Name
    digest: Digest
    """Digest of the suite's entries: environments, options, splits, weights."""


class AgentEntry(_Strict):
    """Who acted; all of it declared."""

    name: Name
    digest: Name
    """What identifies the agent's weights or code."""
    model: Name | None
    provider: Name | None
    settings: dict[Name, JsonValue]
    prompt_digest: Digest | None
    """Digest of the prompt that the agent adds to the environment's own."""


class Budgets(_Strict):
    """The limits in force; null is unlimited."""

    max_turns: Count
    max_tool_calls: Count
    max_seconds: Number | None
    max_observation_chars: Count
    max_action_chars: Count


class Machine(_Strict):
    """Where the evaluation ran; declared."""

    cores: Count
    system: Name


class Manifest(_Strict):
    """run.json: the whole setting of an evaluation, and the root of its episodes."""

    format: Literal["treegrpo-bundle"]
    format_version: Literal[2]
    env_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,200}$")]
    env_kwargs: dict[Name, JsonValue]
    env_digest: Digest | None
    """Digest of the environment's source files; null where they cannot be read."""
    scorer_digest: Digest | None
    """Digest of the source files that score; null where they cannot be read."""
    budgets: Budgets
    suite: SuiteRef | None
    split: Name
    first_index: Count
    num_tasks: Positive
    trials: Positive
    seed: Seed
    tasks: Annotated[list[TaskEntry], Field(min_length=1, max_length=MAX_EPISODES)]
    agent: AgentEntry
    track: Track
    """Whether the agent acted straight on, or searched over forks."""
    training: Training | None
    """What the agent's weights have seen of this environment; declared."""
    registration: Digest | None
    """Id of the registration that this run answers."""
    prices: Name | None
    """Id of the dated price table behind the dollars."""
    versions: dict[Name, Name]
    command: Text
    """A command line that asks for this evaluation again."""
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    machine: Machine
    root: Digest
    """Merkle root over the episodes, by task index, then trial."""
    digest: Digest
    """Digest of all the above: the bundle's identity."""


class Tokens(_Strict):
    """Tokens by kind: `cached` is a part of `input`, `reasoning` a part of `output`."""

    input: Count | None
    cached: Count | None
    output: Count | None
    """Sampled tokens."""
    reasoning: Count | None


class SearchEntry(_Strict):
    """What a search did in forks, beside the steps of the episode itself; declared."""

    branches: Count
    """Leaves of the tree of forks."""
    turns: Count
    """Steps taken in forks."""
    tool_calls: Count


def _given(value: object) -> object:
    if value is None:
        raise ValueError("leave the field out instead of giving null: it has one spelling")
    return value


class EpisodeRecord(_Strict):
    """One episode. Failures, tokens, dollars and seconds are declared, the rest is replayed.

    A failed episode scores 0 whatever happened before. The optional fields are left out where
    there is nothing to say.
    """

    index: Count
    trial: Count
    task_id: Label | None
    difficulty: Difficulty | None
    seed: Seed
    reward: Number
    reward_components: dict[Label, Number]
    success: bool
    end_reason: Label | None
    """Why the environment ended the episode; null when a failure did."""
    failure: Failure | None
    failure_detail: Text | None
    turns: Count
    tool_calls: Count
    tokens: Tokens
    dollars: Dollars | None
    requests: Count | None
    """Requests sent to a model."""
    wall_seconds: Seconds
    """From reset to end; episodes of one batch overlap."""
    chain: Digest | None
    """Last hash of the action log, and the name of its file; null if no reset succeeded."""
    trajectory: Digest | None
    """Digest of that file's bytes; null where there is none."""
    state_hash: Digest | None
    search: Annotated[SearchEntry | None, AfterValidator(_given)] = None
    """Optional: what was done in forks, all branches counted."""
    reruns: Annotated[Positive | None, AfterValidator(_given)] = None
    """Optional: how often the episode was played before and failed by its provider; the tokens,
    dollars and requests of those attempts are counted in."""

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write no optional field that has nothing to say: each value has one spelling."""
        fields: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in fields.items()
            if value is not None or name not in ("search", "reruns")
        }
