"""The tables of the results database; every other file of the store reads and writes these.

    board           what runs must share to be ranked with one another
    run             one verified bundle or one claim: setting, scores, costs, rank
    episode         one episode of a run
    verification    one replay of a run
    object          the files of a bundle that are kept among the objects, by digest
    epoch           public salts, from which the seeds of registered runs are derived
    registration    what somebody said would be run, before it was
    ledger          append-only: what happened, hash upon hash; merged ledgers beside the own one
    schema_version  which tables these are, and the identity of this store

SQLite's tables are STRICT: a value of another type is refused as it is in PostgreSQL. JSON is
kept as text in one spelling, so that both databases give back the bytes that were hashed.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

JsonObject = dict[str, Any]
"""JSON data with names at its top."""


class Json(TypeDecorator[Any]):
    """JSON data as ASCII text with sorted keys."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text of a value; None is null."""
        return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value of a text."""
        return None if value is None else json.loads(value)


class Flag(TypeDecorator[bool]):
    """A truth value as 0 or 1, since STRICT tables know no other."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:
        """Return 0, 1 or null."""
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:
        """Return the truth value."""
        return None if value is None else bool(value)


Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""An integer of 64 bits."""

Real: Any = sa.Double[Any]().with_variant(sa.REAL(), "sqlite")
"""A float of 64 bits."""


class Base(DeclarativeBase):
    """Every table of the results database, those of a server included."""


class _Strict(Base):
    """A table whose columns have the types that SQLite's STRICT knows."""

    __abstract__ = True
    __table_args__: ClassVar[Any] = {"sqlite_strict": True}


