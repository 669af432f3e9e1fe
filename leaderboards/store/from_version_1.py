"""From version 1 of the tables to version 2: runs, episodes and verifications are carried over."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest
from treegrpo.envs.recorder import decimal
from treegrpo.leaderboards.bundle import MANIFEST
from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.errors import StoreError, first_fault
from treegrpo.leaderboards.schema import AGENT_FAILURES, Manifest
from treegrpo.leaderboards.store.keys import board_key, ensure_board
from treegrpo.leaderboards.store.ledger import append, now
from treegrpo.leaderboards.store.objects import Objects
from treegrpo.leaderboards.store.ranking import rerank
from treegrpo.leaderboards.store.scores import manifest_columns
from treegrpo.leaderboards.store.tables import (
    EpisodeTable,
    ObjectTable,
    RunTable,
    VerificationTable,
    make_tables,
)

Row = Mapping[Any, Any]


def from_version_1(session: Session, objects: Objects) -> None:
    """Carry runs, episodes and verifications over.

    Bundles were not kept then, so `get` cannot restore these runs; adding one again brings its
    files.
    """
    connection = session.connection()
    runs = connection.execute(sa.text("select * from run order by digest")).mappings().all()
    episodes: defaultdict[str, list[Row]] = defaultdict(list)
    query = sa.text('select * from episode order by "index", trial')
    for row in connection.execute(query).mappings():
        episodes[row["run_digest"]].append(row)
    proofs: defaultdict[str, list[Row]] = defaultdict(list)
    for row in connection.execute(sa.text("select * from verification order by id")).mappings():
        proofs[row["run_digest"]].append(row)
    for name in ("verification", "episode", "run"):
        connection.execute(sa.text(f"drop table {name}"))
    make_tables(session, 2)
    boards: set[str] = set()
    for run in runs:
        mine = episodes[run["digest"]]
        boards.add(_carry_over(session, objects, run, mine, proofs[run["digest"]]))
    for board in sorted(boards):
        rerank(session, board)


def _carry_over(
    session: Session, objects: Objects, run: Row, episodes: list[Row], proofs: list[Row]
) -> str:
    """Write one run of version 1 and return the id of its board."""
    try:
        manifest = Manifest.model_validate_json(run["manifest"])
    except ValidationError as error:
        raise StoreError(
            f"Run {run['digest'][:12]} of the results database asked for, but its manifest is of "
            f"another format: {first_fault(error)}. Delete that run from the table, then try again."
        ) from None
    board = ensure_board(session, board_key(manifest))
    text = spelled(manifest.model_dump(mode="json"), indent=2)
    submitted = proofs[0]["verified"] if proofs else now()
    session.add(_old_run(run, manifest, episodes, board, submitted, proofs))
    session.flush()
    session.add(ObjectTable(run_digest=run["digest"], name=MANIFEST, digest=objects.put(text)))
    session.add_all(_old_episode(row) for row in episodes)
    session.add_all(_old_proof(row, len(episodes)) for row in proofs)
    detail = {"tier": 1, "board": board, "carried_over": True, "success": decimal(run["success"])}
    append(session, "submit", run["digest"], "local", detail)
    return board


def _old_run(
    run: Row, manifest: Manifest, episodes: list[Row], board: str, submitted: str, proofs: list[Row]
) -> RunTable:
    solved: defaultdict[int, int] = defaultdict(int)
    for row in episodes:
        solved[row["index"]] += bool(row["success"])
    failures = [row["failure"] for row in episodes if row["failure"] is not None]
    own = sum(failure in AGENT_FAILURES for failure in failures)
    same = (
        "digest", "success", "success_low", "success_high", "reward", "turns", "tool_calls",
        "sampled_tokens",
    )  # fmt: skip
    return RunTable(
        **{name: run[name] for name in same},
        **manifest_columns(manifest),
        board=board,
        tier=1,
        solved=[solved[index] for index in sorted(solved)],
        agent_failures=own,
        infrastructure_failures=len(failures) - own,
        words=_json(proofs[-1]["words"]) if proofs else {},
        submitted=submitted,
        outdated=bool(proofs and proofs[-1]["environment_changed"]),
    )


def _old_episode(row: Row) -> EpisodeTable:
    same = (
        "run_digest", "index", "trial", "difficulty", "reward", "failure", "turns", "tool_calls",
        "sampled_tokens",
    )  # fmt: skip
    return EpisodeTable(**{name: row[name] for name in same}, success=bool(row["success"]))


def _old_proof(row: Row, num_episodes: int) -> VerificationTable:
    return VerificationTable(
        id=digest(["version 1", row["run_digest"], row["id"], row["verified"]]),
        run_digest=row["run_digest"],
        time=row["verified"],
        treegrpo_version=row["treegrpo_version"],
        verified=True,  # nothing else got in
        changed=["env_digest"] if row["environment_changed"] else [],
        episodes=num_episodes,
        matched=num_episodes,
        first_difference=None,
        words=_json(row["words"]),
    )


def _json(value: Any) -> Any:
    """Return JSON that one driver gives as text and another as data."""
    return json.loads(value) if isinstance(value, str) else value
