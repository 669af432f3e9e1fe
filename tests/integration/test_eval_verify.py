"""Real environments, real processes: what one process evaluates, another one verifies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import forge
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.store import open_store
from treegrpo.leaderboards.verify import verify

ROOT = Path(__file__).resolve().parents[2]
ENVS = ("treegrpo/SearchQA-v0", "treegrpo/SQL-v0")

EVALUATE = """
import sys
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
evaluate(scripted_agent("random"), sys.argv[1], split="test", num_tasks=4, trials=2, seed=11,
         out=sys.argv[2])
"""
KILLED = """
import os, signal, sys
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
def die(done, total):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
evaluate(scripted_agent("random"), "treegrpo/SearchQA-v0", split="test", num_tasks=4, trials=2,
         seed=11, out=sys.argv[1], concurrency=3, progress=die)
"""
VERIFY = """
import sys
from treegrpo.leaderboards.verify import verify
report = verify(sys.argv[1])
assert report.verified, report.first_difference
assert not {"torch", "transformers"} & set(sys.modules), "this floor needs no torch"
"""


def python(code: str, *arguments: object, hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def episodes(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "episodes.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_seconds"} for line in lines]


@pytest.mark.parametrize("env_id", ENVS)
def test_another_process_and_hash_seed_gives_and_verifies_the_same(
    tmp_path: Path, env_id: str
) -> None:
    python(EVALUATE, env_id, tmp_path / "one", hash_seed="1")
    python(EVALUATE, env_id, tmp_path / "two", hash_seed="2")
    assert episodes(tmp_path / "one") == episodes(tmp_path / "two")
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "trajectories").iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 8
    python(VERIFY, tmp_path / "one", hash_seed="3")


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("name", ["oracle", "null", "random"])
def test_the_scripted_agents_are_the_ceiling_and_the_floors(
    tmp_path: Path, env_id: str, name: str
) -> None:
    summary = evaluate(
        scripted_agent(name), env_id, split="test", num_tasks=12, trials=2, seed=0,
        out=tmp_path / "b",
    )  # fmt: skip
    assert summary.failures == {}
    assert summary.success.mean == (1.0 if name == "oracle" else 0.0)
    with open_store(f"sqlite:///{tmp_path}/board.sqlite", create=True) as store:
        store.add(tmp_path / "b")
        [key] = store.boards()
        [row] = store.board(key.id).rows
    assert (row.success, row.words["success"]) == (summary.success.mean, "replayed")
    assert row.pinned == name


@pytest.mark.parametrize("env_id", ENVS)
def test_a_forger_who_recomputes_every_hash_is_found(tmp_path: Path, env_id: str) -> None:
    out = tmp_path / "b"
    evaluate(scripted_agent("random"), env_id, split="test", num_tasks=3, trials=1, seed=0, out=out)

    def reward(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log[-1]["reward"] = "1.0"

    forged = forge(out, tmp_path / "f", events=reward, episode=lambda e: {"success": True})
    report = verify(forged)
    assert [outcome.outcome for outcome in report.outcomes] == ["diverged"] * 3
    assert "field reward: recorded 1.0, replayed 0.0" in str(report.first_difference)


def test_killed_processes_lose_no_finished_episode(tmp_path: Path) -> None:
    """Killed three times, at other places each, the same call ends with the same episodes."""
    for count in (1, 4, 8):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "bundle"), str(count)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL
        assert [path.name for path in tmp_path.iterdir()] == [".bundle.part"]
        rows = (tmp_path / ".bundle.part" / "progress.jsonl").read_bytes().splitlines()
        assert len(rows) == 1 + count
    python(EVALUATE, ENVS[0], tmp_path / "bundle", hash_seed="1")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    python(EVALUATE, ENVS[0], tmp_path / "whole", hash_seed="2")
    assert episodes(tmp_path / "bundle") == episodes(tmp_path / "whole")
    assert verify(tmp_path / "bundle").verified
