"""treegrpo envs: one row per environment, also where one cannot be made."""

from __future__ import annotations

import importlib.metadata
from email.message import Message

import pytest

from tests.unit.envs import toys
from treegrpo.cli import envs
from treegrpo.envs import registry


def _rows(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    lines = [line.split("\u2502")[1:-1] for line in capsys.readouterr().out.splitlines()]
    return {cells[0].strip(): [c.strip() for c in cells[1:]] for cells in lines if cells}


def test_an_environment_is_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(registry, "list_envs", lambda: ["treegrpo/SQL-v0"])
    envs.envs_command()
    assert _rows(capsys) == {
        "treegrpo/SQL": [
            "v0",
            "list_tables, schema, query, submit",
            "SQLState, portable",
            "train, test",
            "1, 2, 3",
            "Apache-2.0",
        ]
    }


def test_one_that_cannot_be_made_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(id: str, **options: object) -> toys.Sum:
        if id == "b/Broken-v3":
            raise ValueError("no [i]such[/i] file")
        return toys.Sum()

    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(registry, "make", make)
    monkeypatch.setattr(registry, "list_envs", lambda: ["a/Sum-v1", "b/Broken-v3"])
    envs.envs_command()
    out = capsys.readouterr().out
    assert "Not made: b/Broken-v3: no [i]such[/i] file\n" in out
    assert "a/Sum" in out and "b/Broken" in out


def test_a_licence_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert envs.licence(type("Here", (), {"__module__": "treegrpo.envs"})) == "Apache-2.0"
    assert envs.licence(type("There", (), {"__module__": "no_such_package"})) == "unknown"
    found = Message()
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: found)
    assert envs.licence(int) == "unknown"
    found["License"] = "MIT"
    assert envs.licence(int) == "MIT"
