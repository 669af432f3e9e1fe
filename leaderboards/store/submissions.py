"""What gets into the store and out of its boards: whole, once, and noted in the ledger.

A bundle is replayed first, outside any transaction; then its files are put among the objects;
then one transaction writes its rows. Killed before that transaction ends, the store is as it
was, but for objects that nothing refers to yet.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import treegrpo
from treegrpo.envs.digest import digest as digest_of
from treegrpo.envs.recorder import decimal
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.board import Pinned, VerificationEntry
from treegrpo.leaderboards.bundle import EPISODES, Bundle, read_bundle
from treegrpo.leaderboards.errors import StoreError, Unverified
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.store.boards import find_run
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.keys import board_key, ensure_board, pinned_kind
from treegrpo.leaderboards.store.ledger import append, now
from treegrpo.leaderboards.store.ranking import rerank
from treegrpo.leaderboards.store.registration import find_registration
from treegrpo.leaderboards.store.restore import keep_bundle, kept_bundle, write_back
from treegrpo.leaderboards.store.scores import episode_columns, manifest_columns, score_columns
from treegrpo.leaderboards.store.tables import (
    BoardTable,
    EpisodeTable,
    ObjectTable,
    RunTable,
    VerificationTable,
)
from treegrpo.leaderboards.store.tiers import why_not_fresh
from treegrpo.leaderboards.verify import Options, VerifyReport, verify_bundle


def add(database: Database, path: Path, *, who: str, options: Options | None) -> str:
    """Return the digest of the bundle at `path`, which is in the store from now on.

    The bundle is replayed whole first; one that is in the store already is left alone, removed
    ones included.

    Raises:
        BundleError: the bundle cannot be read, or its sums are beyond what a database holds.
        Unverified: its replay gives other results; the first difference is in the message.
        StoreError: the database cannot be written; nothing was added.
    """
    options = options or Options()
    if options.sample is not None:
        raise StoreError(
            f"Adding '{path}' after a sample of {options.sample} episodes asked for, but only what "
            "replays whole gets in. Leave the sample out."
        )
    bundle = read_bundle(path)
    with database.reading() as session:
        known = session.get(RunTable, bundle.digest) is not None
        kept = session.get(ObjectTable, (bundle.digest, EPISODES)) is not None
    if kept:
        keep_bundle(database.objects, bundle)  # mends files that were lost or damaged
        return bundle.digest
    proved = None if known else prove(bundle, options)
    files = keep_bundle(database.objects, bundle)
    with database.writing() as session:
        if proved is not None and session.get(RunTable, bundle.digest) is None:
            _insert(session, proved, who)
        for name, digest in files.items():
            session.merge(ObjectTable(run_digest=bundle.digest, name=name, digest=digest))
    return bundle.digest


def rescore(
    database: Database, digest: str, *, who: str, options: Options | None
) -> VerificationEntry:
    """Return what a replay with the present version found; the run's words are now its words.

    A run whose environment has changed, or that no longer replays, is outdated: it stays on its
    board without a rank.

    Raises:
        StoreError: there is no such run, the store has no bundle of it, or a sample was asked for.
    """
    if options is not None and options.sample is not None:
        raise StoreError(
            f"Verifying run {digest[:12]} again by a sample asked for, but its words are about all "
            "of it. Leave the sample out."
        )
    with database.reading() as session:
        run = find_run(session, digest)
        digest, kept = run.digest, kept_bundle(session, database.objects, run.digest)
    with tempfile.TemporaryDirectory() as folder:
        bundle = read_bundle(write_back(kept, Path(folder) / "bundle"))
        report = verify_bundle(bundle, options)
        pinned = proved_pinned(bundle) if report.verified else None
    with database.writing() as session:
        run = session.get_one(RunTable, digest)
        run.pinned = pinned if report.verified else run.pinned
        entry = _note_verification(session, digest, report)
        run.words = dict(report.words)
        run.outdated = bool(report.changed) or not report.verified
        append(session, "rescore", digest, who, _findings(entry))
        session.flush()
        if report.verified:
            _mark_outdated(session, bundle, report)
        rerank(session, run.board)
    return entry


def remove(database: Database, digest: str, *, who: str, reason: str) -> str:
    """Return the digest of the run, which leaves its board; ledger and files keep it.

    Raises:
        StoreError: there is no such run, it was removed before, or no reason was given.
    """
    if not reason.strip():
        raise StoreError(
            f"Removing run {digest[:12]} asked for without a reason. Say why: it stays in the "
            "ledger."
        )
    with database.writing() as session:
        run = find_run(session, digest)
        if run.removed is not None:
            raise StoreError(
                f"Removing run {run.digest[:12]} asked for, but it was removed before, "
                f"with the reason '{run.removed:.200}'. Nothing is left to do."
            )
        run.removed = reason
        append(session, "remove", run.digest, who, {"reason": reason})
        session.flush()
        rerank(session, run.board)
        return run.digest


def proved_pinned(bundle: Bundle) -> Pinned | None:
    """Return which scripted agent made a bundle, None for any other agent.

    A digest is only declared, so the agent plays once more: each of its logs must come out.
    """
    manifest = bundle.manifest
    kind = pinned_kind(manifest.agent.digest)
    if kind is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        evaluate(
            scripted_agent(kind),
            manifest.env_id,
            split=manifest.split,
            num_tasks=manifest.num_tasks,
            trials=manifest.trials,
            seed=manifest.seed,
            out=Path(folder) / "bundle",
            env_kwargs=manifest.env_kwargs,
            first_index=manifest.first_index,
        )
        again = read_bundle(Path(folder) / "bundle")
    same = [e.state_hash for e in again.episodes] == [e.state_hash for e in bundle.episodes]
    return kind if same else None


@dataclass(frozen=True)
class Proved:
    """A bundle that replays, with all that can be known of it outside the database."""

    bundle: Bundle
    report: VerifyReport
    pinned: Pinned | None
    scores: dict[str, Any]


def prove(bundle: Bundle, options: Options) -> Proved:
    """Return what is added of a bundle, after replaying it whole.

    Raises:
        BundleError: its sums are beyond what a database holds.
        Unverified: its replay gives other results; the first difference is in the message.
    """
    report = verify_bundle(bundle, options)
    if not report.verified:
        raise Unverified(
            f"Adding the bundle '{bundle.path}' asked for, but it does not verify: "
            f"{report.first_difference}. Evaluate again with this version, then add the new bundle."
        )
    return Proved(bundle, report, proved_pinned(bundle), score_columns(bundle.episodes))


def _insert(session: Session, proved: Proved, who: str) -> None:
    bundle, report = proved.bundle, proved.report
    run = _run_row(session, proved, submitted=now())
    session.add(run)
    session.flush()
    session.execute(sa.insert(EpisodeTable), episode_columns(bundle.digest, bundle.episodes))
    detail: dict[str, Any] = {
        "tier": run.tier, "board": run.board, "agent_digest": run.agent_digest,
        "success": decimal(run.success),
    }  # fmt: skip
    named = {"registration": run.registration, "not_fresh": run.not_fresh}
    detail |= {name: value for name, value in named.items() if value is not None}
    append(session, "submit", bundle.digest, who, detail)
    entry = _note_verification(session, bundle.digest, report)
    append(session, "verify", bundle.digest, who, _findings(entry))
    _mark_outdated(session, bundle, report)
    rerank(session, run.board)


def _run_row(session: Session, proved: Proved, *, submitted: str) -> RunTable:
    """Return the row of a run on its board, which is made where it is new."""
    manifest, report = proved.bundle.manifest, proved.report
    key, registration, reason = board_key(manifest), None, None
    if manifest.registration is not None:
        reason = why_not_fresh(session, manifest, report.changed, submitted)
        if reason is None:
            found = find_registration(session, manifest.registration)
            assert found is not None, "why_not_fresh has seen it"
            key, registration = found.manifest.key, manifest.registration
    return RunTable(
        **manifest_columns(manifest),
        **proved.scores,
        digest=proved.bundle.digest,
        board=ensure_board(session, key),
        tier=1 if registration is None else 2,
        pinned=proved.pinned,
        words=dict(report.words),
        submitted=submitted,
        signer=None if report.signer is None else str(report.signer),
        outdated=bool(report.changed),
        registration=registration,
        not_fresh=reason,
    )


def _note_verification(session: Session, digest: str, report: VerifyReport) -> VerificationEntry:
    entry = VerificationEntry(
        time=now(),
        treegrpo_version=treegrpo.__version__,
        verified=report.verified,
        changed=list(report.changed),
        episodes=len(report.outcomes),
        first_difference=report.first_difference,
        words=report.words,
    )
    matched = sum(outcome.outcome == "match" for outcome in report.outcomes)
    fields = entry.model_dump() | {"run_digest": digest, "matched": matched}
    session.merge(VerificationTable(**fields, id=digest_of(fields)))
    return entry


def _findings(entry: VerificationEntry) -> dict[str, Any]:
    """Return what the ledger says of a verification."""
    return entry.model_dump(include={"treegrpo_version", "verified", "changed", "episodes"})


def _mark_outdated(session: Session, bundle: Bundle, report: VerifyReport) -> None:
    """Mark the runs of the same environment that another source of it made.

    What the present source is, a replay has just shown, unless it is not the bundle's own.
    """
    manifest = bundle.manifest
    if "env_digest" in report.changed:
        return
    others = (
        sa.select(RunTable)
        .join(BoardTable)
        .where(
            BoardTable.env_id == manifest.env_id,
            RunTable.tier > 0,
            RunTable.outdated.in_((False,)),
            RunTable.env_digest.is_distinct_from(manifest.env_digest),
        )
    )
    changed: set[str] = set()
    for run in session.scalars(others):
        run.outdated = True
        changed.add(run.board)
    session.flush()
    for board in sorted(changed):
        rerank(session, board)
