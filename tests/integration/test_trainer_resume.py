"""A run that is killed again and again ends bit for bit like one that never was."""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy_game import ID, save_tiny_model
from treegrpo.checkpoint import load_checkpoint
from treegrpo.runfolder import read_rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "integration" / "killed_runs.py"
STEPS = 6

PHASES = [
    "treegrpo.runfolder/RunFolder.metrics:1:after",  # no checkpoint yet
    "treegrpo.engine.native/NativeEngine.step:20:after",
    "treegrpo.checkpoint/torch.save:1:after",  # half a checkpoint
    "treegrpo.checkpoint/os.rename:1:before",
    "treegrpo.checkpoint/os.rename:1:after",  # two checkpoints
    "treegrpo.learner/accumulate:2:before",
    "treegrpo.runfolder/RunFolder.trees:1:after",
    "treegrpo.runfolder/RunFolder.model:1:before",
    "treegrpo.trainer/Trainer.save_model:1:after",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    return folder


def start(*words: object, hash_seed: str = "0") -> list[list[str]]:
    """Return how each child of the script ended, run by run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def config_in(folder: Path, model: Path) -> Path:
    fields: dict[str, Any] = {
        "model": str(model), "env": f"tests.toy_game:{ID}", "out": "run", "steps": STEPS,
        "questions": 3, "trunks": 2, "forks": 2, "rounds": 1, "max_action_tokens": 4,
        "env_kwargs": {"turns": 4, "broken_resets": 10},
        "max_context_tokens": 400, "checkpoint_every": 2, "lr": 1e-2, "threads": 1,
        "credit": "intra_inter", "loss_options": {"kl_beta": 0.01}, "importance": "learned",
        "weighting": "path",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return path


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("metrics.jsonl", "trees.jsonl", "config.json", "model/model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    first, a = load_checkpoint(one / "checkpoint")
    second, b = load_checkpoint(two / "checkpoint")
    assert first.next_step == second.next_step == STEPS and first.updates == second.updates > 0
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    rows = read_rows(one / "timings.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS))


@dataclass(frozen=True)
class Runs:
    """A run that was never killed, and one that was at random moments."""

    whole: Path
    killed: Path
    moments: list[float]
    ends: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Runs:
    """Both from one process, which starts as slowly as it trains."""
    folder, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    moments = [random.uniform(0.0, 1.0) for _ in range(5)]
    first, ends = start(config_in(folder, model), "--", config_in(killed, model), *moments)
    assert first == ["exit 0"]
    rows = read_rows(folder / "run" / "metrics.jsonl")
    assert sum(row["trained_leaves"] for row in rows) >= 10
    assert any(row["failures"] for row in rows)
    trained = (folder / "run" / "model" / "model.safetensors").read_bytes()
    assert trained != (model / "model.safetensors").read_bytes()
    return Runs(folder / "run", killed / "run", moments, ends)


def test_killed_in_every_phase_under_another_hash_seed(
    tmp_path: Path, model: Path, runs: Runs
) -> None:
    [ends] = start(config_in(tmp_path, model), *PHASES, hash_seed="4711")
    assert ends == ["killed"] * len(PHASES) + ["exit 0"]
    assert_same_run(runs.whole, tmp_path / "run")
    left = [path.name for path in (tmp_path / "run").rglob("*.part")]
    assert not left, "nothing half-written stays"


def test_killed_at_random_moments(runs: Runs) -> None:
    assert runs.ends[-1] == "exit 0", runs.moments
    assert set(runs.ends) <= {"killed", "exit 0"}, runs.moments
    assert_same_run(runs.whole, runs.killed)
