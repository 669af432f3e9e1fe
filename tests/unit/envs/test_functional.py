"""Environments from functions and rows are environments like any other, or are refused in words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from treegrpo.envs import Task, ToolEnv, check_env_laws, make
from treegrpo.envs.baselines import null_action, oracle_action, run_episode
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.functional import make_tool_env
from treegrpo.envs.schema_tools import schema_tool
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.tools import RESERVED

ROWS = [{"question": f"What is {n} plus {n}?", "answer": 2 * n, "number": n} for n in range(10)]


def add(first: int, second: int = 0) -> str:
    """Add two numbers.

    Args:
        first: one of them.
        second: the other.
    """
    return str(first + second)


def keep(text: str, state: dict[str, Any]) -> str:
    """Keep a text."""
    state.setdefault("kept", []).append(text)
    return ", ".join(state["kept"])


def roll(rng: Any) -> str:
    """Roll a die."""
    return str(rng.integers(1_000_000))


def exact(answer: str | None, task: Task) -> float:
    return float(answer == str(task.answer))


def expert(task: Task, turn: int) -> Mapping[str, Any]:
    number = task.data["number"]
    if turn == 0:
        return {"name": "add", "arguments": {"first": number, "second": number}}
    return {"name": "answer", "arguments": {"text": str(task.answer)}}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Ids that a test registers are forgotten afterwards."""
    known = set(gymnasium.registry)
    yield
    for name in set(gymnasium.registry) - known:
        del gymnasium.registry[name]


def made(**changes: Any) -> ToolEnv:
    """Return an environment of the functions above."""
    given: dict[str, Any] = {
        "id": "tests/Made-v0",
        "tools": [add, keep, roll],
        "tasks": ROWS,
        "reward": exact,
    }
    given |= {"oracle": expert, **changes}
    return make_tool_env(**given)()


def said(env: ToolEnv, name: str, **arguments: Any) -> str:
    return env.step(env.encode_call(name, **arguments))[0]


def test_the_agent_sees_the_functions_as_typed_tools() -> None:
    schemas = {s["function"]["name"]: s["function"] for s in made().tool_schemas()}
    assert list(schemas) == ["answer", "add", "keep", "roll"]
    assert schemas["add"]["description"] == "Add two numbers."
    assert schemas["add"]["parameters"]["properties"] == {
        "first": {"type": "integer", "description": "one of them."},
        "second": {"type": "integer", "description": "the other.", "default": 0},
    }
    assert list(schemas["keep"]["parameters"]["properties"]) == ["text"]
    assert schemas["roll"]["parameters"]["properties"] == {}


def test_the_laws_hold() -> None:
    env = made
    reports = check_env_laws(lambda: env(), episodes=2)
    assert len(reports) == 12 and all(r.checks for r in reports if not r.law.startswith("S7"))


def test_oracle_and_null_agents() -> None:
    env = made()
    for split in env.splits:
        for index in range(len(env.tasks(split))):
            options = {"split": split, "index": index}
            best = run_episode(env, oracle_action, seed=0, options=options)
            assert (best.episode_return, best.success, best.end_reason) == (1.0, True, "answered")
            assert not run_episode(env, null_action, seed=0, options=options).success


def test_a_tool_keeps_state_that_forks_do_not_share() -> None:
    env = made()
    env.reset(seed=0)
    assert said(env, "keep", text="a") == "a"
    twin = env.fork()
    assert (said(twin, "keep", text="b"), said(env, "keep", text="c")) == ("a, b", "a, c")


def test_the_authors_own_state_and_random_numbers() -> None:
    env = made(state=lambda task: {"kept": [task.question]})
    env.reset(seed=0)
    assert said(env, "keep", text="a") == f"{env.task.question}, a"
    twin, other = env.fork(), env.fork(seed=5)
    rolled = said(env, "roll")
    assert said(twin, "roll") == rolled != said(other, "roll")


def test_bad_calls_are_observations() -> None:
    env = made()
    env.reset(seed=0)
    assert "second: Input should be a valid integer" in said(env, "add", first=1, second="x")
    assert "Bad arguments: state" in said(env, "keep", text="a", state={})
    assert env.state["state"] == {}


