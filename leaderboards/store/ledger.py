"""The ledger: what happened in a store, in order, each entry bound to the one before.

    h_0 = H("treegrpo ledger 1", chain)
    h_i = H("treegrpo ledger 1", chain, i, time, kind, subject, who, detail, h_{i-1})

`chain` is the random name of the store that wrote the ledger. Ledgers of stores that were
merged into this one are kept as they are, beside its own; an entry "merge" of the own one holds
their size and last hash.

Recomputing the chain finds every entry that was changed, moved or taken out of the middle. It
cannot find a ledger that was cut at its end or rewritten whole: that takes a checkpoint (size
and last hash) which somebody else has.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.board import EventKind, LedgerEntry
from treegrpo.leaderboards.errors import StoreError, first_fault
from treegrpo.leaderboards.store.tables import LedgerTable, SchemaVersion

TAG = "treegrpo ledger 1"


class Checkpoint(BaseModel):
    """How far a ledger had come: for publication where the store's owner cannot reach it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    chain: str
    size: int
    root: str
    """Hash of entry number `size`; the chain's beginning where size is 0."""


def now() -> str:
    """Return the time as it is written everywhere: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def own_chain(session: Session) -> str:
    """Return the name of this store's ledger."""
    return session.scalars(sa.select(SchemaVersion.chain)).one()


def append(
    session: Session, kind: EventKind, subject: str, who: str, detail: dict[str, Any]
) -> None:
    """Write the next entry of this store's ledger, within a writing session."""
    chain = own_chain(session)
    query = sa.select(LedgerTable.number, LedgerTable.hash).where(LedgerTable.chain == chain)
    last = session.execute(query.order_by(LedgerTable.number.desc()).limit(1)).first()
    number, previous = (last.number + 1, last.hash) if last else (1, beginning(chain))
    entry = LedgerEntry(
        number=number, time=now(), kind=kind, subject=subject, who=who, detail=detail,
        previous=previous, hash="",
    )  # fmt: skip
    fields = entry.model_dump(exclude={"chain", "hash"})
    session.add(LedgerTable(**fields, chain=chain, hash=entry_hash(chain, entry)))
    session.flush()


def beginning(chain: str) -> str:
    """Return h_0 of a ledger."""
    return digest([TAG, chain])


def entry_hash(chain: str, entry: LedgerEntry) -> str:
    """Return the hash that an entry must have."""
    facts = [entry.number, entry.time, entry.kind, entry.subject, entry.who, entry.detail]
    return digest([TAG, chain, *facts, entry.previous])


def entries(
    session: Session,
    chain: str | None = None,
    subject: str | None = None,
    *,
    after: int = 0,
    limit: int | None = None,
) -> list[LedgerEntry]:
    """Return the entries of all ledgers, the own one first, or of one, or about one subject.

    Of each ledger those whose numbers are above `after`; of one ledger, the first `limit` of them.

    Raises:
        StoreError: an entry that no version writes.
    """
    own = own_chain(session)
    query = sa.select(LedgerTable).order_by(LedgerTable.chain, LedgerTable.number)
    query = query.where(LedgerTable.number > after).limit(limit)
    if chain is not None:
        query = query.where(LedgerTable.chain == chain)
    if subject is not None:
        query = query.where(LedgerTable.subject == subject)
    rows = sorted(session.scalars(query), key=lambda row: row.chain != own)
    return [_entry(row, own) for row in rows]


def chains(session: Session) -> list[str]:
    """Return the names of all ledgers in the store, the own one first."""
    own = own_chain(session)
    found = session.scalars(sa.select(LedgerTable.chain).distinct().order_by(LedgerTable.chain))
    return [own, *(chain for chain in found if chain != own)]


def check_chain(chain: str, found: Sequence[LedgerEntry]) -> Checkpoint:
    """Return how far a ledger has come, after recomputing all of it.

    Raises:
        StoreError: names the first entry that is missing, moved or altered.
    """
    previous = beginning(chain)
    for number, entry in enumerate(found, start=1):
        fault = None
        if entry.number != number:
            fault = f"entry {number} is missing"
        elif entry.previous != previous:
            fault = f"entry {number} does not follow the entry before it"
        elif entry_hash(chain, entry) != entry.hash:
            fault = f"entry {number} ({entry.kind} {entry.subject[:12]}) was altered"
        if fault:
            raise StoreError(
                f"The ledger {chain[:12]} asked for, but {fault}: its hashes do not come out. "
                "Restore the database from a backup; do not trust what it says since then."
            )
        previous = entry.hash
    return Checkpoint(chain=chain, size=len(found), root=previous)


def check_since(found: Sequence[LedgerEntry], before: Checkpoint) -> None:
    """Refuse a checked ledger that is not a continuation of what a checkpoint saw.

    Raises:
        StoreError: the ledger was cut or rewritten since.
    """
    roots = [beginning(before.chain), *(entry.hash for entry in found)]
    if not 0 <= before.size < len(roots):
        raise StoreError(
            f"A ledger of at least {before.size} entries asked for by the checkpoint, found "
            f"{len(roots) - 1}: entries were taken off its end. Restore it from a backup."
        )
    if roots[before.size] != before.root:
        raise StoreError(
            f"The ledger that the checkpoint saw at {before.size} entries asked for, found "
            "another one: it was rewritten. Restore it from a backup."
        )


def parse_checkpoint(text: str, where: str) -> Checkpoint:
    """Return the checkpoint that a text holds.

    Raises:
        StoreError: no checkpoint.
    """
    try:
        return Checkpoint.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"A checkpoint in '{where}' asked for, but {first_fault(error)}. Give what "
            "treegrpo leaderboard ledger --checkpoint has printed."
        ) from None


def _entry(row: LedgerTable, own: str) -> LedgerEntry:
    try:
        return LedgerEntry.model_validate(
            {name: getattr(row, name) for name in LedgerEntry.model_fields}
            | {"chain": "" if row.chain == own else row.chain}
        )
    except ValidationError as error:
        raise StoreError(
            f"Entry {row.number} of the ledger {row.chain[:12]} asked for, but it was altered: "
            f"{first_fault(error)}. Restore the database from a backup."
        ) from None
