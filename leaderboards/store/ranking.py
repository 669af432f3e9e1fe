"""Ranks of a board, computed when its runs change and kept with them.

Ranking 500 rows takes a third of a second, so it is never done when a page is read.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.leaderboards.stats import UNIT
from treegrpo.leaderboards.stats.ranks import ranked
from treegrpo.leaderboards.store.keys import FRESH
from treegrpo.leaderboards.store.tables import BoardTable, RunTable


def rerank(session: Session, board: str) -> None:
    """Write the ranks of every run on a board, within a writing session.

    Not ranked: removed, pinned, outdated and claimed runs, and those of a single task. Where
    every run has tasks of its own, rank ranges come from draws of each row by itself.
    """
    key = session.get_one(BoardTable, board)
    outcomes: dict[str, dict[str, list[float]]] = {}
    query = sa.select(RunTable.digest, RunTable.solved, RunTable.trials).where(
        RunTable.board == board,
        RunTable.removed.is_(None),
        RunTable.pinned.is_(None),
        RunTable.outdated.in_((False,)),
        RunTable.tier > 0,
        RunTable.num_tasks > 1,
    )
    for digest, solved, trials in session.execute(query):
        assert solved is not None, "only a claim has no episodes"
        assert trials is not None, "nor trials"
        outcomes[digest] = {str(i): [count / trials] for i, count in enumerate(solved)}
    none: dict[str, Any] = {"rank": None, "rank_low": None, "rank_high": None}
    session.execute(sa.update(RunTable).where(RunTable.board == board).values(none))
    if not outcomes:
        return
    rows = ranked(outcomes, apart=key.tasks == FRESH, bounds=UNIT)
    session.execute(
        sa.update(RunTable),
        [
            {
                "digest": row.name,
                "rank": row.upper_bound_rank,
                "rank_low": row.rank_low,
                "rank_high": row.rank_high,
            }
            for row in rows
        ],
    )