def test_rewards_see_what_they_ask_for() -> None:
    seen: list[Any] = []

    def reward(transcript: Any, state: Any, answer: str | None) -> dict[str, float]:
        seen.append((transcript[-1]["role"], state, answer))
        return {"fixed": 0.25, "kept": 0.5}

    env = made(reward=reward)
    env.reset(seed=0)
    said(env, "keep", text="a")
    *_, info = env.step(env.encode_call("answer", text="7"))
    assert seen == [("assistant", {"kept": ["a"]}, "7")]
    assert info["reward_components"] == {"fixed": 0.25, "kept": 0.5}


def test_a_tool_from_a_json_schema() -> None:
    parameters = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 3}}}
    schema = {"name": "shout", "description": "Say it loudly.", "parameters": parameters}
    shout = schema_tool(schema, lambda text="-": text.upper())
    env = made(tools=[shout])
    env.reset(seed=0)
    assert (said(env, "shout", text="abc"), said(env, "shout")) == ("ABC", "-")
    assert "at most 3 characters" in said(env, "shout", text="abcd")


def test_settings_are_class_attributes() -> None:
    env = made(max_turns=1, system_prompt="Be exact.")
    assert env.reset(seed=0)[0].startswith("Be exact.")
    assert env.step("")[2:4] == (True, False)


def test_a_list_of_rows_is_split_by_content() -> None:
    env, other = made(), made(tasks=ROWS[::-1])
    questions = {split: {task.question for task in env.tasks(split)} for split in env.splits}
    assert {split: len(found) for split, found in questions.items()} == {"train": 8, "test": 2}
    assert not questions["train"] & questions["test"]
    for split in env.splits:
        assert {task.question for task in other.tasks(split)} == questions[split]


def test_rows_per_split_keep_their_place() -> None:
    env = made(tasks={"easy": ROWS[:3], "hard": [Task("x", "Why?", 4, 5), *ROWS[5:]]})
    assert env.splits == ("easy", "hard") and env.difficulties == (1, 5)
    assert [task.data["number"] for task in env.tasks("easy")] == [0, 1, 2]
    assert env.reset(options={"split": "hard", "difficulty": 5})[1]["task_id"] == "x"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "rows: no row given"),
        (ROWS[:1], "rows: 1 given, and train and test need one each"),
        ([*ROWS, ROWS[3]], "rows, row 10: the same task as rows, row 3"),
        ({"a": ROWS[:2], "b": ROWS[1:3]}, "b, row 0: the same task as a, row 1"),
        ([{"question": " "}], "rows, row 0, field question: a text is needed, found ' '"),
        ([{"question": "a", "difficulty": "1"}], "field difficulty: an integer is needed"),
        ([{"question": "a", "difficulty": True}], "field difficulty: an integer is needed"),
        (["a"], "rows, row 0: a row must be a mapping or a Task, found 'a'"),
        ([{"question": "a", "f": open}], "rows, row 0: only plain data can be in a row"),
        (
            [{"question": "a", "id": "x"}, {"question": "b", "id": "x"}],
            "rows, row 1, field id: 'x' is the id of row 0",
        ),
    ],
)
def test_rows_that_cannot_be_tasks(rows: Any, words: str) -> None:
    with pytest.raises(DataFileError, match=words):
        made(tasks=rows)


def untyped(number):  # type: ignore[no-untyped-def]
    """Lack a hint."""


def positional(number: int, /) -> str:
    """Take no name."""
    return str(number)


async def waiting() -> str:
    """Wait."""
    return ""


def silent(number: int) -> str:
    return str(number)


