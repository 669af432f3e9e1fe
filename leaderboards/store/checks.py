"""The whole ledger checked: every hash, and every row that the ledger is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest
from treegrpo.envs.recorder import decimal
from treegrpo.leaderboards.board import LedgerEntry
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.ledger import (
    Checkpoint,
    chains,
    check_chain,
    check_since,
    entries,
)
from treegrpo.leaderboards.store.registration import read_registration
from treegrpo.leaderboards.store.tables import EpochTable, RegistrationTable, RunTable


def check_ledger(database: Database, since: Checkpoint | None) -> list[Checkpoint]:
    """Return how far each ledger has come, the own one first, after recomputing everything.

    Args:
        database: the store.
        since: a checkpoint that was published before; its ledger must go on from there.

    Raises:
        StoreError: names the first entry that is missing or altered, or the first row of the
            tables that the ledgers do not bear out.
    """
    with database.reading() as session:
        found = {chain: entries(session, chain=chain) for chain in chains(session)}
        checkpoints = [check_chain(chain, rows) for chain, rows in found.items()]
        if since is not None:
            if since.chain not in found:
                raise StoreError(
                    f"The ledger {since.chain[:12]} asked for by the checkpoint; the store has "
                    "none of that name. Name the store that the checkpoint is of."
                )
            check_since(found[since.chain], since)
        every = [entry for rows in found.values() for entry in rows]
        fault = next(_faults(session, found, every), None)
    if fault is not None:
        raise StoreError(
            f"The ledger asked for, and its hashes come out, but {fault}. Restore the database "
            "from a backup; do not trust what it says since then."
        )
    return checkpoints


def _faults(
    session: Session, found: dict[str, list[LedgerEntry]], every: list[LedgerEntry]
) -> Iterator[str]:
    subjects: defaultdict[str, set[str]] = defaultdict(set)
    for entry in every:
        subjects[entry.kind].add(entry.subject)
    runs = {row.digest: row for row in session.execute(sa.select(
        RunTable.digest, RunTable.removed, RunTable.success
    ))}  # fmt: skip
    registrations = session.scalars(sa.select(RegistrationTable)).all()
    salts = session.scalars(sa.select(EpochTable.salt)).all()
    yield from _unlike("run", set(runs), subjects["submit"])
    yield from _unlike("registration", {row.id for row in registrations}, subjects["register"])
    yield from _unlike("epoch", {digest(salt) for salt in salts}, subjects["epoch"])
    yield from _unlike(
        "removal", {d for d, row in runs.items() if row.removed is not None}, subjects["remove"]
    )
    for entry in every:
        row = runs.get(entry.subject) if entry.kind == "submit" else None
        if row is not None and entry.detail.get("success") != decimal(row.success):
            yield (
                f"the success of run {entry.subject[:12]} is {row.success} in the tables and "
                f"{entry.detail.get('success')} in the ledger"
            )
    for registration in registrations:
        if read_registration(registration).manifest.epoch not in salts:
            yield f"the registration {registration.id[:12]} names an epoch that there was not"
    yield from _unanchored(found, every)


def _unlike(what: str, rows: set[str], noted: set[str]) -> Iterator[str]:
    for subject in sorted(rows - noted):
        yield f"the {what} {subject[:12]} stands in the tables and in no ledger"
    for subject in sorted(noted - rows):
        yield f"the {what} {subject[:12]} stands in a ledger and is missing in the tables"


def _unanchored(found: dict[str, list[LedgerEntry]], every: list[LedgerEntry]) -> Iterator[str]:
    """Yield what entries of the kind "merge" say of other ledgers and is not so."""
    for entry in every:
        if entry.kind != "merge":
            continue
        seen: Any = entry.detail["ledgers"]
        for chain, mark in seen.items():
            before = Checkpoint(chain=chain, **mark)
            try:
                check_since(found.get(chain, []), before)
            except StoreError as error:
                yield f"entry {entry.number} ({entry.kind}): {error}"
