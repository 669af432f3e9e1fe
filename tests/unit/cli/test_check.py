"""treegrpo check: a table; 1 for a failed check, with the shortest episode, 2 for bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from treegrpo.cli import check, main
from treegrpo.envs.checks import Counterexample, Result
from treegrpo.envs.errors import SandboxFailed

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
    monkeypatch.setenv("COLUMNS", "1000")
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("name", "words", "count"),
    [
        ("Nan", "score() of author/Nan-v0 gave {'score': nan}: not finite", 2),
        ("Raises", "raised ZeroDivisionError('division by zero') at author_envs.py:21", 2),
        ("NoTask", "gave 'Say it.', no Task. Return Task(", 0),
        ("Uncopyable", "copying self.state: cannot pickle '_thread.lock' object. Keep", 2),
        ("NoSetup", "AttributeError at author_envs.py:33 escaped: 'NoSetup' object has no", 0),
    ],
)
def test_a_mistake_of_an_author_is_a_failed_check(
    authors: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
    count: int,
) -> None:
    assert _check(monkeypatch, f"author_envs:author/{name}-v0") == 1
    shown = capsys.readouterr()
    table, _, rest = shown.out.partition("random agent fails: ")
    assert "all other checks" in table and words in rest and shown.err == ""
    assert f"shortest action sequence ({count} actions) after reset(seed=0):" in rest
    assert rest.count("\n  ") == count


def test_a_module_that_does_not_parse_is_told_with_its_line(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (authors / "author_torn.py").write_text("\ndef torn(:\n")
    assert _check(monkeypatch, "author_torn:author/Torn-v0") == 2
    shown = capsys.readouterr()
    assert "raised SyntaxError at author_torn.py:2: invalid syntax" in shown.err
    assert shown.err.startswith("Error: ") and shown.err.count("\n") == 1


def _with(monkeypatch: pytest.MonkeyPatch, *results: Result | Exception) -> None:
    def run_checks(env: str, **settings: Any) -> Iterator[Result]:
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result

    monkeypatch.setattr(check, "run_checks", run_checks)


def test_checks_that_hold_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with(monkeypatch, Result("S1 [b]x[/b]", "holds", "7 checks"), Result("x", "measured", "1 ms"))
    assert _check(monkeypatch, "author/Mine-v0") == 0
    lines = [line.split("\u2502") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 1]
    assert cells == [["S1 [b]x[/b]", "holds", "7 checks"], ["x", "measured", "1 ms"]]


def test_an_episode_is_shown_as_it_can_be_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = ("say [b]it[/b]", "a\nb", "x" * 500)
    shown_by = Counterexample(3, actions, {"split": "test"})
    _with(monkeypatch, Result("oracle", "fails", "no", shown_by), Result("leaks", "fails", "one"))
    assert _check(monkeypatch, "author/Mine-v0") == 1
    out = capsys.readouterr().out
    assert "Shown by an action sequence (3 actions) after reset(seed=3, options={'split'" in out
    assert "  1. say [b]it[/b]\n  2. 'a\\nb'\n  3. xxx" in out
    assert "x" * 400 + "...\n" in out.replace("xxx\nxxx", "xxxxxx")
    assert "leaks fails: one.\n" in out


def test_a_sandbox_that_fails_is_the_hosts_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with(monkeypatch, SandboxFailed("no namespaces"))
    assert _check(monkeypatch, "author/Mine-v0") == 2
    assert "its sandbox failed: no namespaces. See treegrpo sandbox" in capsys.readouterr().err
