"""Board keys: what runs must share to be ranked with one another, and who is no contestant."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.agents import SCRIPTED, scripted_agent
from treegrpo.leaderboards.board import BoardKey, Pinned
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.schema import Manifest
from treegrpo.leaderboards.store.tables import BoardTable, RunTable

FRESH = "fresh"
CLAIMED = "claimed"


def board_key(manifest: Manifest) -> BoardKey:
    """Return the board of a run that answers no registration: one per list of tasks."""
    tasks = task_list_digest([task.model_dump(mode="json") for task in manifest.tasks])
    return sealed_key(
        env_id=manifest.env_id,
        env_kwargs=manifest.env_kwargs,
        split=manifest.split,
        track=manifest.track,
        tasks=tasks,
    )


def sealed_key(**fields: Any) -> BoardKey:
    """Return the key of these fields, with its id."""
    draft = BoardKey(id="", **fields)
    return draft.model_copy(update={"id": digest(draft.model_dump(exclude={"id"}))[:12]})


def task_list_digest(tasks: list[dict[str, Any]]) -> str:
    """Return the digest of a list of tasks, as run.json has it."""
    return digest(tasks)


def ensure_board(session: Session, key: BoardKey) -> str:
    """Return the id of a board that is in the database from now on.

    Raises:
        StoreError: another board has the same id, which nobody meets by chance.
    """
    known = session.get(BoardTable, key.id)
    if known is None:
        session.add(BoardTable(**key.model_dump()))
        session.flush()
    elif digest(key_of(known).model_dump()) != digest(key.model_dump()):
        raise StoreError(
            f"A board for {key.env_id} ({key.split}) asked for, but another one has its id "
            f"{key.id}: somebody searched for such options. Change an option of the environment."
        )
    return key.id


def key_of(row: BoardTable) -> BoardKey:
    """Return the key that a row of the table holds."""
    return BoardKey(**{name: getattr(row, name) for name in BoardKey.model_fields})


def all_keys(session: Session) -> list[BoardKey]:
    """Return every board with a row: by environment, options, split; fresh first, claims last."""
    shown = sa.exists().where(RunTable.board == BoardTable.id, RunTable.removed.is_(None))
    keys = [key_of(row) for row in session.scalars(sa.select(BoardTable).where(shown))]
    return sorted(keys, key=_place)


def _place(key: BoardKey) -> tuple[Any, ...]:
    kind = 0 if key.tasks.startswith(FRESH) else 2 if key.tasks == CLAIMED else 1
    return key.env_id, digest(key.env_kwargs), key.split, kind, key.track, key.tasks


@functools.cache
def _scripted() -> dict[str, Pinned]:
    names: tuple[Pinned, ...] = ("oracle", "random", "null")
    assert set(names) == set(SCRIPTED), "the scripted agents are the pinned rows"
    return {scripted_agent(name).digest: name for name in names}


def pinned_kind(agent_digest: str) -> Pinned | None:
    """Return which scripted agent has this digest; None for a contestant.

    A name proves nothing, and a digest little: what a scripted agent does is known, so a run
    that claims to be one can be compared with it (submissions.py).
    """
    return _scripted().get(agent_digest)
