"""The results database: verified runs, their episodes, and what verification said.

SQLite in one file by default; any SQLAlchemy URL works. Only what replays gets in, whole runs
only, each once (a bundle's digest is its key).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import treegrpo
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import StoreError, Unverified
from treegrpo.leaderboards.summary import summarise
from treegrpo.leaderboards.verify import Options, VerifyReport, verify_bundle

DEFAULT_STORE = "sqlite:///leaderboard.sqlite"


class _Base(DeclarativeBase):
    """The tables below."""


class Run(_Base):
    """One verified bundle: its setting and its scores."""

    __tablename__ = "run"

    digest: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    agent: Mapped[str]
    agent_digest: Mapped[str]
    env_id: Mapped[str] = mapped_column(index=True)
    env_digest: Mapped[str | None]
    split: Mapped[str]
    num_tasks: Mapped[int]
    trials: Mapped[int]
    seed: Mapped[int] = mapped_column(sa.BigInteger)
    success: Mapped[float]
    success_low: Mapped[float | None]
    success_high: Mapped[float | None]
    reward: Mapped[float]
    turns: Mapped[float]
    tool_calls: Mapped[float]
    sampled_tokens: Mapped[int | None] = mapped_column(sa.BigInteger)
    created: Mapped[str]
    manifest: Mapped[str] = mapped_column(sa.Text)
    episodes: Mapped[list[EpisodeRow]] = relationship(cascade="all, delete-orphan")
    verifications: Mapped[list[Verification]] = relationship(
        cascade="all, delete-orphan", order_by="Verification.id"
    )


class EpisodeRow(_Base):
    """One episode of a run."""

    __tablename__ = "episode"

    run_digest: Mapped[str] = mapped_column(sa.ForeignKey("run.digest"), primary_key=True)
    index: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    trial: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str | None]
    difficulty: Mapped[int | None]
    reward: Mapped[str]
    success: Mapped[bool]
    end_reason: Mapped[str | None]
    failure: Mapped[str | None]
    turns: Mapped[int]
    tool_calls: Mapped[int]
    sampled_tokens: Mapped[int | None] = mapped_column(sa.BigInteger)


class Verification(_Base):
    """One replay of a run: when, with which version, and the word of each number."""

    __tablename__ = "verification"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_digest: Mapped[str] = mapped_column(sa.ForeignKey("run.digest"), index=True)
    verified: Mapped[str]
    treegrpo_version: Mapped[str]
    environment_changed: Mapped[bool]
    words: Mapped[dict[str, str]] = mapped_column(sa.JSON)


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard; `rank` counts within the same environment and split.

    `turns` and `tool_calls` are means per episode, `sampled_tokens` the total (None: nobody
    counted). `words` says for each number whether it was replayed, recomputed or declared.
    """

    rank: int
    agent: str
    env_id: str
    split: str
    success: float
    success_low: float | None
    success_high: float | None
    num_tasks: int
    trials: int
    turns: float
    tool_calls: float
    sampled_tokens: int | None
    words: dict[str, str]
    digest: str


def add(path: Path, store: str = DEFAULT_STORE, *, options: Options | None = None) -> str:
    """Return the digest of the bundle at `path`, which is in the store from now on.

    The bundle is replayed whole first; one that is in the store already is left alone.

    Raises:
        BundleError: the bundle cannot be read.
        Unverified: its replay gives other results; the first difference is in the message.
        StoreError: the database cannot be opened or written; nothing was added.
    """
    if options is not None and options.sample is not None:
        raise StoreError(
            f"Adding '{path}' after a sample of {options.sample} episodes asked for, but only what "
            "replays whole gets in. Leave the sample out."
        )
    bundle = read_bundle(path)
    if _holds(store, bundle.digest):
        return bundle.digest
    report = verify_bundle(bundle, options)
    if not report.verified:
        raise Unverified(
            f"Adding the bundle '{path}' asked for, but it does not verify: "
            f"{report.first_difference}. Evaluate again with this version, then add the new bundle."
        )
    with _session(store, create=True) as session, session.begin():
        if session.get(Run, bundle.digest) is None:
            session.add(_run(bundle, report))
    return bundle.digest


