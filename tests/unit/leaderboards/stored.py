"""Bundles and claims for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.leaderboards.agents import Agent
from treegrpo.leaderboards.board import Board
from treegrpo.leaderboards.claimed import ClaimedResult
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.store import Registration, Store


def run(out: Path, agent: Agent | None = None, **changes: Any) -> Path:
    """Evaluate on four tasks of the toy environment and return the bundle's folder."""
    settings: dict[str, Any] = {"split": "test", "num_tasks": 4, "trials": 1, "seed": 0}
    evaluate(agent or ToyAgent(half_right, tokens=1000), TOY, out=out, **settings | changes)
    return out


def run_registered(
    out: Path, found: Registration, agent: Agent | None = None, **changes: Any
) -> Path:
    """Run what was registered, or something slightly else."""
    manifest = found.manifest
    settings: dict[str, Any] = {
        "split": manifest.split,
        "num_tasks": manifest.num_tasks,
        "trials": manifest.trials,
        "seed": manifest.seed,
        "first_index": manifest.first_index,
        "env_kwargs": manifest.env_kwargs,
        "terms": Terms(registration=manifest.id, track=manifest.track, training=manifest.training),
    }
    return run(out, agent, **settings | changes)


def only_board(store: Store) -> Board:
    """Return the one board of a store."""
    [key] = store.boards()
    return store.board(key.id)


def every_board(store: Store) -> list[Board]:
    """Return all boards of a store."""
    return [store.board(key.id) for key in store.boards()]


def claimed(**changes: Any) -> ClaimedResult:
    """Return a claim."""
    fields: dict[str, Any] = {
        "source": "A board",
        "source_format": "test 1",
        "source_id": "one",
        "source_digest": "a" * 64,
        "relationship": None,
        "agent": "somebody",
        "model": "m",
        "env": TOY,
        "evaluation": "test",
        "metric": "accuracy",
        "lower_is_better": False,
        "score": "0.75",
        "min_score": None,
        "max_score": None,
        "uncertainty": {"low": "0.5", "high": "1.0"},
        "num_samples": None,
        "evaluated": None,
        "retrieved": "2026-11-28T06:00:00Z",
        "library": None,
    }
    return ClaimedResult.model_validate(fields | changes)
