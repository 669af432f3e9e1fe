"""What is read from the store: boards, runs, environments. Nothing here computes a rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest as digest_of
from treegrpo.envs.errors import suggest
from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import (
    Board,
    BoardKey,
    BoardRow,
    EnvironmentDetail,
    RunDetail,
    TaskDifficulty,
    VerificationEntry,
)
from treegrpo.leaderboards.errors import NotInStore
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.keys import CLAIMED, all_keys, key_of
from treegrpo.leaderboards.store.ledger import entries
from treegrpo.leaderboards.store.restore import kept_bundle
from treegrpo.leaderboards.store.tables import (
    BoardTable,
    EpisodeTable,
    RegistrationTable,
    RunTable,
    VerificationTable,
)

_ROW_FIELDS = [name for name in BoardRow.model_fields if name != "attempts"]
_ROW_COLUMNS = [getattr(RunTable, name) for name in _ROW_FIELDS]


def boards(database: Database) -> list[BoardKey]:
    """Return every board with a row: by environment, options, split; fresh first, claims last."""
    with database.reading() as session:
        return all_keys(session)


def board(database: Database, board_id: str) -> Board:
    """Return one board: best success first, outdated rows last; removed runs are not on it.

    Raises:
        StoreError: there is no such board; the closest id is named.
    """
    with database.reading() as session:
        row = session.get(BoardTable, board_id)
        if row is None:
            known = session.scalars(sa.select(BoardTable.id)).all()
            raise NotInStore(
                f"Board '{board_id}' asked for; the store has {len(known)} others."
                f"{suggest(board_id, known)} See treegrpo leaderboard table."
            )
        key, rows = key_of(row), _rows(session, RunTable.board == board_id)
        if key.env_kwargs.get("lower_is_better") is True and key.tasks == CLAIMED:
            rows.reverse()
        return Board(key=key, rows=rows)


def run_detail(database: Database, digest: str) -> RunDetail:
    """Return everything that is known of a run, removed ones included.

    Args:
        database: the store.
        digest: of the run, or at least its first 8 digits.

    Raises:
        StoreError: there is no such run, or its files are damaged.
    """
    with database.reading() as session:
        run = find_run(session, digest)
        [row] = _rows(session, RunTable.digest == run.digest, removed=True)
        bundle = kept_bundle(session, database.objects, run.digest)
        return RunDetail(
            key=key_of(session.get_one(BoardTable, run.board)),
            row=row,
            manifest=bundle.manifest,
            verifications=_verifications(session, run.digest),
            ledger=entries(session, subject=run.digest),
            episodes=bundle.episodes,
            removed=run.removed,
            not_fresh=run.not_fresh,
            claimed=run.claimed,
        )


def environment_detail(
    database: Database, env_id: str, env_kwargs: Mapping[str, Any], split: str
) -> EnvironmentDetail:
    """Return what the runs of all boards of an environment, its options and a split say of it.

    Raises:
        StoreError: there is no such board.
    """
    with database.reading() as session:
        wanted = digest_of(dict(env_kwargs))
        keys = [
            key
            for key in all_keys(session)
            if (key.env_id, key.split) == (env_id, split) and digest_of(key.env_kwargs) == wanted
        ]
        if not keys:
            raise NotInStore(
                f"Environment '{env_id}' ({split}) with the options {dict(env_kwargs)} asked for; "
                "the store has no board of it. See treegrpo leaderboard table."
            )
        here = sa.and_(RunTable.board.in_([key.id for key in keys]), RunTable.removed.is_(None))
        episodes, matched = session.execute(
            sa.select(
                sa.func.coalesce(sa.func.sum(VerificationTable.episodes), 0),
                sa.func.coalesce(sa.func.sum(VerificationTable.matched), 0),
            )
            .join(RunTable)
            .where(here)
        ).one()
        return EnvironmentDetail(
            env_id=env_id,
            env_kwargs=dict(env_kwargs),
            split=split,
            boards=keys,
            pinned=_rows(session, sa.and_(here, RunTable.pinned.is_not(None))),
            tasks=_difficulties(session, here),
            replayed_episodes=int(episodes),
            matched_episodes=int(matched),
        )


def episode_events(database: Database, digest: str, index: int, trial: int) -> list[Event]:
    """Return the action log of one episode; empty if not even its reset succeeded.

    Raises:
        StoreError: there is no such episode, or its files are damaged.
    """
    return episode_logs(database, digest)(index, trial)


def episode_logs(database: Database, digest: str) -> Callable[[int, int], list[Event]]:
    """Return what gives the action log of each episode (index, trial) of one run.

    Raises:
        StoreError: there is no such run, or its files are damaged.
    """
    with database.reading() as session:
        run = find_run(session, digest)
        return kept_bundle(session, database.objects, run.digest).events


def find_run(session: Session, digest: str) -> RunTable:
    """Return the one run whose digest begins so.

    Raises:
        NotInStore: none, several, or too few digits.
    """
    found: list[RunTable] = []
    if len(digest) >= 8 and digest.isalnum():
        query = sa.select(RunTable).where(RunTable.digest.startswith(digest)).limit(2)
        found = list(session.scalars(query))
    if len(found) != 1:
        what = "no run begins so" if not found else "several runs begin so"
        raise NotInStore(
            f"Run '{digest:.64}' asked for, but {what}. Give at least 8 digits of its digest; "
            "treegrpo leaderboard table shows 12."
        )
    return found[0]


def _rows(session: Session, where: Any, *, removed: bool = False) -> list[BoardRow]:
    query = sa.select(*_ROW_COLUMNS, RunTable.board).where(where)
    if not removed:
        query = query.where(RunTable.removed.is_(None))
    query = query.order_by(
        RunTable.outdated, RunTable.success.desc(), RunTable.num_tasks.desc(), RunTable.digest
    )
    attempts = _attempts(session)
    rows: list[BoardRow] = []
    for found in session.execute(query):
        fields = dict(zip(_ROW_FIELDS, found, strict=False))
        tries = attempts.get((found.board, found.agent_digest), 1)
        rows.append(BoardRow.model_validate(fields | {"attempts": tries}))
    return rows


def _attempts(session: Session) -> dict[tuple[str, str], int]:
    """Return the number of registrations by board and agent, whether a run followed or not."""
    table = RegistrationTable
    query = sa.select(table.board, table.agent_digest, sa.func.count())
    found = session.execute(query.group_by(table.board, table.agent_digest))
    return {(board, agent): count for board, agent, count in found}


def _verifications(session: Session, digest: str) -> list[VerificationEntry]:
    query = sa.select(VerificationTable).where(VerificationTable.run_digest == digest)
    rows = session.scalars(query.order_by(VerificationTable.time, VerificationTable.id))
    fields = VerificationEntry.model_fields
    return [VerificationEntry(**{name: getattr(row, name) for name in fields}) for row in rows]


def _difficulties(session: Session, here: Any) -> list[TaskDifficulty]:
    query = (
        sa.select(
            EpisodeTable.index,
            sa.func.max(EpisodeTable.difficulty),
            sa.func.sum(EpisodeTable.success.cast(sa.Integer)),
            sa.func.count(),
        )
        .join(RunTable, RunTable.digest == EpisodeTable.run_digest)
        .where(here, RunTable.rank.is_not(None))
        .group_by(EpisodeTable.index)
        .order_by(EpisodeTable.index)
    )
    return [
        TaskDifficulty(
            index=index, difficulty=difficulty, success=int(solved) / count, episodes=count
        )
        for index, difficulty, solved, count in session.execute(query)
    ]
