"""An environment on a real MCP server over standard streams, written for these tests."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs.baselines import null_action, oracle_action, run_episode
from treegrpo.envs.errors import GraderFailed, SandboxFailed, SnapshotUnsupported
from treegrpo.envs.mcp.env import McpEnv

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mcp"
TILL = [sys.executable, "-S", str(FIXTURES / "till.py")]


def till(*flags: str, **settings: Any) -> McpEnv:
    settings = {"rows": str(FIXTURES / "till.jsonl"), "rename": {"reset": "clear"}, **settings}
    return McpEnv(server=[*TILL, *flags], **settings)


@pytest.fixture(scope="module")
def keeper() -> Iterator[McpEnv]:
    """Keep one environment open, so that the tests share their servers."""
    env = till()
    yield env
    env.close()


@pytest.fixture
def env(keeper: McpEnv) -> McpEnv:
    found = till()
    split = next(s for s in found.splits if any(t.id == "till-1" for t in found.tasks(s)))
    found.reset(seed=0, options={"split": split, "task_id": "till-1"})
    return found


def call(env: McpEnv, name: str, **arguments: Any) -> tuple[str, list[str]]:
    text, _, _, _, info = env.step(env.encode_call(name, **arguments))
    return text, info["errors"]


def test_the_servers_tools_are_offered_beside_answer(env: McpEnv) -> None:
    schemas = {s["function"]["name"]: s["function"] for s in env.tool_schemas()}
    assert list(schemas) == ["add", "total", "sleep", "crash", "lucky", "note", "clear", "answer"]
    assert schemas["add"]["description"] == "Add an amount to the total."
    texts = schemas["note"]["parameters"]["properties"]["texts"]
    assert texts == {"type": "array", "items": {"$ref": "#/$defs/text"}}


def test_calls_reach_the_server_and_its_state(env: McpEnv) -> None:
    assert call(env, "add", amount="2") == ("The total is 5.", [])
    assert call(env, "total") == ("5", [])
    assert call(env, "note", texts=["a"]) == ('[["a"], "not said"]', [])
    assert call(env, "note", texts=["b"], urgent=True) == ('[["a", "b"], true]', [])
    assert env.state["history"][0].output.endswith('"The total is 3."}')
    assert len(env.state["history"]) == 4  # the row's own call, add and two notes: no read


def test_what_goes_wrong_is_an_observation(env: McpEnv) -> None:
    text, errors = call(env, "add", amount="many")
    assert text.startswith("Bad arguments: amount") and errors == ["bad_arguments"]
    text, errors = call(env, "add", amount=5_000)
    assert text == "Tool 'add' failed: ToolFailed: the till is full" and errors == ["tool_error"]
    for name in ("reset", "snapshot", "score", "call_server", "state"):
        step = env.step(f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>')
        assert step[4]["errors"] == ["unknown_tool"]


@pytest.mark.parametrize("task", ["till-1", "till-2", "till-3", "till-4"])
def test_the_oracle_solves_each_row_and_nobody_else_does(task: str, env: McpEnv) -> None:
    split = next(s for s in env.splits if any(t.id == task for t in env.tasks(s)))
    options = {"split": split, "task_id": task}
    assert run_episode(env, oracle_action, seed=1, options=options).episode_return == 1.0
    assert run_episode(env, null_action, seed=1, options=options).episode_return == 0.0
    at_once = run_episode(env, lambda core: core.encode_call("answer", text="x"), options=options)
    assert (at_once.episode_return, at_once.end_reason) == (0.0, "answered")


def test_forks_have_servers_of_their_own(env: McpEnv) -> None:
    call(env, "add", amount=1)
    shot = env.snapshot()
    twins = [env.fork() for _ in range(3)]
    for number, twin in enumerate(twins):
        assert call(twin, "add", amount=10 * number) == (f"The total is {4 + 10 * number}.", [])
    assert call(env, "total") == ("4", [])
    call(env, "clear")
    env.restore(shot)
    assert call(env, "total") == ("4", [])
    assert call(twins[2], "total") == ("24", [])


def test_a_pickle_keeps_the_servers_tools_and_the_episode(env: McpEnv) -> None:
    unused = pickle.loads(pickle.dumps(till()))
    assert unused.tool_schemas() == env.tool_schemas()
    call(env, "add", amount=1)
    twin = pickle.loads(pickle.dumps(env))
    assert twin.state_hash() == env.state_hash()
    assert call(twin, "add", amount=10) == ("The total is 14.", [])
    assert call(env, "total") == ("4", [])


def test_the_row_decides_by_the_servers_final_state(env: McpEnv) -> None:
    call(env, "add", amount=4)
    shot = env.snapshot()
    assert env.step(env.encode_call("answer"))[1] == 1.0
    env.restore(shot)
    call(env, "add", amount=1)
    assert env.step(env.encode_call("answer"))[1] == 0.0


def test_a_late_reply_and_a_crash_have_no_effect(keeper: McpEnv) -> None:
    env = till(timeout_s=2)
    env.reset(seed=0, options={"split": split_of(env, "till-1"), "task_id": "till-1"})
    text, errors = call(env, "sleep", seconds=60)
    assert "NoReply: no reply within 2 s" in text and errors == ["tool_error"]
    assert call(env, "total") == ("3", [])
    text, errors = call(env, "crash")
    assert "NoReply: the server stopped during this call" in text and errors == ["tool_error"]
    assert call(env, "add", amount=4) == ("The total is 7.", [])
    assert env.step(env.encode_call("answer"))[1] == 1.0
    env.close()


def test_a_server_that_answers_otherwise_is_refused_with_the_call() -> None:
    env = till("--moody")
    env.reset(seed=0, options={"split": split_of(env, "till-2"), "task_id": "till-2"})
    env.snapshot()  # nothing was done yet: nothing to replay
    call(env, "add", amount=5)
    for refused in (env.snapshot, env.fork):
        with pytest.raises(
            SnapshotUnsupported, match=r"call 1 of the history.*add.*The total is 5"
        ):
            refused()
    assert call(env, "total") == ("5", [])  # the episode itself goes on
    env.close()


def test_a_random_tool_cannot_be_replayed(env: McpEnv) -> None:
    call(env, "lucky")
    with pytest.raises(SandboxFailed, match="must be deterministic"):
        env.snapshot()


def test_a_server_that_does_not_start_is_told_with_its_last_words() -> None:
    with pytest.raises(SandboxFailed, match=r"It said: no till today"):
        McpEnv(server=[sys.executable, "-S", "-c", "raise SystemExit('no till today')"])
    with pytest.raises(SandboxFailed, match=r"FileNotFoundError.*It said nothing"):
        McpEnv(server=["/nowhere/till"])


def test_a_set_up_call_that_fails_names_the_row(keeper: McpEnv) -> None:
    row = {"question": "x", "answer": 1, "split": "train", "id": "r1"}
    env = till(rows=[{**row, "setup": [{"name": "add", "arguments": {"amount": 5_000}}]}])
    with pytest.raises(SandboxFailed, match=r"sets up task r1.*the till is full"):
        env.reset(seed=0)


def test_a_check_that_cannot_be_made_is_the_graders_failure(keeper: McpEnv) -> None:
    row = {"question": "x", "check": {"name": "crash", "gives": "0"}, "split": "train"}
    env = till(rows=[row])
    env.reset(seed=0)
    with pytest.raises(GraderFailed, match="the server stopped"):
        env.step(env.encode_call("answer"))


def split_of(env: McpEnv, task: str) -> str:
    return next(s for s in env.splits if any(t.id == task for t in env.tasks(s)))
