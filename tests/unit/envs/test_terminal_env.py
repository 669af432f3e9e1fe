"""TerminalEnv: tools, what is scored, its tasks, its oracle, and what its README says."""

import re
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.suite import terminal
from treegrpo.envs.suite.terminal import disk, machine, tasks
from treegrpo.envs.suite.terminal.disk import Disk, disk_of
from treegrpo.envs.suite.terminal.env import TerminalEnv
from treegrpo.envs.suite.terminal.goals import CHANGES, QUESTIONS, Goal
from treegrpo.envs.suite.terminal.shell import PROGRAMS
from treegrpo.envs.suite.terminal.tasks import LEVELS, is_solved
from treegrpo.envs.suite.terminal.worlds import World
from treegrpo.envs.tasks import Task

README = (Path(terminal.__file__).parent / "README.md").read_text(encoding="ascii")
FLAT = " ".join(README.split())
START = disk_of({"/w/a": "1\n", "/w/b": "2\n", "/w/keep": "k\n"}, ("/home/agent",))
GOAL = Goal(
    "Make a 9, remove b.",
    ("cat /w/a",),
    ("echo 9 > /w/a ; rm -f /w/b",),
    (("/w/a", "9\n"), ("/w/b", None)),
)


class SmallEnv(TerminalEnv):
    """Terminal with one task whose numbers are known."""

    def tasks(self, split: str) -> list[Task]:
        goals = (GOAL, Goal("How many?", ("ls /w | wc -l",), answer="3"))
        return [Task("small", "Do it.", "3", 1, {"disk": START, "goals": goals, "root": "/w"})]


def start() -> SmallEnv:
    env = SmallEnv()
    env.reset(seed=0)
    return env


def call(env: TerminalEnv, tool: str, **arguments: str) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


def test_the_tools_reply_as_documented() -> None:
    env = start()
    assert call(env, "shell", command="ls; pwd") == "a\nb\nkeep\n/w"
    assert call(env, "shell", command="true") == "[no output]"
    assert call(env, "shell", command="false") == "[exit code 1]"
    assert call(env, "shell", command="cat c") == (
        "cat: c: No such file or directory\n[exit code 1]"
    )
    call(env, "shell", command="echo 9 > a; rm b")
    text, reward, terminated, truncated, info = env.step(env.encode_call("submit", answer=" 3 "))
    assert (text, reward, terminated, truncated) == ("Submitted.", 1.0, True, False)
    assert (info["end_reason"], info["reward_components"]) == ("submitted", {"goal": 1.0})


@pytest.mark.parametrize(
    ("command", "answer", "reward"),
    [
        ("echo 9 > a; rm b", "3", 1.0),
        ("echo 9 > a; rm b; echo more > new; mkdir x", "3", 1.0),
        ("echo 9 > a; rm b", "4", 0.0),
        ("echo 9 > a; rm b", "", 0.0),
        ("echo 9 > a", "3", 0.0),
        ("printf 9 > a; rm b", "3", 0.0),
        ("echo 9 > a; rm b keep", "3", 0.0),
        ("echo 9 > a; rm b; echo >> keep", "3", 0.0),
        ("echo 9 > a; rm b; mv keep kept", "3", 0.0),
        ("rm a; mkdir a; rm b", "3", 0.0),
        ("cd /; rm -rf w; mkdir w; echo 9 > w/a", "3", 0.0),
    ],
)
def test_all_has_to_be_right_and_nothing_else_lost(
    command: str, answer: str, reward: float
) -> None:
    env = start()
    call(env, "shell", command=command)
    assert env.step(env.encode_call("submit", answer=answer))[1] == reward


def test_without_a_submission_nothing_is_earned() -> None:
    env = start()
    call(env, "shell", command="echo 9 > a; rm b")
    while not env.episode.ended:
        env.step("thinking")
    assert (env.episode.episode_return, env.episode.end_reason) == (0.0, "turn_limit")


def test_a_history_must_keep_its_commits() -> None:
    world = World(np.random.default_rng(3), depth=1, files_per_folder=3)
    goal = CHANGES["restore"](world)
    task = Task("t", "q", None, 3, {"disk": world.disk(), "goals": (goal,), "root": world.root})
    env = SmallEnv()
    for extra, solved in (("true", True), ("rm -rf .git; git init", False)):
        env.reset(seed=0)
        env.state.disk = world.disk()
        for command in (*goal.looks, *goal.does, extra):
            call(env, "shell", command=command)
        assert is_solved(task, env.state.disk, "") is solved
    assert not is_solved(task, world.disk(), "")


