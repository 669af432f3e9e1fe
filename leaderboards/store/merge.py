"""Two stores made one: runs, registrations, epochs and files are united by digest.

Both ways round give the same boards. Of a run that both have, the earlier submission, the
higher tier and any removal count; of two runs that answer one registration, the earlier one
answers it and the other is of tier 1. What the other store says of a replay is taken at its
word (`rescore` replays again); scores are computed anew from the files, whose digests and roots
are checked.

The other store's ledger, and those it had taken over, are kept as they are beside the own one;
the own one gets an entry with size and last hash of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.leaderboards.board import LedgerEntry
from treegrpo.leaderboards.bundle import EPISODES, MANIFEST, sealed_manifest
from treegrpo.leaderboards.chain import merkle_root
from treegrpo.leaderboards.claimed import ClaimedResult
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store.claims import claim_key, claim_row
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.keys import board_key, ensure_board
from treegrpo.leaderboards.store.ledger import (
    Checkpoint,
    append,
    chains,
    check_chain,
    entries,
    own_chain,
)
from treegrpo.leaderboards.store.objects import Objects
from treegrpo.leaderboards.store.ranking import rerank
from treegrpo.leaderboards.store.registration import read_registration
from treegrpo.leaderboards.store.restore import KeptBundle, kept_bundle, object_limit
from treegrpo.leaderboards.store.scores import episode_columns, manifest_columns, score_columns
from treegrpo.leaderboards.store.tables import (
    EpisodeTable,
    EpochTable,
    LedgerTable,
    ObjectTable,
    RegistrationTable,
    RunTable,
    VerificationTable,
)
from treegrpo.leaderboards.store.tiers import faults
from treegrpo.leaderboards.trajectories import MAX_PACKED_BYTES


def merge(database: Database, other: Database, *, who: str) -> int:
    """Return how many runs were new; everything the other store has is here from now on.

    Raises:
        StoreError: a ledger or a file of the other store is damaged, or both stores hold the
            same ledger with different entries; nothing was changed then.
    """
    with other.reading() as theirs:
        their_ledgers = {chain: entries(theirs, chain=chain) for chain in chains(theirs)}
        marks = [check_chain(chain, rows) for chain, rows in their_ledgers.items()]
        with database.reading() as session:
            have = {name for name in session.scalars(_with_files())}
        for digest in theirs.scalars(_with_files()):
            if digest not in have:
                _copy_files(kept_bundle(theirs, other.objects, digest), database.objects)
        with database.writing() as session:
            taken = [_take_ledger(session, mark, their_ledgers[mark.chain]) for mark in marks]
            new = _Union(session, database.objects, theirs, other.objects).take()
            if any(taken):
                seen = {mark.chain: {"size": mark.size, "root": mark.root} for mark in marks}
                append(session, "merge", own_chain(theirs), who, {"ledgers": seen, "runs": new})
    return new


def _with_files() -> Any:
    return sa.select(ObjectTable.run_digest).where(ObjectTable.name == EPISODES)


def _copy_files(kept: KeptBundle, objects: Objects) -> None:
    for name, digest in kept.files.items():
        objects.put(kept.objects.get(digest, object_limit(name)))
    for episode in kept.episodes:
        if episode.trajectory is not None:
            objects.put(kept.objects.get(episode.trajectory, MAX_PACKED_BYTES))


def _take_ledger(session: Session, mark: Checkpoint, theirs: list[LedgerEntry]) -> bool:
    """Return whether entries were new; the ledger is here as far as it goes from now on."""
    ours = entries(session, chain=mark.chain)
    shared = min(len(ours), len(theirs))
    if [entry.hash for entry in ours[:shared]] != [entry.hash for entry in theirs[:shared]]:
        raise StoreError(
            f"Merging asked for, but both stores hold the ledger {mark.chain[:12]} with different "
            "entries: one of them is a copy that went its own way. Merge from its original."
        )
    if len(theirs) > shared and mark.chain == own_chain(session):
        raise StoreError(
            f"Merging asked for, but the other store has entries of this store's own ledger "
            f"{mark.chain[:12]} that are missing here. Restore this store from a backup."
        )
    for entry in theirs[shared:]:
        session.add(LedgerTable(**entry.model_dump() | {"chain": mark.chain}))
    session.flush()
    return len(theirs) > shared


@dataclass
class _Union:
    """The rows of another store on their way into this one, within one writing session."""

    session: Session
    objects: Objects
    theirs: Session
    their_objects: Objects

    def take(self) -> int:
        """Write everything that is missing here and return how many runs were new."""
        for salt in self.theirs.scalars(sa.select(EpochTable)):
            known = self.session.get(EpochTable, salt.salt)
            created = salt.created if known is None else min(known.created, salt.created)
            self.session.merge(EpochTable(salt=salt.salt, created=created))
        for row in self.theirs.scalars(sa.select(RegistrationTable)):
            read_registration(row)
            known = self.session.get(RegistrationTable, row.id)
            first = row.registered if known is None else min(known.registered, row.registered)
            self.session.merge(RegistrationTable(**_columns(row) | {"registered": first}))
        self.session.flush()
        new, touched = 0, set[str]()
        for run in self.theirs.scalars(sa.select(RunTable).order_by(RunTable.digest)):
            mine = self.session.get(RunTable, run.digest)
            if mine is None:
                mine, new = self._insert(run), new + 1
            touched.add(mine.board)
            self._join(mine, run)
            touched.add(mine.board)
        self.session.flush()
        for board in sorted(touched):
            rerank(self.session, board)
        return new

    def _insert(self, run: RunTable) -> RunTable:
        """Write a run with scores of its own files, on the board of tier 1 for now."""
        columns = _columns(run) | {"registration": None, "rank": None, "rank_low": None}
        kept = kept_bundle(self.theirs, self.their_objects, run.digest)
        if run.claimed is not None:
            result = ClaimedResult.model_validate(run.claimed)
            board = ensure_board(self.session, claim_key(result))
            row = claim_row(result, board, submitted=run.submitted)
        else:
            columns |= _recomputed(kept)
            assert kept.manifest is not None, "_recomputed has seen it"
            board = ensure_board(self.session, board_key(kept.manifest))
            row = RunTable(**columns | {"board": board, "tier": min(run.tier, 1)})
        self.session.add(row)
        self.session.flush()
        if kept.episodes:
            rows = episode_columns(run.digest, kept.episodes)
        else:  # a run of version 1, of which only the table knows the episodes
            query = sa.select(EpisodeTable).where(EpisodeTable.run_digest == run.digest)
            rows = [_columns(episode) for episode in self.theirs.scalars(query)]
        if rows:
            self.session.execute(sa.insert(EpisodeTable), rows)
        return row

    def _join(self, mine: RunTable, run: RunTable) -> None:
        """Let the run say what either store knows of it."""
        for table in (VerificationTable, ObjectTable):
            for row in self.theirs.scalars(sa.select(table).where(table.run_digest == run.digest)):
                self.session.merge(table(**_columns(row)))
        self.session.flush()
        mine.submitted = min(mine.submitted, run.submitted)
        mine.removed = _either(min, mine.removed, run.removed)
        mine.signer = _either(min, mine.signer, run.signer)
        mine.pinned = _either(min, mine.pinned, run.pinned)
        mine.outdated = mine.outdated or run.outdated
        newest = (
            sa.select(VerificationTable.words)
            .where(VerificationTable.run_digest == run.digest)
            .order_by(VerificationTable.time.desc(), VerificationTable.id.desc())
        )
        mine.words = self.session.scalars(newest.limit(1)).first() or mine.words
        if run.registration is not None and mine.registration is None:
            self._answer(mine, run.registration)
        self.session.flush()

    def _answer(self, run: RunTable, registration: str) -> None:
        """Let a run answer a registration, if it fits and no earlier one does."""
        found = read_registration(self.session.get_one(RegistrationTable, registration))
        manifest = kept_bundle(self.session, self.objects, run.digest).manifest
        assert manifest is not None, "what answers a registration has its bundle"
        run.not_fresh = next(faults(found, manifest, (), run.submitted), None)
        if run.not_fresh is not None:
            return
        rival = self.session.scalars(
            sa.select(RunTable).where(RunTable.registration == registration)
        ).first()
        if rival is not None:
            first, second = sorted((run, rival), key=lambda row: (row.submitted, row.digest))
            second.not_fresh = f"the registration is answered by run {first.digest[:12]} already"
            if first is rival:
                return
            rival.registration, rival.tier = None, 1
            rival.board = self._open_board(rival)
            self.session.flush()
            rerank(self.session, rival.board)
        run.board = ensure_board(self.session, found.manifest.key)
        run.registration, run.tier, run.not_fresh = registration, 2, None

    def _open_board(self, run: RunTable) -> str:
        """Return the board of tier 1 of a run that answered a registration here until now."""
        kept = kept_bundle(self.session, self.objects, run.digest)
        assert kept.manifest is not None, "what answers a registration has its bundle"
        return ensure_board(self.session, board_key(kept.manifest))


def _recomputed(kept: KeptBundle) -> dict[str, Any]:
    """Return the columns that a run's files give, after checking that they are its files."""
    manifest = kept.manifest
    sealed = manifest is not None and sealed_manifest(manifest.model_dump(exclude={"digest"}))
    if manifest is None or not sealed or sealed.digest != kept.digest:
        raise StoreError(
            f"Merging asked for, but {MANIFEST} of run {kept.digest[:12]} in the other store is "
            "missing or of another run. Restore that store from a backup."
        )
    if not kept.episodes:
        return manifest_columns(manifest)
    if merkle_root(kept.episodes) != manifest.root:
        raise StoreError(
            f"Merging asked for, but {EPISODES} of run {kept.digest[:12]} in the other store is of "
            "another run. Restore that store from a backup."
        )
    return manifest_columns(manifest) | score_columns(kept.episodes)


def _columns(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__table__.columns.keys()}  # noqa: SIM118


def _either(best: Callable[[str, str], str], one: str | None, two: str | None) -> str | None:
    return best(one, two) if one is not None and two is not None else one if two is None else two
