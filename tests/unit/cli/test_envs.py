"""treegrpo envs: one row per environment, also where one cannot be made."""

from __future__ import annotations

import importlib.metadata
import re
from email.message import Message

import pytest

from tests.unit.envs import toys
from treegrpo.cli import envs
from treegrpo.envs import registry, suites
from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.suites import list_suites


def _cells(shown: str) -> dict[str, list[str]]:
    lines = [re.split(r"  +", line.strip()) for line in shown.splitlines()]
    return {name: cells for name, *cells in lines if re.match(r"\w+/\w", name)}


def test_an_environment_is_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(registry, "list_envs", lambda: ["treegrpo/SQL-v0"])
    envs.envs_command()
    assert _cells(capsys.readouterr().out) == {
        "treegrpo/SQL-v0": [
            "list_tables, schema, query, submit",
            "portable",
            "1-3",
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
    assert "a/Sum-v1 " in out and "b/Broken-v3 " in out


def test_an_id_stays_whole_where_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(registry, "list_envs", lambda: ["treegrpo/Minesweeper-v0"])
    envs.envs_command()
    out = capsys.readouterr().out
    assert "treegrpo/Minesweeper-v0 " in out
    suites = ", ".join(list_suites())  # other tests of this process may have registered theirs
    assert f"Suites: {suites}. Show one with: treegrpo envs --suite NAME\n" in out
    assert "treegrpo/core-v1" in suites


def test_a_suite_is_shown_with_shares_and_digest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = suites.Suite(
        "mine/two-v0",
        (
            suites.SuiteEntry("treegrpo/SQL-v0", {"horizon": "long"}, weight=3.0),
            suites.SuiteEntry("treegrpo/Notes-v0", split="train", null_success=0.25),
        ),
    )
    monkeypatch.setattr(suites, "_registered", {suite.name: suite})
    monkeypatch.setenv("COLUMNS", "120")
    envs.envs_command("mine/two-v0")
    shown = capsys.readouterr().out
    assert f"Digest: {suite.digest}\n" in shown
    assert _cells(shown) == {
        "treegrpo/SQL-v0 horizon=long": ["test", "0.750", "0.000", "1.000"],
        "treegrpo/Notes-v0": ["train", "0.250", "0.250", "1.000"],
    }


def test_an_unknown_suite_is_an_error_with_the_closest() -> None:
    with pytest.raises(UnknownOption, match=r"'treegrpo/core'.* mean 'treegrpo/core-v1'"):
        envs.envs_command("treegrpo/core")


def test_a_licence_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert envs.licence(type("Here", (), {"__module__": "treegrpo.envs"})) == "Apache-2.0"
    assert envs.licence(type("There", (), {"__module__": "no_such_package"})) == "unknown"
    found = Message()
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: found)
    assert envs.licence(int) == "unknown"
    found["License"] = "MIT"
    assert envs.licence(int) == "MIT"