def lost(number: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Name a type that is not there."""
    return str(number)


def odd(number: ToolEnv) -> str:
    """Take what no agent can write."""
    return str(number)


def named(name: str) -> Any:
    """Return a function of that name."""

    def function() -> str:
        return ""

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": [untyped]}, "Tool 'untyped': parameter 'number' needs a type hint"),
        ({"tools": [positional]}, "Tool 'positional': 'number' is positional only"),
        ({"tools": [waiting]}, "Tool 'waiting' is a coroutine function"),
        ({"tools": [lambda: ""]}, "Tool '<lambda>': a tool needs a plain name"),
        ({"tools": [named("_hidden")]}, "a tool needs a plain name"),
        ({"tools": [add, add]}, "Tool 'add' is given twice"),
        ({"tools": [named("answer")]}, "Tool 'answer': every such environment has it"),
        *(
            ({"tools": [named(name)]}, f"Tool '{name}': it is a control call")
            for name in sorted(RESERVED)
        ),
        ({"tools": [named("prompt")]}, "'prompt': the name means something in every environment"),
        ({"tools": [named("max_turns")]}, "'max_turns': the name means something"),
        ({"max_turn": 3}, "'max_turn' given to make_tool_env for 'tests/Made-v0'; it is no"),
        ({"max_turn": 3}, "Did you mean 'max_turns'"),
        ({"setup": 3}, "'setup' given"),
        ({"splits": ("train",)}, "'splits' given to make_tool_env for 'tests/Made-v0'; it is no"),
        ({"episode": 3}, "'episode' given"),
        ({"max_turns": "a"}, "'max_turns' given .* as 'a'; it must be a whole number of at least"),
        ({"max_turns": -1}, "'max_turns' given .* as -1; it must be a whole number of at least 1"),
        ({"max_turns": True}, "'max_turns' given .* as True; it must be a whole number"),
        ({"max_tool_calls": 0}, "'max_tool_calls' given .* as 0; it must be"),
        ({"max_observation_chars": 2.5}, "'max_observation_chars' given .* as 2.5; it must be"),
        ({"max_seconds": 0}, "'max_seconds' given .* as 0; it must be a number of seconds above 0"),
        ({"success_threshold": float("nan")}, "as nan; it must be a finite number"),
        ({"system_prompt": None}, "'system_prompt' given .* as None; it must be a text"),
        ({"id": "Made-v0"}, "Id 'Made-v0' given to make_tool_env; it must read 'namespace/Name-v0"),
        ({"id": "tests/Made"}, "Id 'tests/Made' given"),
        ({"id": "tests/2Made-v0"}, "Name can be the name of a class"),
        ({"id": "tests/class-v0"}, "Name can be the name of a class"),
        ({"tools": []}, "'tools' given .* as an empty list; .* Give at least one function"),
        ({"tools": add}, "it must be a list of functions"),
        ({"tools": ["add"]}, "The tool must be a function, found 'add'"),
        ({"tools": [silent]}, "Tool 'silent' has no docstring"),
        ({"tools": [lost]}, "Tool 'lost': a type hint cannot be read: name 'Nowhere' is not"),
        ({"tools": [odd]}, "Tool 'odd': a type of its parameters .number: .* cannot be described"),
        ({"reward": 1.0}, "The reward must be a function, found 1.0"),
        ({"state": {}}, "The state must be a function, found {}"),
        ({"reward": lambda reply: 1.0}, "The reward takes 'reply'; it can have: answer, state"),
        ({"oracle": lambda env: {}}, "The oracle takes 'env'; it can have: task, state, turn"),
    ],
)
def test_what_cannot_be_used_is_told_at_once(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        made(**changes)
    assert "tests/Made-v0" not in gymnasium.registry


def test_no_text_of_an_agent_reaches_a_control_call() -> None:
    env = made()
    env.reset(seed=0)
    before = env.episode.turns
    for name in ("reset", "snapshot", "restore", "score", "__class__", "setup", "reward", "state"):
        reply = env.step(f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>')
        assert reply[0].startswith(f"Unknown tool '{name}'") or env.episode.ended
        if env.episode.ended:
            break
    assert env.episode.turns > before


def test_the_example_is_made_by_its_id_in_a_fresh_process() -> None:
    folder = Path(__file__).resolve().parents[3] / "examples"
    code = (
        "from treegrpo.envs import make; from treegrpo.envs.baselines import *;"
        "env = make('functions:examples/Fruit-v0');"
        "print([run_episode(env, oracle_action, seed=s).success for s in range(20)].count(True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "20\n", done.stderr


def test_the_example_obeys_every_law(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).resolve().parents[3] / "examples"
    monkeypatch.syspath_prepend(str(folder))
    env = core_of(make("functions:examples/Fruit-v0"))
    reports = check_env_laws("examples/Fruit-v0", episodes=1)
    assert len(reports) == 12 and not any(report.note for report in reports)
    assert len(env.tasks("train")) + len(env.tasks("test")) == 30
    del sys.modules["functions"]


def test_the_guides_environment_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "author.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    (tmp_path / "author_guide.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = core_of(make("author_guide:mine/Twice-v0"))
    env.reset(seed=0)
    number = int(env.task.question.split()[-1][:-1])
    assert said(env, "double", number=number) == str(2 * number)
    assert env.step(env.encode_call("answer", text=str(2 * number)))[1] == 1.0
    assert [len(env.tasks(split)) for split in env.splits] == [40, 10]
    del sys.modules["author_guide"]
