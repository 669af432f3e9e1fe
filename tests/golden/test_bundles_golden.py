"""Recorded bundles still replay, whatever the process, hash seed, locale and time zone.

The bundles lie in tests/golden/bundles, written by

    python -m tests.golden.test_bundles_golden

A bundle that no longer replays says that tasks, observations or rewards have changed: then the
environment's version must go up. Its source may change as long as all of it replays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate

BUNDLES = Path(__file__).parent / "bundles"
ROOT = Path(__file__).resolve().parents[2]
ENVS = ("SearchQA-v0", "SQL-v0", "Crafting-v0", "Notes-v0", "Service-v0", "WebShop-v0")
NAMES = [f"{env}-{agent}" for env in ENVS for agent in ("oracle", "random")]
MAX_BYTES = 40_000
PLACES = (
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"},
    {"PYTHONHASHSEED": "4242", "LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu"},
)
VERIFY = """
import sys
from treegrpo.leaderboards.verify import Options, verify
for path in sys.argv[1:]:
    report = verify(path, Options(accept_changed=True))
    assert report.verified, (path, report.first_difference)
"""


def write(name: str) -> None:
    """Record a bundle anew."""
    env, _, agent = name.rpartition("-")
    shutil.rmtree(BUNDLES / name, ignore_errors=True)
    evaluate(
        scripted_agent(agent), f"treegrpo/{env}", split="test", num_tasks=2, trials=1, seed=20,
        out=BUNDLES / name,
    )  # fmt: skip


def test_every_golden_bundle_is_there_and_small() -> None:
    assert sorted(path.name for path in BUNDLES.iterdir()) == sorted(NAMES)
    for name in NAMES:
        size = sum(path.stat().st_size for path in (BUNDLES / name).rglob("*") if path.is_file())
        assert size < MAX_BYTES, name


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_bundle_is_unaltered(name: str) -> None:
    bundle = read_bundle(BUNDLES / name)
    assert standalone_verify.check(BUNDLES / name) == bundle.digest
    assert all(episode.failure is None for episode in bundle.episodes)
    solved = [episode.success for episode in bundle.episodes]
    assert solved == [name.endswith("-oracle")] * 2


@pytest.mark.parametrize("place", PLACES, ids=["plain", "far-away"])
def test_the_golden_bundles_replay_in_another_process(place: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", VERIFY, *(str(BUNDLES / name) for name in NAMES)],
        cwd=ROOT, env={**os.environ, **place}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    for each in NAMES:
        write(each)
