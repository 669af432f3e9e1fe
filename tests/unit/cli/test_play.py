"""treegrpo play: tools, budgets and undo, from a script of typed lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.unit.envs import toys
from treegrpo.cli import main
from treegrpo.cli.play import HELP, Game, read_arguments
from treegrpo.envs.recorder import read_log, replay
from treegrpo.envs.registry import register

ID = "tests/PlaySum-v0"


class FailingSum(toys.Sum):
    def score(self, state: Any, transcript: Any, task: Any) -> float:
        raise ZeroDivisionError


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(ID, "tests.unit.envs.toys:Sum")
    register("tests/PlayFailing-v0", f"{__name__}:FailingSum")
    yield
    del gymnasium.registry[ID], gymnasium.registry["tests/PlayFailing-v0"]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return (exit code, output, errors) of playing with these words and typed lines."""

    def play(lines: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        monkeypatch.setattr(sys, "argv", ["treegrpo", "play", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return play


def game() -> Game:
    return Game(ID, 0, {})


def test_an_opening_shows_the_task_the_tools_and_the_budgets(played: Any) -> None:
    code, out, _ = played("", ID)
    assert code == 0
    for words in (
        "Add up.\nReach ",
        "  add number:integer   Add a number.\n",
        "  roll   Roll a die.\n",
        ":undo [N]",
        "[turn 0 of 8, tool calls 0 of 16]\n> ",
    ):
        assert words in out


def test_help_is_the_same_by_name_and_by_an_empty_line() -> None:
    one = game()
    assert one.answer(":help") == one.answer("") and ":help            these lines" in HELP
    said = one.answer(":hlep")
    assert said == ["No command ':hlep'. Did you mean ':help'? Not sent.", HELP]
    assert one.answer("roll")[-1].startswith("[turn 1 of 8")


def test_an_episode_to_its_end() -> None:
    one = game()
    assert one.answer("add 2") == ["add: The total is 2.", "[turn 1 of 8, tool calls 1 of 16]"]
    assert one.answer("add number=3")[0] == "add: The total is 5."
    assert one.answer("answer") == [
        "answer: Noted.",
        "The end (answered): return 0 (sum 0), not solved.",
    ]
    assert one.answer("add 1")[1] == "Only :undo and :quit are left."
    assert one.answer(":hint") == ["The end (answered): return 0 (sum 0), not solved."]


def test_the_hints_lead_to_the_goal() -> None:
    one = game()
    one.answer("add 7")
    lines = [one.answer(f":raw {one.answer(':hint')[0]}") for _ in range(2)]
    assert lines[-1][-1] == "The end (answered): return 1 (sum 1), solved."


def test_undo_takes_back_actions_randomness_and_the_end() -> None:
    one = game()
    one.answer("add 2")
    rolled = one.answer("roll")
    one.answer("roll")
    assert one.answer(":undo 2") == [
        "Taken back: 2. The last thing you saw:",
        "The total is 2.",
        "[turn 1 of 8, tool calls 1 of 16]",
    ]
    assert one.answer("roll") == rolled
    one.answer("answer")
    assert one.answer(":undo")[2] == "[turn 2 of 8, tool calls 2 of 16]"


@pytest.mark.parametrize("words", [":undo", ":undo 2", ":undo 0", ":undo -1", ":undo x"])
def test_there_is_nothing_more_to_take_back(words: str) -> None:
    one = game()
    if words != ":undo":
        one.answer("add 1")
    asked = words.partition(" ")[2] or "1"
    count = 0 if words == ":undo" else 1
    assert one.answer(words) == [f"There are {count} actions to take back; asked for: {asked}."]


def test_what_is_mistyped_is_not_sent() -> None:
    one = game()
    assert "Did you mean 'roll'? Not sent" in one.answer("rol")[0]
    assert "'2' is one word too many; it takes: nothing" in one.answer("roll 2")[0]
    assert one.answer("")[0].startswith("TOOL ARGUMENTS")
    assert one.answer(":tools")[0] == "Tools:"
    assert one.answer("add 1")[1] == "[turn 1 of 8, tool calls 1 of 16]"


def test_anything_can_be_sent_as_it_stands() -> None:
    assert one_line(game().answer(":raw hello there")).startswith("error: No tool call found.")
    assert "Bad arguments" in one_line(game().answer("add x"))


def one_line(lines: list[str]) -> str:
    return " ".join(lines)


def test_quitting_says_how_it_stood(played: Any) -> None:
    code, out, _ = played("add 1\n:quit\nadd 1\n", ID)
    assert code == 0 and out.endswith("> Left after turn 1; the episode has not ended.\n")


def test_a_log_holds_what_was_not_taken_back(played: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code, out, _ = played("add 1\nroll\n:undo\nanswer\n", ID, "--seed", "3", "--log", str(log))
    assert code == 0 and f"Written: {log}." in out
    events = read_log(log)
    assert len(events) == 3 and replay(events).matches
    code, _, err = played("", ID, "--log", str(log))
    assert code == 2 and "but it exists. Give another file" in err
    code, _, err = played("", ID, "--log", str(tmp_path / "no" / "log.jsonl"))
    assert code == 2 and f"there is no folder '{tmp_path / 'no'}'. Make it first" in err


def test_options_choose_the_task(played: Any) -> None:
    _, out, _ = played("", ID, "--split", "test", "--difficulty", "2", "--seed", "1")
    assert "Reach " in out
    code, _, err = played("", ID, "--split", "tset")
    assert code == 2 and "Did you mean 'test'?" in err
    code, _, err = played("", ID, "--difficulty", "9")
    assert code == 2 and "Difficulty 9 asked for" in err


def test_a_grader_that_fails_is_one_message(played: Any) -> None:
    code, _, err = played("answer\n", "tests/PlayFailing-v0")
    assert code == 2 and "The game was broken off: score() of tests/PlayFailing-v0 raised" in err


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("the capital of Oslo", ["query"], {"query": "the capital of Oslo"}),
        ("query='a b'", ["query"], {"query": "a b"}),
        ("'a b'", ["query"], {"query": "a b"}),
        ("SELECT 'x'", ["sql"], {"sql": "SELECT 'x'"}),
        ("a 'b c'", ["x", "y"], {"x": "a", "y": "b c"}),
        ("y=1 2", ["x", "y"], {"y": "1", "x": "2"}),
        ("a=b", ["x", "y"], {"x": "a=b"}),
        ("", ["x"], {}),
        ("", [], {}),
    ],
)
def test_a_line_becomes_arguments(text: str, names: list[str], expected: dict[str, str]) -> None:
    assert read_arguments(text, names) == expected


@pytest.mark.parametrize(
    ("text", "words"), [("'a", "No closing quotation: ''a'"), ("a b c", "'c' is one word too many")]
)
def test_a_line_that_is_no_arguments(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_arguments(text, ["x", "y"])
