"""What a leaderboard shows, as frozen models: the store makes them, pages and the server read them.

    BoardKey            which results are ranked with one another: never across two keys
    BoardRow            one run on a board, with the word of each of its numbers
    Board               the rows of one key, best first; the pinned floors and ceiling among them
    RunDetail           one run: manifest, verifications, ledger, episodes
    EnvironmentDetail   one environment: floors, ceiling, replays on record, difficulty of tasks

Null is not zero: it says that nobody counted.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from treegrpo.leaderboards.schema import EpisodeRecord, Manifest, Track, Training

Tier = Literal[0, 1, 2]
"""0 claimed: numbers only. 1 replayed: every action was played again. 2 fresh: replayed, on
seeds that were fixed after the run was registered, every registered attempt counted."""
Pinned = Literal["oracle", "random", "null"]
"""Rows that are no contestants: the ceiling and the floors."""
EventKind = Literal["epoch", "register", "submit", "verify", "rescore", "remove", "merge"]


class _Frozen(BaseModel):
    """No unknown field, no change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class BoardKey(_Frozen):
    """What two runs must share to be ranked with one another."""

    id: str
    """First 12 hexadecimal digits of the digest of the other fields; it names pages and URLs."""
    env_id: str
    env_kwargs: dict[str, JsonValue]
    split: str
    track: Track
    tasks: str
    """Digest of the task list, in front of which stands "fresh:" where only registered runs
    (tier 2) are ranked; "fresh" where each of those has tasks of its own; "claimed" for numbers
    without episodes."""


class BoardRow(_Frozen):
    """One run on its board; rates are shares of all episodes, failed ones included."""

    digest: str
    agent: str
    agent_digest: str
    model: str | None
    provider: str | None
    pinned: Pinned | None
    tier: Tier
    training: Training | None
    rank: int | None
    """1 + the number of rows whose interval lies wholly above this one's; null if it is pinned,
    outdated, claimed or of a single task."""
    rank_low: int | None
    """Best rank in 95 % of the bootstrap draws over tasks."""
    rank_high: int | None
    success: float
    """A claimed row shows its score here, whatever its metric: `RunDetail.claimed` says which."""
    success_low: float | None
    success_high: float | None
    reward: float | None
    """Null on a claimed row, as are all numbers that its source does not state."""
    num_tasks: int | None
    trials: int | None
    attempts: int
    """Registered runs of this agent on this board, 1 where it is not registered."""
    turns: float | None
    """Mean per episode, as are tool calls and seconds."""
    tool_calls: float | None
    wall_seconds: float | None
    input_tokens: int | None
    """Sum over all episodes, as are the other tokens and the dollars."""
    sampled_tokens: int | None
    dollars: str | None
    dollars_per_success: str | None
    agent_failures: int
    infrastructure_failures: int
    words: dict[str, Literal["replayed", "recomputed", "declared"]]
    evaluated: str
    """When the run was made; UTC, as 2026-11-28T06:00:00Z. So is `submitted`."""
    submitted: str
    signer: str | None
    outdated: bool
    """Whether the environment's source has changed since: shown in grey, never the best."""


class Board(_Frozen):
    """One ranking."""

    key: BoardKey
    rows: list[BoardRow]


class LedgerEntry(_Frozen):
    """One line of the append-only ledger; `hash` covers the entry and the hash before it."""

    number: int
    time: str
    kind: EventKind
    subject: str
    """Digest of the run or registration that it is about."""
    who: str
    """Name of the token's owner, or "local"."""
    detail: dict[str, JsonValue]
    previous: str
    hash: str
    chain: str = ""
    """Empty for the store's own ledger, else the identity of a store that was merged into it."""


class VerificationEntry(_Frozen):
    """One replay of a run."""

    time: str
    treegrpo_version: str
    verified: bool
    changed: list[str]
    """What differed from the manifest: env_digest, scorer_digest, budgets."""
    episodes: int
    """Episodes replayed."""
    first_difference: str | None
    words: dict[str, Literal["replayed", "recomputed", "declared"]]


class RunDetail(_Frozen):
    """Everything that is known of one run."""

    key: BoardKey
    row: BoardRow
    manifest: Manifest | None
    """Null where the result was only claimed."""
    verifications: list[VerificationEntry]
    ledger: list[LedgerEntry]
    episodes: list[EpisodeRecord]
    """Empty where there is no bundle: a claim, or a run of a store that kept none."""
    removed: str | None
    """The reason, where the run was removed."""
    not_fresh: str | None = None
    """Why a run that names a registration is not of tier 2."""
    claimed: dict[str, JsonValue] | None = None
    """The fields of the claim (claimed.py), where the result was only claimed."""


class TaskDifficulty(_Frozen):
    """How the ranked rows of all boards of an environment did on one task."""

    index: int
    difficulty: int | None
    success: float
    episodes: int


class EnvironmentDetail(_Frozen):
    """One environment with its options and split.

    The replays are those on record. A run that does not replay is not added, so they differ only
    where an added run was replayed again: they are no test of determinism, `treegrpo check` is.
    """

    env_id: str
    env_kwargs: dict[str, JsonValue]
    split: str
    boards: list[BoardKey]
    pinned: list[BoardRow]
    tasks: list[TaskDifficulty]
    replayed_episodes: int
    """Episodes of all runs that were replayed, and those that came out as recorded."""
    matched_episodes: int