def test_wrong_types_and_hostile_strings_are_observations() -> None:
    env = start()
    for action in (
        '<tool_call>{"name": "shell", "arguments": {"command": 7}}</tool_call>',
        '<tool_call>{"name": "shell", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "submit", "arguments": {"answer": ["3"]}}</tool_call>',
    ):
        _, _, terminated, _, info = env.step(action)
        assert len(info["errors"]) == 1 and not terminated
    for command in ("\x00\x1b[31m" * 300, "a" * 7_000, "'" * 99, "\ud800", "$" * 3_000):
        text, _, terminated, _, info = env.step(env.encode_call("shell", command=command))
        assert info["errors"] == [] and not terminated and "[exit code " in text
        assert len(text) < 4_100
    assert cast("Disk", env.state.disk).files() == START.files()


@pytest.mark.parametrize("kind", sorted({**CHANGES, **QUESTIONS}))
def test_every_goal_is_reached_by_its_commands_and_not_before(kind: str) -> None:
    env = SmallEnv()
    for seed in range(8):
        world = World(np.random.default_rng(seed), depth=1 + seed % 3, files_per_folder=3)
        goal = {**CHANGES, **QUESTIONS}[kind](world)
        env.reset(seed=0)
        env.state.disk = world.disk()
        assert goal.is_reached(env.state.disk) == (not goal.wanted)
        shown = [call(env, "shell", command=command) for command in goal.looks]
        if goal.answer is not None:
            assert goal.answer in shown[-1].split()
        for command in goal.does:
            assert "exit code" not in call(env, "shell", command=command)
        assert goal.is_reached(env.state.disk)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_oracle_solves_every_task(difficulty: int) -> None:
    env = TerminalEnv()
    for n in range(15):
        options = {"split": "validation", "index": 5 * n + difficulty - 1}
        result = run_episode(env, oracle_action, seed=n, options=options)
        assert (result.difficulty, result.success) == (difficulty, True)
        assert not any("exit code" in message["content"] for message in env.messages)


def test_the_oracle_goes_on_after_detours() -> None:
    env = TerminalEnv(format="xml")
    for index in range(10):
        env.reset(seed=0, options={"index": index})
        for command in ("cd /; mkdir tmp/x", "X=1; touch new", "cat nope"):
            call(env, "shell", command=command)
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0


def test_the_oracle_gives_up_where_files_are_lost() -> None:
    env = TerminalEnv()
    env.reset(seed=0, options={"index": 2})
    call(env, "shell", command="rm -rf /srv")
    while not env.episode.ended:
        env.step(env.oracle())
    assert (env.episode.episode_return, env.episode.end_reason) == (0.0, "submitted")


def test_null_and_random_agents_solve_next_to_nothing() -> None:
    env, rng = TerminalEnv(), np.random.default_rng(2)

    def policy(core: ToolEnv) -> str:
        return random_action(core, rng)

    nulls = [run_episode(env, null_action, seed=n, options={"index": n}) for n in range(5)]
    randoms = [run_episode(env, policy, seed=n, options={"index": n}) for n in range(50)]
    assert {(r.success, r.end_reason) for r in nulls} == {(False, "turn_limit")}
    assert sum(r.success for r in randoms) <= 3


def test_content_decides_the_split() -> None:
    env = TerminalEnv()
    seen: dict[str, set[str]] = {}
    for split in env.splits:
        found = [env.tasks(split)[index] for index in range(60)]
        seen[split] = {digest([task.question, task.data]) for task in found}
        assert len(seen[split]) == 60
    assert not seen["train"] & seen["validation"] and not seen["test"] & seen["train"]
    tenths = [tasks.split_of(f"{number:08x}") for number in range(10)]
    assert tenths == ["test"] * 2 + ["validation"] * 2 + ["train"] * 6


def test_the_readme_shows_a_true_episode_and_every_tool() -> None:
    found = re.search(
        r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert found is not None
    env = TerminalEnv(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(found[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"
    listed = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert listed == [schema["function"]["name"] for schema in env.tool_schemas()]


def test_the_readme_s_commands_and_numbers_are_the_code_s() -> None:
    listed = re.search(r"Commands: (.*?)\. ", FLAT)
    assert listed is not None
    assert sorted(re.findall(r"`(\S+)`", listed[1])) == sorted(PROGRAMS)
    assert f"{disk.MAX_ENTRIES} entries" in FLAT
    assert f"{disk.MAX_BYTES // 1024} KiB in all, {disk.MAX_FILE_BYTES // 1024} KiB a file" in FLAT
    assert f"prints at most {machine.MAX_OUTPUT // 1024} KiB" in FLAT
    assert f"{TerminalEnv.max_turns} turns and {TerminalEnv.max_tool_calls} calls" in FLAT
    for level, facts in LEVELS.items():
        spare = re.escape(f"| {facts.spare} |")
        assert re.search(rf"^\| {level} \|.*{spare}", README, re.MULTILINE)
    assert all(f"`{kind}`" in README for kind in {**CHANGES, **QUESTIONS})
