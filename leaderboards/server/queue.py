"""The queue of submissions: kept in the database, so that no kill loses one.

    waiting -> verifying -> verified | refused | failed
                   |
                   +-> waiting again, when the verifier's lease runs out or it gives it back

A submission is accepted when its row is committed; its tar file lies in the inbox before that.
Whoever takes one gets a lease and renews it. Three verifiers that died of the same submission
are enough: it has failed. One that waits again waits behind all others, so that none of which
verifiers die, or for which they cannot reach something, holds up the rest.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from treegrpo.envs.episode import clean_text
from treegrpo.leaderboards.server.tables import SubmissionTable
from treegrpo.leaderboards.store.database import Database

State = Literal["waiting", "verifying", "verified", "refused", "failed"]
OPEN: tuple[State, ...] = ("waiting", "verifying")
MAX_ATTEMPTS = 3


class Submission(BaseModel):
    """One submission as its owner sees it; `run_digest` is known once it was read."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    owner: str
    archive: str | None
    state: State
    run_digest: str | None
    reason: str | None
    received: str
    decided: str | None


def new_id() -> str:
    """Return an id for a submission; its tar file has that name before it is accepted."""
    return secrets.token_hex(16)


def enqueue(
    database: Database,
    submission_id: str,
    owner: str,
    *,
    archive: str | None = None,
    run_digest: str | None = None,
) -> Submission:
    """Return the submission, which waits from now on.

    The same archive of the same owner is one submission while it is open or once it was
    verified, so that a client that heard no answer may send it again: then that one is returned.
    """
    row = SubmissionTable(
        id=submission_id,
        owner=owner,
        archive=archive,
        run_digest=run_digest,
        state="waiting",
        lease_until=time.time(),
        received=_now(),
    )
    same = sa.select(SubmissionTable).where(
        SubmissionTable.owner == owner,
        SubmissionTable.archive == archive,
        SubmissionTable.state.in_((*OPEN, "verified")),
    )
    with database.writing() as session:
        known = session.scalars(same).first() if archive is not None else None
        if known is None:
            session.add(row)
            session.flush()
        return Submission.model_validate(known or row)


def num_open(database: Database, owner: str | None = None) -> int:
    """Return how many submissions are not decided yet, of all owners or of one."""
    query = sa.select(sa.func.count()).where(SubmissionTable.state.in_(OPEN))
    if owner is not None:
        query = query.where(SubmissionTable.owner == owner)
    with database.reading() as session:
        return session.scalar(query) or 0


def get_submission(database: Database, submission_id: str) -> Submission | None:
    """Return one submission, or None."""
    with database.reading() as session:
        row = session.get(SubmissionTable, submission_id)
        return None if row is None else Submission.model_validate(row)


def is_open(database: Database, submission_id: str) -> bool:
    """Return whether a submission was accepted and is not decided."""
    found = get_submission(database, submission_id)
    return found is not None and found.state in OPEN


def list_submissions(
    database: Database, owner: str | None, limit: int = 200
) -> Sequence[Submission]:
    """Return the newest submissions of an owner, or of all."""
    query = sa.select(SubmissionTable).order_by(SubmissionTable.received.desc()).limit(limit)
    if owner is not None:
        query = query.where(SubmissionTable.owner == owner)
    with database.reading() as session:
        return [Submission.model_validate(row) for row in session.scalars(query)]


def take(database: Database, worker: str, lease_s: float) -> Submission | None:
    """Return the submission that is longest without a verifier, now this worker's."""
    now = time.time()
    free = sa.or_(
        SubmissionTable.state == "waiting",
        sa.and_(SubmissionTable.state == "verifying", SubmissionTable.lease_until < now),
    )
    order = SubmissionTable.lease_until.nulls_first(), SubmissionTable.received
    oldest = sa.select(SubmissionTable.id).where(free).order_by(*order).limit(1)
    # Whether it is still free is asked again by the update: of two workers, one gets it.
    taken = (
        sa.update(SubmissionTable)
        .where(SubmissionTable.id == oldest.scalar_subquery(), free)
        .values(
            state="verifying",
            worker=worker,
            lease_until=now + lease_s,
            attempts=SubmissionTable.attempts + 1,
        )
        .returning(SubmissionTable.id)
    )
    with database.writing() as session:
        found = session.scalar(taken)
        row = None if found is None else session.get(SubmissionTable, found)
        if row is None:
            return None
        if row.attempts > MAX_ATTEMPTS:
            row.state, row.decided, row.worker = "failed", _now(), None
            row.reason = (
                f"Its verification ended {MAX_ATTEMPTS} times without an answer. Verify the "
                "bundle yourself with treegrpo leaderboard verify, then tell the operator."
            )
        return Submission.model_validate(row)


def renew(database: Database, submission_id: str, worker: str, lease_s: float) -> bool:
    """Return whether the submission is still this worker's, for another lease."""
    return _mine(database, submission_id, worker, lease_until=time.time() + lease_s)


def give_back(database: Database, submission_id: str, worker: str, *, counted: bool) -> bool:
    """Return whether the submission was this worker's; it waits again, behind all others.

    Args:
        database: holds the queue.
        submission_id: what the worker has taken.
        worker: who gives it back.
        counted: whether this was one of its attempts.
    """
    return _mine(
        database,
        submission_id,
        worker,
        state="waiting",
        worker=None,
        lease_until=time.time(),
        attempts=SubmissionTable.attempts - (0 if counted else 1),
    )


def decide(
    database: Database,
    submission_id: str,
    worker: str,
    state: Literal["verified", "refused"],
    *,
    run_digest: str | None,
    reason: str | None,
) -> bool:
    """Return whether the decision counts: one whose lease was lost decides nothing."""
    return _mine(
        database,
        submission_id,
        worker,
        state=state,
        run_digest=run_digest,
        # What was refused may stand in it: PostgreSQL takes no NUL, and nobody a lone surrogate.
        reason=None if reason is None else clean_text(reason).replace("\0", "?"),
        decided=_now(),
        worker=None,
        lease_until=None,
    )


def _mine(database: Database, submission_id: str, holder: str, **values: object) -> bool:
    update = (
        sa.update(SubmissionTable)
        .where(SubmissionTable.id == submission_id, SubmissionTable.worker == holder)
        .where(SubmissionTable.state == "verifying")
        .values(**values)
        .returning(SubmissionTable.id)
    )
    with database.writing() as session:
        return session.scalar(update) is not None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
