"""Tier 0: a result that somebody published is shown on a board of claims, and never ranked."""

from __future__ import annotations

from typing import Any

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.board import BoardKey
from treegrpo.leaderboards.claimed import CLAIMED_TIER, ClaimedResult
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.keys import CLAIMED, ensure_board, sealed_key
from treegrpo.leaderboards.store.ledger import append, now
from treegrpo.leaderboards.store.tables import RunTable


def claim(database: Database, result: ClaimedResult, *, who: str) -> str:
    """Return the digest of a claim, which is in the store from now on; twice is once.

    Raises:
        StoreError: the database cannot be written.
    """
    with database.writing() as session:
        if session.get(RunTable, result.digest) is None:
            board = ensure_board(session, claim_key(result))
            session.add(claim_row(result, board, submitted=now()))
            detail = {"tier": CLAIMED_TIER, "board": board, "source_digest": result.source_digest}
            detail["success"] = result.score
            append(session, "submit", result.digest, who, detail)
    return result.digest


def claim_key(result: ClaimedResult) -> BoardKey:
    """Return the board of a claim: claims of one metric, beside those of the environment."""
    options: dict[str, Any] = {"metric": result.metric}
    if result.lower_is_better:
        options["lower_is_better"] = True
    return sealed_key(
        env_id=result.env,
        env_kwargs=options,
        split=result.evaluation,
        track="single-pass",
        tasks=CLAIMED,
    )


def claim_row(result: ClaimedResult, board: str, *, submitted: str) -> RunTable:
    """Return the row of a claim; what its source does not say is null."""
    low, high = result.uncertainty.low, result.uncertainty.high
    words = {"success": "declared"}
    if low is not None:
        words["interval"] = "declared"
    return RunTable(
        digest=result.digest,
        board=board,
        tier=CLAIMED_TIER,
        agent=result.agent,
        agent_digest=digest([result.agent, result.model]),
        model=result.model,
        provider=None,
        num_tasks=result.num_samples,
        success=float(result.score),
        success_low=None if low is None else float(low),
        success_high=None if high is None else float(high),
        agent_failures=0,
        infrastructure_failures=0,
        words=words,
        evaluated=result.evaluated or result.retrieved,
        submitted=submitted,
        outdated=False,
        claimed=result.model_dump(mode="json"),
    )