def table(store: str = DEFAULT_STORE, env_id: str | None = None) -> list[Row]:
    """Return the rows, best success first, grouped by environment and split.

    Runs with the same success share a rank; more tasks stand first among them.

    Raises:
        StoreError: there is no such database, or it cannot be read.
    """
    query = sa.select(Run).order_by(
        Run.env_id, Run.split, Run.success.desc(), Run.num_tasks.desc(), Run.agent, Run.digest
    )
    if env_id is not None:
        query = query.where(Run.env_id == env_id)
    rows: list[Row] = []
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with _session(store, create=False) as session:
        for run in session.scalars(query):
            scores = groups[run.env_id, run.split]
            scores.append(run.success)
            rows.append(_row(run, rank=1 + sum(score > run.success for score in scores)))
    return rows


def _holds(store: str, digest: str) -> bool:
    """Return whether a run is in the store; a store that does not exist yet is not made."""
    url = _checked_url(store, create=True)
    file = _sqlite_file(url)
    if file is not None and not file.exists():
        return False
    with _session(store, create=False) as session:
        if not sa.inspect(session.connection()).has_table(Run.__tablename__):
            return False
        return session.get(Run, digest) is not None


def _run(bundle: Bundle, report: VerifyReport) -> Run:
    manifest, summary = bundle.manifest, summarise(bundle)
    shared = (
        "index", "trial", "task_id", "difficulty", "reward", "success", "end_reason", "failure",
        "turns", "tool_calls",
    )  # fmt: skip
    return Run(
        digest=bundle.digest,
        agent=manifest.agent.name,
        agent_digest=manifest.agent.digest,
        env_id=manifest.env_id,
        env_digest=manifest.env_digest,
        split=manifest.split,
        num_tasks=manifest.num_tasks,
        trials=manifest.trials,
        seed=manifest.seed,
        success=summary.success.mean,
        success_low=summary.success.low,
        success_high=summary.success.high,
        reward=summary.reward.mean,
        turns=summary.turns,
        tool_calls=summary.tool_calls,
        sampled_tokens=summary.sampled_tokens,
        created=manifest.created,
        manifest=manifest.model_dump_json(),
        episodes=[
            EpisodeRow(**e.model_dump(include=set(shared)), sampled_tokens=e.tokens.output)
            for e in bundle.episodes
        ],
        verifications=[
            Verification(
                verified=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                treegrpo_version=treegrpo.__version__,
                environment_changed=bool(report.changed),
                words=dict(report.words),
            )
        ],
    )


def _row(run: Run, *, rank: int) -> Row:
    return Row(
        rank=rank,
        agent=run.agent,
        env_id=run.env_id,
        split=run.split,
        success=run.success,
        success_low=run.success_low,
        success_high=run.success_high,
        num_tasks=run.num_tasks,
        trials=run.trials,
        turns=run.turns,
        tool_calls=run.tool_calls,
        sampled_tokens=run.sampled_tokens,
        words=dict(run.verifications[-1].words),
        digest=run.digest,
    )


@contextlib.contextmanager
def _session(store: str, *, create: bool) -> Generator[Session]:
    """Yield a session on the database, its tables made when `create`.

    Every error of the database becomes one StoreError.
    """
    url = _checked_url(store, create)
    try:
        engine = sa.create_engine(url)
        try:
            if create:
                _Base.metadata.create_all(engine)
            with Session(engine) as session:
                yield session
        finally:
            engine.dispose()
    except exc.SQLAlchemyError as error:
        cause: Any = getattr(error, "orig", None) or error
        raise StoreError(
            f"The results database '{url.render_as_string()}' asked for, but: {cause}. "
            "Give the URL of a database that treegrpo leaderboard add has made, or of a new one."
        ) from error
    except ModuleNotFoundError as error:
        raise StoreError(
            f"The results database '{url.render_as_string()}' asked for, but its driver is "
            f"missing: {error}. Install it with pip, or use sqlite:///FILE."
        ) from error


def _checked_url(store: str, create: bool) -> URL:
    """Return the URL; SQLite would silently make a missing file where reading was asked for."""
    try:
        url = make_url(store)
    except exc.ArgumentError:
        raise StoreError(
            f"The results database '{store}' asked for, but that is no database URL. "
            f"Write it as {DEFAULT_STORE}."
        ) from None
    file = _sqlite_file(url)
    if file is None:
        return url
    if not create and not file.exists():
        raise StoreError(
            f"The results database '{store}' asked for, but there is no file '{file}'. "
            "Add a bundle first: treegrpo leaderboard add BUNDLE."
        )
    if create and not file.parent.is_dir():
        raise StoreError(
            f"The results database '{store}' asked for, but there is no folder '{file.parent}'. "
            "Make the folder, or give another path."
        )
    return url


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)