class SchemaVersion(_Strict):
    """One row: the version of the tables, and a random name that this store's ledger bears."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(Whole, primary_key=True)
    chain: Mapped[str] = mapped_column(sa.Text)


class BoardTable(_Strict):
    """One board; the columns are those of BoardKey."""

    __tablename__ = "board"

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    env_id: Mapped[str] = mapped_column(sa.Text, index=True)
    env_kwargs: Mapped[JsonObject] = mapped_column(Json)
    split: Mapped[str] = mapped_column(sa.Text)
    track: Mapped[str] = mapped_column(sa.Text)
    tasks: Mapped[str] = mapped_column(sa.Text)


class RunTable(_Strict):
    """One run on its board; names and units are those of BoardRow."""

    __tablename__ = "run"

    digest: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    board: Mapped[str] = mapped_column(sa.ForeignKey("board.id"), index=True)
    tier: Mapped[int] = mapped_column(Whole)
    agent: Mapped[str] = mapped_column(sa.Text)
    agent_digest: Mapped[str] = mapped_column(sa.Text, index=True)
    model: Mapped[str | None] = mapped_column(sa.Text)
    provider: Mapped[str | None] = mapped_column(sa.Text)
    pinned: Mapped[str | None] = mapped_column(sa.Text)
    training: Mapped[str | None] = mapped_column(sa.Text)
    env_digest: Mapped[str | None] = mapped_column(sa.Text)
    seed: Mapped[int | None] = mapped_column(Whole)
    first_index: Mapped[int | None] = mapped_column(Whole)
    num_tasks: Mapped[int | None] = mapped_column(Whole)
    trials: Mapped[int | None] = mapped_column(Whole)
    solved: Mapped[list[int] | None] = mapped_column(Json)
    """Solved trials of each task in order of index: all that ranks are made of."""
    success: Mapped[float] = mapped_column(Real)
    success_low: Mapped[float | None] = mapped_column(Real)
    success_high: Mapped[float | None] = mapped_column(Real)
    reward: Mapped[float | None] = mapped_column(Real)
    rank: Mapped[int | None] = mapped_column(Whole)
    rank_low: Mapped[int | None] = mapped_column(Whole)
    rank_high: Mapped[int | None] = mapped_column(Whole)
    turns: Mapped[float | None] = mapped_column(Real)
    tool_calls: Mapped[float | None] = mapped_column(Real)
    wall_seconds: Mapped[float | None] = mapped_column(Real)
    input_tokens: Mapped[int | None] = mapped_column(Whole)
    cached_tokens: Mapped[int | None] = mapped_column(Whole)
    sampled_tokens: Mapped[int | None] = mapped_column(Whole)
    reasoning_tokens: Mapped[int | None] = mapped_column(Whole)
    dollars: Mapped[str | None] = mapped_column(sa.Text)
    dollars_per_success: Mapped[str | None] = mapped_column(sa.Text)
    prices: Mapped[str | None] = mapped_column(sa.Text)
    agent_failures: Mapped[int] = mapped_column(Whole)
    infrastructure_failures: Mapped[int] = mapped_column(Whole)
    words: Mapped[JsonObject] = mapped_column(Json)
    evaluated: Mapped[str] = mapped_column(sa.Text)
    submitted: Mapped[str] = mapped_column(sa.Text)
    signer: Mapped[str | None] = mapped_column(sa.Text)
    outdated: Mapped[bool] = mapped_column(Flag)
    registration: Mapped[str | None] = mapped_column(sa.ForeignKey("registration.id"), unique=True)
    """The registration that this run answers; null if it is not of tier 2."""
    not_fresh: Mapped[str | None] = mapped_column(sa.Text)
    claimed: Mapped[JsonObject | None] = mapped_column(Json)
    removed: Mapped[str | None] = mapped_column(sa.Text)


class EpisodeTable(_Strict):
    """One episode of a run."""

    __tablename__ = "episode"
    __table_args__: ClassVar[Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}

    run_digest: Mapped[str] = mapped_column(sa.ForeignKey("run.digest"), primary_key=True)
    index: Mapped[int] = mapped_column(Whole, primary_key=True)
    trial: Mapped[int] = mapped_column(Whole, primary_key=True)
    difficulty: Mapped[int | None] = mapped_column(Whole)
    success: Mapped[bool] = mapped_column(Flag)
    reward: Mapped[str] = mapped_column(sa.Text)
    failure: Mapped[str | None] = mapped_column(sa.Text)
    turns: Mapped[int] = mapped_column(Whole)
    tool_calls: Mapped[int] = mapped_column(Whole)
    sampled_tokens: Mapped[int | None] = mapped_column(Whole)
    dollars: Mapped[str | None] = mapped_column(sa.Text)


class VerificationTable(_Strict):
    """One replay of a run; names are those of VerificationEntry."""

    __tablename__ = "verification"

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    """Digest of run, time and findings, so that two stores agree on it."""
    run_digest: Mapped[str] = mapped_column(sa.ForeignKey("run.digest"), index=True)
    time: Mapped[str] = mapped_column(sa.Text)
    treegrpo_version: Mapped[str] = mapped_column(sa.Text)
    verified: Mapped[bool] = mapped_column(Flag)
    changed: Mapped[list[str]] = mapped_column(Json)
    episodes: Mapped[int] = mapped_column(Whole)
    matched: Mapped[int] = mapped_column(Whole)
    first_difference: Mapped[str | None] = mapped_column(sa.Text)
    words: Mapped[JsonObject] = mapped_column(Json)


class ObjectTable(_Strict):
    """A file of a bundle among the objects; action logs are named in episodes.jsonl instead."""

    __tablename__ = "object"

    run_digest: Mapped[str] = mapped_column(sa.ForeignKey("run.digest"), primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    digest: Mapped[str] = mapped_column(sa.Text)


class EpochTable(_Strict):
    """A public salt; registrations take the newest."""

    __tablename__ = "epoch"

    salt: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    created: Mapped[str] = mapped_column(sa.Text)


class RegistrationTable(_Strict):
    """What somebody said would be run."""

    __tablename__ = "registration"

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    """Digest of the manifest."""
    registered: Mapped[str] = mapped_column(sa.Text)
    board: Mapped[str] = mapped_column(sa.Text, index=True)
    """Id of the board on which its run will stand."""
    agent_digest: Mapped[str] = mapped_column(sa.Text)
    manifest: Mapped[JsonObject] = mapped_column(Json)


class LedgerTable(_Strict):
    """One line of a ledger; see ledger.py."""

    __tablename__ = "ledger"
    __table_args__: ClassVar[Any] = (
        sa.Index("ix_ledger_subject", "subject"),
        {"sqlite_strict": True, "sqlite_with_rowid": False},
    )

    chain: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    number: Mapped[int] = mapped_column(Whole, primary_key=True)
    time: Mapped[str] = mapped_column(sa.Text)
    kind: Mapped[str] = mapped_column(sa.Text)
    subject: Mapped[str] = mapped_column(sa.Text)
    who: Mapped[str] = mapped_column(sa.Text)
    detail: Mapped[JsonObject] = mapped_column(Json)
    previous: Mapped[str] = mapped_column(sa.Text)
    hash: Mapped[str] = mapped_column(sa.Text)


STORE_TABLES = (
    SchemaVersion, BoardTable, EpochTable, RegistrationTable, RunTable, EpisodeTable,
    VerificationTable, ObjectTable, LedgerTable,
)  # fmt: skip
"""The tables of the store itself, each after those that it refers to."""


def make_tables(session: Session, version: int) -> None:
    """Make the tables of the store, within a writing session, and name its ledger."""
    tables: Any = [table.__table__ for table in STORE_TABLES]
    Base.metadata.create_all(session.connection(), tables=tables)
    session.add(SchemaVersion(version=version, chain=secrets.token_hex(32)))
    session.flush()
