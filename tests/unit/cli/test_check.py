"""treegrpo check: whatever an author gets wrong is one message and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from treegrpo.cli import check, main
from treegrpo.envs.laws import check_env_laws

AUTHOR = """
import threading
from treegrpo.envs import Task, ToolEnv, tool
from treegrpo.envs.registry import register

class Mine(ToolEnv):
    max_turns = 2
    def make_task(self, rng, difficulty):
        return Task("a", "Say it.")
    def setup(self, task, rng):
        return {"said": 0}
    def score(self, state, transcript, task):
        return 1.0

class Nan(Mine):
    def score(self, state, transcript, task):
        return float("nan")

class Raises(Mine):
    def score(self, state, transcript, task):
        return 1 / state["said"]

class NoTask(Mine):
    def make_task(self, rng, difficulty):
        return "Say it."

class Uncopyable(Mine):
    def setup(self, task, rng):
        return {"lock": threading.Lock()}

class NoSetup(Mine):
    def setup(self, task, rng):
        return {"said": self.nothing}

for kind in (Mine, Nan, Raises, NoTask, Uncopyable, NoSetup):
    register(f"author/{kind.__name__}-v0", f"author_envs:{kind.__name__}")
"""


@pytest.fixture
def authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with an author's module; all of it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "author_envs.py").write_text(AUTHOR)
    known = set(gymnasium.registry)
    yield tmp_path
    for name in set(gymnasium.registry) - known:
        del gymnasium.registry[name]
    for name in ("author_envs", "author_torn"):
        sys.modules.pop(name, None)


def _check(monkeypatch: pytest.MonkeyPatch, env: str) -> int:
    monkeypatch.setattr(sys, "argv", ["treegrpo", "check", env])
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nan", "score() of author/Nan-v0 gave {'score': nan}: not finite. Correct it"),
        ("Raises", "raised ZeroDivisionError('division by zero') at author_envs.py:21. Correct"),
        ("NoTask", "gave 'Say it.', no Task. Return Task("),
        ("Uncopyable", "copying self.state: cannot pickle '_thread.lock' object. Keep"),
        ("NoSetup", "it raised AttributeError at author_envs.py:33: 'NoSetup' object has no"),
    ],
)
def test_a_mistake_of_an_author_is_one_message(
    authors: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
) -> None:
    assert _check(monkeypatch, f"author_envs:author/{name}-v0") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("Error: ") and shown.err.count("\n") == 1
    assert words in shown.err


def test_a_module_that_does_not_parse_is_told_with_its_line(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (authors / "author_torn.py").write_text("\ndef torn(:\n")
    assert _check(monkeypatch, "author_torn:author/Torn-v0") == 2
    assert "raised SyntaxError at author_torn.py:2: invalid syntax" in capsys.readouterr().err


def test_laws_that_hold_are_listed(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "check_env_laws", lambda env: check_env_laws(env, episodes=1))
    assert _check(monkeypatch, "author_envs:author/Mine-v0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[0].startswith("S1 round trip: holds (")
