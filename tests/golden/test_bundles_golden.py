"""Recorded bundles still replay, whatever the process, hash seed, locale and time zone.

The bundles lie in tests/golden/bundles: every environment of the suite, played by oracle,
random and null agent. One that is missing is recorded by

    python -m tests.golden.test_bundles_golden NAME

A bundle that no longer replays says that tasks, observations or rewards have changed: then the
environment's version must go up. Its source may change as long as all of it replays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs import registry
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.sandboxes import Level, open_backend

BUNDLES = Path(__file__).parent / "bundles"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Recorded:
    """An environment of which bundles are recorded."""

    env: str
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    sandboxed: bool = False

    @property
    def name(self) -> str:
        return "-".join([self.env, *map(str, self.kwargs.values())])


RECORDED = [
    *(Recorded(env) for env in ("SearchQA-v0", "SearchQA-v1", "SQL-v0", "SQL-v1")),
    *(Recorded(env) for env in ("Crafting-v0", "Notes-v0", "WebShop-v0", "Terminal-v0")),
    *(Recorded("Service-v0", kwargs) for kwargs in ({}, {"domain": "airline"})),
    *(Recorded(env) for env in ("Sokoban-v0", "Minesweeper-v0", "Mastermind-v0")),
    *(Recorded(env) for env in ("WordGuess-v0", "FrozenLake-v0")),
    *(Recorded(env, sandboxed=True) for env in ("CodeExec-v0", "CodeExec-v1")),
    *(Recorded(env, sandboxed=True) for env in ("PythonMath-v0", "PythonMath-v1")),
]
TASKS = {"oracle": 2, "random": 2, "null": 1}
"""Tasks per agent; null plays to the last turn and needs no second one to show it."""
NAMES = {f"{one.name}-{agent}": (one, agent) for one in RECORDED for agent in TASKS}
MAX_BYTES, MAX_BYTES_IN_ALL = 40_000, 400_000
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
    one, agent = NAMES[name]
    shutil.rmtree(BUNDLES / name, ignore_errors=True)
    evaluate(
        scripted_agent(agent), f"treegrpo/{one.env}", split="test", num_tasks=TASKS[agent],
        trials=1, seed=20, out=BUNDLES / name, env_kwargs=one.kwargs,
    )  # fmt: skip


def test_every_environment_of_the_suite_is_recorded() -> None:
    ours = {
        env
        for env in registry.list_envs()
        if str(registry.find_spec(env).entry_point).startswith("treegrpo.envs.suite.")
    }
    assert ours == {f"treegrpo/{one.env}" for one in RECORDED}


def test_every_golden_bundle_is_there_and_small() -> None:
    assert sorted(path.name for path in BUNDLES.iterdir()) == sorted(NAMES)
    sizes = {
        name: sum(path.stat().st_size for path in (BUNDLES / name).rglob("*") if path.is_file())
        for name in NAMES
    }
    assert {name: size for name, size in sizes.items() if size >= MAX_BYTES} == {}
    assert sum(sizes.values()) < MAX_BYTES_IN_ALL


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_bundle_is_unaltered(name: str) -> None:
    one, agent = NAMES[name]
    bundle = read_bundle(BUNDLES / name)
    assert standalone_verify.check(BUNDLES / name) == bundle.digest
    assert bundle.manifest.env_id == f"treegrpo/{one.env}"
    assert bundle.manifest.env_kwargs == one.kwargs
    assert bundle.manifest.agent.name == agent
    assert all(episode.failure is None for episode in bundle.episodes)
    solved = [episode.success for episode in bundle.episodes]
    assert solved == [agent == "oracle"] * TASKS[agent]


@pytest.mark.parametrize("place", PLACES, ids=["plain", "far-away"])
def test_the_golden_bundles_replay_in_another_process(place: dict[str, str]) -> None:
    replay([name for name, (one, _) in NAMES.items() if not one.sandboxed], place)


def test_the_golden_bundles_of_sandboxed_environments_replay_far_away() -> None:
    names = [name for name, (one, _) in NAMES.items() if one.sandboxed]
    with open_backend("process") as backend:
        found = backend.probe()
    if found.level < Level.L2:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in found.missing())
        pytest.skip(f"L2 is needed, the host gives {found.level.name}: {reasons}")
    recorded = read_bundle(BUNDLES / names[0]).manifest.versions["python"].split(".")[:2]
    if recorded != sys.version.split()[0].split(".")[:2]:
        pytest.skip(f"tracebacks were recorded with Python {'.'.join(recorded)}")
    replay(names, PLACES[1])


def replay(names: list[str], place: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", VERIFY, *(str(BUNDLES / name) for name in names)],
        cwd=ROOT, env={**os.environ, **place}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    for each in sys.argv[1:]:
        write(each)
