"""NotesEnv: messages once, notes within bounds, rewards, budgets, and its oracle."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite import notes
from treegrpo.envs.suite.notes.env import NotesEnv, NotesState
from treegrpo.envs.suite.notes.tasks import LEVELS, Script, build
from treegrpo.envs.tasks import Task

README = (Path(notes.__file__).parent / "README.md").read_text(encoding="ascii")
SCRIPT = Script(("The pet of Mara is cat.", "It is raining."), "What is the pet of Mara?", 2, 12)


class ShortEnv(NotesEnv):
    """Notes with one task that is known."""

    def tasks(self, split: str) -> list[Task]:
        return [build(SCRIPT, ("cat", "tabby"), 1, "short", "Mara")]


def start() -> ShortEnv:
    env = ShortEnv()
    env.reset(seed=0)
    return env


def call(env: NotesEnv, tool: str, **arguments: Any) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


def test_messages_come_once_and_the_question_stays() -> None:
    env = start()
    assert env.messages[-1]["content"] == (
        "You will be asked about Mara. You have 2 notes of at most 12 characters."
    )
    shown = [call(env, "next") for _ in range(4)]
    assert shown == [*SCRIPT.messages, f"Question: {SCRIPT.asked}", f"Question: {SCRIPT.asked}"]


def test_notes_are_replaced_cleared_and_read() -> None:
    env = start()
    assert call(env, "read_notes") == "1. \n2. "
    assert call(env, "write_note", slot=2, text="Mara: cat") == "Note 2 written."
    assert call(env, "write_note", slot="1", text="x") == "Note 1 written."
    assert call(env, "read_notes") == "1. x\n2. Mara: cat"
    call(env, "write_note", slot=1, text="")
    assert env.state == NotesState(0, ["", "Mara: cat"], None)


@pytest.mark.parametrize(
    ("tool", "arguments", "reply"),
    [
        ("write_note", {"slot": 0, "text": "x"}, "there is no slot 0; slots are 1 to 2"),
        ("write_note", {"slot": 3, "text": "x"}, "there is no slot 3; slots are 1 to 2"),
        ("write_note", {"slot": 10**30, "text": "x"}, f"there is no slot {10**30}; "),
        (
            "write_note",
            {"slot": 1, "text": "y" * 13},
            "the text has 13 characters; a note holds 12",
        ),
        ("answer", {"text": "cat"}, "nothing has been asked yet; go on with next"),
    ],
)
def test_a_call_that_cannot_be_done_changes_nothing(
    tool: str, arguments: dict[str, Any], reply: str
) -> None:
    env = start()
    text, reward, terminated, _, info = env.step(env.encode_call(tool, **arguments))
    assert text.startswith(f"Tool '{tool}' failed: NoteError: {reply}")
    assert (reward, terminated, info["errors"]) == (0.0, False, ["tool_error"])
    assert env.state == NotesState(0, ["", ""], None)


def test_wrong_types_are_observations() -> None:
    env = start()
    for arguments in ({"slot": "one", "text": "x"}, {"slot": 1}, {"slot": 1, "text": 3}, {}):
        *_, info = env.step(env.encode_call("write_note", **arguments))
        assert info["errors"] == ["bad_arguments"]
    assert env.state.notes == ["", ""]


@pytest.mark.parametrize(
    ("text", "reward"), [("Cat.", 1.0), ("a tabby", 1.0), ("dog", 0.0), ("", 0.0), ("a", 0.0)]
)
def test_the_answer_must_match(text: str, reward: float) -> None:
    env = start()
    for _ in range(3):
        call(env, "next")
    _, got, terminated, _, info = env.step(env.encode_call("answer", text=text))
    assert (got, terminated, info["end_reason"]) == (reward, True, "answered")
    assert info["reward_components"] == {"answer": reward}


def test_forks_keep_their_own_notes() -> None:
    env = start()
    call(env, "write_note", slot=1, text="mine")
    twin = env.fork()
    call(twin, "write_note", slot=1, text="theirs")
    call(twin, "next")
    assert env.state == NotesState(0, ["mine", ""], None)
    assert twin.state == NotesState(1, ["theirs", ""], None)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_oracle_solves_every_task_from_its_notes(difficulty: int) -> None:
    env = NotesEnv()
    for n in range(25):
        options = {"split": "test", "index": 5 * n + difficulty - 1}
        result = run_episode(env, oracle_action, options=options)
        assert (result.difficulty, result.success) == (difficulty, True)
        assert len(result.actions) in steps_of(difficulty)
        assert not any("failed" in message["content"] for message in env.messages)
        read, said = env.messages[-3]["content"], env.state.answer
        assert (
            all(word in read for word in said.split(" and "))
            or "together" in env.messages[-5]["content"]
        )


def steps_of(level: int) -> range:
    """Return the oracle's steps as the README states them: "11", or "up to 19"."""
    row = re.search(rf"^\| {level} \|.*\| (up to )?(\d+) \|$", README, re.MULTILINE)
    assert row is not None
    most = int(row[2])
    return range(most // 2 if row[1] else most, most + 1)


@pytest.mark.parametrize("format", ["hermes", "xml"])
def test_the_oracle_mends_another_s_notes(format: str) -> None:
    env, rng = NotesEnv(format=format), np.random.default_rng(3)
    for index in range(10):
        env.reset(seed=0, options={"index": index})
        for _ in range(8):
            action = env.sample_action(rng)
            if "answer" not in action:
                env.step(action)
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0, env.messages


def test_null_and_random_agents_answer_next_to_nothing() -> None:
    env, rng = NotesEnv(), np.random.default_rng(2)

    def policy(core: ToolEnv) -> str:
        return random_action(core, rng)

    nulls = [run_episode(env, null_action, options={"index": n}) for n in range(5)]
    randoms = [run_episode(env, policy, options={"index": n}) for n in range(100)]
    assert {(r.success, r.end_reason) for r in nulls} == {(False, "turn_limit")}
    assert sum(r.success for r in randoms) <= 5
    assert "answered" in {r.end_reason for r in randoms}


def test_a_file_s_tasks_are_played_from_end_to_end() -> None:
    fixtures = Path(__file__).parents[2] / "fixtures" / "notes"
    env = NotesEnv(data=str(fixtures / "memory.jsonl"))
    assert [task.id for task in env.tasks("test")] == [
        "memory_0-gardener-0",
        "memory_1-gardener-1",
        "memory_2-sailor-0",
    ]
    for index in range(3):
        assert run_episode(env, oracle_action, options={"index": index}).success
    with pytest.raises(DataFileError, match="no such file"):
        NotesEnv(data=str(fixtures / "memory.json"))


def test_the_readme_shows_a_true_episode_and_the_levels() -> None:
    found = re.search(
        r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert found is not None
    env = NotesEnv(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(found[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"
    tools = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert tools == [schema["function"]["name"] for schema in env.tool_schemas()]
    for level, shape in LEVELS.items():
        told = shape.people * shape.attributes + shape.updates
        total = told + shape.others + shape.rumours + shape.chatter
        cells = (level, shape.people, shape.attributes, shape.updates, shape.others)
        cells += (shape.rumours, shape.chatter, -(-total // shape.per_message))
        assert f"\n| {' | '.join(map(str, cells))} |" in README
