"""treegrpo replay: 0 if every answer is as logged, 1 if one differs, 2 for a log that is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.unit.envs import toys
from treegrpo.cli import main
from treegrpo.envs.errors import SandboxFailed
from treegrpo.envs.recorder import Recorder, write_log
from treegrpo.envs.registry import make, register

ID = "tests/ReplaySum-v0"
MODULE = """
from tests.unit.envs import toys
from treegrpo.envs.registry import register

class Sum(toys.Sum):
    def roll(self):
        return {roll}

register("tests/ReplaySum-v0", "replay_module:Sum")
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of an episode; its environment is registered until the test has ended."""
    register(ID, "tests.unit.envs.toys:Sum")
    recorder = Recorder(make(ID))
    recorder.reset(seed=0)
    for name, arguments in (("add", {"number": 5}), ("roll", {}), ("answer", {})):
        recorder.step(toys.Sum().encode_call(name, **arguments))
    write_log(tmp_path / "log.jsonl", recorder.events)
    yield tmp_path / "log.jsonl"
    gymnasium.registry.pop(ID, None)
    sys.modules.pop("replay_module", None)


def _replay(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(sys, "argv", ["treegrpo", "replay", *words])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_an_honest_log(log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert _replay(monkeypatch, str(log)) == 0
    assert capsys.readouterr().out == "Replayed: 3 steps, every answer as logged; return 0.\n"


def test_a_log_can_be_read(log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert _replay(monkeypatch, str(log), "--show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tests/ReplaySum-v0, seed 0, task sum-")
    assert "The total is 5.  [0.0]" in lines and "Noted.  [0.0, answered]" in lines


@pytest.mark.parametrize(("roll", "code"), [("super().roll()", 0), ("'A 6.'", 1)])
def test_another_environment_of_that_id_differs(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, roll: str, code: int
) -> None:
    del gymnasium.registry[ID]
    (log.parent / "replay_module.py").write_text(MODULE.format(roll=roll))
    monkeypatch.syspath_prepend(str(log.parent))
    assert _replay(monkeypatch, str(log), "--module", "replay_module", "--show") == code
    out = capsys.readouterr().out
    if code:
        assert "Differs at event 2 of 3 (0 is the reset), field observation:\n  logged: A " in out
        assert "The total is 5." in out and "Noted." not in out


def test_an_altered_log_is_refused(log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    log.write_text(log.read_text().replace("The total is 5.", "The total is 6."))
    assert _replay(monkeypatch, str(log)) == 2
    said = capsys.readouterr().err
    assert f"Replaying '{log}', line 2, field chain: the event was altered; its hash" in said
    assert "Only a log as it was written can be replayed." in said


def test_a_sandbox_that_fails_is_one_message(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(self: toys.Sum) -> str:
        raise SandboxFailed("the supervisor is gone")

    monkeypatch.setattr(toys.Sum, "roll", fail)
    assert _replay(monkeypatch, str(log)) == 2
    said = capsys.readouterr().err
    assert f"Replaying '{log}' was broken off, as a sandbox failed: the supervisor is gone." in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "': it cannot be read (No such file or directory). Give a log as"),
        (b"", "': the file is empty. Give a log as"),
        (b"hello\n", "', line 1: not valid JSON. Give a log as"),
        (b"\x7fELF\x02\x01\xff\n", "', line 1: byte 0xff found, where a log has ASCII text alone."),
        (b"7\n", "', line 1, one object was expected, found the number 7. Give a log as"),
    ],
)
def test_a_file_that_is_no_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    content: bytes | None,
    words: str,
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert _replay(monkeypatch, str(path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: Reading an action log from '{path}{words}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "Module 'replay_module' asked for; it cannot be imported"),
        ("1 / 0", "importing it raised ZeroDivisionError at replay_module.py:1"),
    ],
)
def test_a_module_that_cannot_be_imported(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str | None, words: str
) -> None:
    if text is not None:
        (log.parent / "replay_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(log.parent))
    assert _replay(monkeypatch, str(log), "--module", "replay_module") == 2
    assert words in capsys.readouterr().err
