"""treegrpo warmstart: a folder and what to do next, or one message."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from treegrpo import starter
from treegrpo.cli import main
from treegrpo.cli.warmstart import warmstart_command
from treegrpo.starter_settings import StarterSettings


def _warmstart(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(sys, "argv", ["treegrpo", "warmstart", *words])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_it_says_what_was_built_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "start"
    words = ["--env", "treegrpo/FrozenLake-v0", "--out", str(out), "--difficulty", "1"]
    sizes = ["--demonstrations", "8", "--layers", "1", "--mistakes", "0"]
    assert _warmstart(monkeypatch, *words, *sizes) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Model: {out}, 0." in said and "of its 8 demonstrations" in said
    assert f"treegrpo train --env treegrpo/FrozenLake-v0 --model {out}" in said
    assert "max_action_tokens=" in said and (out / "config.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--env", "treegrpo/FrozenLake-v9"), "Unknown environment 'treegrpo/FrozenLake-v9'"),
        (("--env", "treegrpo/FrozenLake-v0", "--mistakes", "1"), "Invalid value for '--mistakes'"),
        (("--env", "treegrpo/FrozenLake-v0", "--difficulty", "9"), "Difficulty 9 asked for"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    assert _warmstart(monkeypatch, *words, "--out", str(tmp_path / "m")) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_the_defaults_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[StarterSettings] = []

    def build(env: str, out: Path, settings: StarterSettings, **_: object) -> starter.Starter:
        given.append(settings)
        return starter.Starter(1, 1.0, 2, 3, 0.5)

    monkeypatch.setattr(starter, "build_starter", build)
    words = ["--env", "treegrpo/FrozenLake-v0", "--out", str(tmp_path / "m")]
    assert _warmstart(monkeypatch, *words) == 0
    assert given == [StarterSettings()]
    defaults = {name: field.default for name, field in StarterSettings.model_fields.items()}
    shown = inspect.signature(warmstart_command).parameters
    stated = {name: shown[name].default for name in defaults if name in shown}
    assert stated == {name: defaults[name] for name in stated} and len(stated) == 5


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    assert _warmstart(monkeypatch, "--env", "treegrpo/SQL-v0", "--out", str(tmp_path)) == 2
    assert "that path is taken" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"
