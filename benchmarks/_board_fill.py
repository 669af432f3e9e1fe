"""A results database filled with made-up runs, quickly: for reading, never for what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.board import BoardKey
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.store import Store
from treegrpo.leaderboards.store.keys import ensure_board, sealed_key
from treegrpo.leaderboards.store.ledger import append
from treegrpo.leaderboards.store.ranking import rerank
from treegrpo.leaderboards.store.tables import EpisodeTable, RunTable, VerificationTable
from treegrpo.leaderboards.verify import WORDS

_TIME = "2026-11-28T06:00:00Z"
_ACTIONS = "made up"


@dataclass(frozen=True)
class Size:
    """How much is written: `runs` on one board, each of `tasks` x `trials` episodes."""

    runs: int
    tasks: int
    trials: int


def fill_board(store: Store, size: Size, *, seed: int) -> BoardKey:
    """Return the board that `size.runs` made-up runs stand on from now on, ranked.

    Tasks have logit chances, agents have skills, and the first two runs are pinned. There are
    no files behind the runs.
    """
    rng = np.random.default_rng(seed)
    key = sealed_key(
        env_id="made/Up-v0", env_kwargs={}, split="test", track="single-pass", tasks=digest(seed)
    )
    with store.writing() as session:
        board = ensure_board(session, key)
        difficulty = rng.normal(0.0, 1.5, size.tasks)
        for number in range(size.runs):
            chance = 1.0 / (1.0 + np.exp(difficulty - rng.normal(0.0, 1.0)))
            solved = rng.random((size.tasks, size.trials)) < chance[:, None]
            run = _run(number, size, solved, board)
            session.add(RunTable(**run))
            session.flush()
            session.execute(sa.insert(EpisodeTable), list(_episodes(run["digest"], solved)))
            session.add(_verification(run["digest"], size))
            append(session, "submit", run["digest"], "benchmark", {
                "tier": 1, "board": board, "success": repr(run["success"]),
            })  # fmt: skip
        rerank(session, board)
    return key


def _run(number: int, size: Size, solved: Any, board: str) -> dict[str, Any]:
    outcomes = {str(i): [float(x) for x in row] for i, row in enumerate(solved)}
    success = clustered_interval(outcomes, bounds=UNIT)
    pinned = ("oracle", "null")[number] if number < 2 else None
    return {
        "digest": digest([_ACTIONS, number]),
        "board": board,
        "tier": 1,
        "agent": pinned or f"agent {number}",
        "agent_digest": digest(number),
        "model": f"model-{number % 40}",
        "provider": f"provider-{number % 7}",
        "pinned": pinned,
        "training": ("zero-shot", "trained-in-suite", None)[number % 3],
        "env_digest": digest("environment"),
        "seed": number,
        "first_index": 0,
        "num_tasks": size.tasks,
        "trials": size.trials,
        "solved": [int(count) for count in solved.sum(axis=1)],
        "success": success.mean,
        "success_low": success.low,
        "success_high": success.high,
        "reward": success.mean,
        **_costs(number),
        "agent_failures": number % 3,
        "infrastructure_failures": 0,
        "words": dict(WORDS),
        "evaluated": _TIME,
        "submitted": _TIME,
        "outdated": False,
    }


def _costs(number: int) -> dict[str, Any]:
    return {
        "turns": 4.25 + number % 9,
        "tool_calls": 3.5 + number % 7,
        "wall_seconds": 1.5 + number % 50,
        "input_tokens": 1_000_000 + 777 * number,
        "cached_tokens": 1000 * number,
        "sampled_tokens": 200_000 + 333 * number,
        "reasoning_tokens": None,
        "dollars": f"{number}.25",
        "dollars_per_success": f"0.{1 + number % 9}",
        "prices": "made-up-2026-11-01",
    }


def _episodes(run: str, solved: Any) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(solved):
        for trial, success in enumerate(row):
            yield {
                "run_digest": run,
                "index": index,
                "trial": trial,
                "difficulty": 1 + index % 3,
                "success": bool(success),
                "reward": f"{float(success)!r}",
                "failure": None,
                "turns": 4,
                "tool_calls": 3,
                "sampled_tokens": 500,
                "dollars": "0.01",
            }


def _verification(run: str, size: Size) -> VerificationTable:
    episodes = size.tasks * size.trials
    return VerificationTable(
        id=digest([run, "verification"]),
        run_digest=run,
        time=_TIME,
        treegrpo_version="0",
        verified=True,
        changed=[],
        episodes=episodes,
        matched=episodes,
        first_difference=None,
        words=dict(WORDS),
    )
