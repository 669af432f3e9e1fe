"""The examples run, as a reader would run them, and do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from treegrpo.envs.suite.search_qa.worlds import RELATIONS, names
from treegrpo.tiny import build_model, build_tokenizer, save_model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_fork_example_shows_that_siblings_differ() -> None:
    assert run("fork.py").splitlines() == [
        "forked before the INSERT: 0",
        "forked after the INSERT: 1",
    ]


def test_guess_example_obeys_every_law() -> None:
    assert len(run("guess.py").splitlines()) == 12


def test_training_example_is_short_and_trains(tmp_path: Path) -> None:
    code = (EXAMPLES / "train.py").read_text().splitlines()
    assert len([line for line in code if line.strip() and not line.startswith('"""')]) <= 12
    words = [name for kind in ("person", "city", "company") for name in names(kind)]
    tokenizer = build_tokenizer([*words, *RELATIONS, "What is the of ? { }"])
    save_model(build_model(len(tokenizer), layers=1), tokenizer, tmp_path / "model")
    steps = run("train.py", str(tmp_path / "model"), str(tmp_path / "run")).splitlines()
    assert [line.split()[0] for line in steps] == ["0", "1"]
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert (tmp_path / "run" / "checkpoint").is_dir()


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_stay_short(example: str) -> None:
    assert len((EXAMPLES / example).read_text().splitlines()) < 60
