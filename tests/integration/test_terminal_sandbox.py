"""Terminal with a real shell: laws, forks, hostile lines, and rewards that mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytest

from treegrpo.envs import check_env_laws, make
from treegrpo.envs.baselines import null_action, oracle_action, run_episode
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.envs.suite.terminal.env import TerminalEnv
from treegrpo.envs.suite.terminal.real import PLACE, ShellState, disk_in
from treegrpo.sandboxes import Level, open_backend

LEVEL = open_backend("process").probe().level
needs_sandbox = pytest.mark.skipif(
    LEVEL < Level.L2, reason=f"sandboxes have only level {LEVEL.name} here"
)
UNDONE = "files are as they were before it."


@pytest.fixture
def env() -> Iterator[TerminalEnv]:
    made = TerminalEnv(backend="sandbox", timeout_s=2.0)
    made.reset(seed=0, options={"split": "test", "index": 0})
    yield made
    made.close()


def sh(env: TerminalEnv, command: str) -> str:
    return env.step(env.encode_call("shell", command=command))[0]


def cwd(env: TerminalEnv) -> str:
    return cast("ShellState", env.state).cwd


@needs_sandbox
def test_every_law_holds() -> None:
    reports = check_env_laws(
        partial(make, "treegrpo/Terminal-v0", backend="sandbox"), episodes=1, seed=11
    )
    assert [report.law for report in reports if report.checks == 0 or report.note] == []


@needs_sandbox
def test_the_oracle_solves_every_level_and_doing_nothing_solves_none() -> None:
    env = TerminalEnv(backend="sandbox")
    levels: list[int | None] = []
    for index in range(5):
        options = {"split": "test", "index": index}
        assert run_episode(env, oracle_action, seed=1, options=options).episode_return == 1.0
        levels.append(env.task.difficulty)
        assert run_episode(env, null_action, seed=1, options=options).episode_return == 0.0
    env.close()
    assert levels == [1, 2, 3, 4, 5]


@needs_sandbox
def test_the_folder_and_files_stay_and_forks_do_not_see_each_other(env: TerminalEnv) -> None:
    root = env.task.data["root"]
    assert root.startswith(f"{PLACE}/")
    assert sh(env, "mkdir -p new && cd new && echo a > f && pwd") == f"{root}/new"
    assert sh(env, "cat f") == "a"
    fork = env.fork()
    assert isinstance(fork, TerminalEnv)
    assert sh(fork, f"echo b > f; cd {PLACE}") == "(no output)"
    assert (sh(env, "cat f; pwd"), cwd(fork)) == (f"a\n{root}/new", PLACE)
    assert sh(fork, f"cat {root}/new/f; exit 3") == "b\n[exit code 3]"
    fork.close()


@needs_sandbox
@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /workspace/*; sleep 30",
        "rm -rf /workspace/*; yes",
        "rm -rf /workspace/*; sleep 30 & echo started",
        "rm -rf /workspace/*; f() { f | f & }; f; sleep 30",
    ],
)
def test_a_line_that_does_not_end_well_is_undone(env: TerminalEnv, command: str) -> None:
    before = disk_in(env.sandbox, env.task)
    folder = cwd(env)
    shown = sh(env, command)
    assert shown.endswith(UNDONE)
    assert "\0" not in shown
    assert (disk_in(env.sandbox, env.task), cwd(env)) == (before, folder)
    assert sh(env, "echo on") == "on"


@needs_sandbox
@pytest.mark.parametrize(
    "command", ["kill -9 -1", "kill -9 $$", "if", "echo x > /etc/x", "nosuchcommand", "cat \ud800"]
)
def test_a_line_that_fails_says_so_and_the_episode_goes_on(env: TerminalEnv, command: str) -> None:
    assert "[exit code " in sh(env, command)
    assert sh(env, "echo on") == "on"


@needs_sandbox
def test_a_file_made_a_link_or_unreadable_is_not_kept(env: TerminalEnv) -> None:
    path, other, *_ = sorted(env.task.data["disk"].files())
    sh(
        env,
        f"cp {path} ../copy; ln -sf /workspace/copy {path}; head -c 70000 /dev/zero > {other}",
    )
    now = disk_in(env.sandbox, env.task).files()
    assert path not in now
    assert other not in now
    assert len(now) == len(env.task.data["disk"].files()) - 2


@needs_sandbox
def test_help_is_answered_as_the_prompt_promises(env: TerminalEnv) -> None:
    assert sh(env, "help") == "POSIX sh, with the commands in /bin and /usr/bin."


@needs_sandbox
def test_the_same_seed_gives_a_task_of_the_same_splits_elsewhere() -> None:
    real, memory = TerminalEnv(backend="sandbox"), TerminalEnv()
    tasks = {split: real.tasks(split) for split in ("train", "validation", "test")}
    ids = {split: {items[index].id for index in range(40)} for split, items in tasks.items()}
    assert not ids["train"] & ids["test"] | ids["validation"] & ids["test"]
    (drawn, here) = (memory.tasks("test")[1], tasks["test"][1])
    assert here.id == drawn.id
    assert here.question == drawn.question.replace("/srv/", "/workspace/")


@needs_sandbox
def test_nul_is_refused_before_the_sandbox(env: TerminalEnv) -> None:
    assert "NUL" in sh(env, "echo a\0b")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backend": "sandbx"}, "Did you mean 'sandbox'"),
        ({"timeout_s": 1.0}, "timeout_s=1.0 of Terminal asked for with backend='memory'"),
        ({"backend": "sandbox", "min_level": 1}, "min_level=1 of Terminal asked for"),
        ({"backend": "sandbox", "min_level": 0, "unsafe": True}, "min_level=0 of Terminal"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UnknownOption, match=text):
        TerminalEnv(**settings)


@pytest.mark.skipif(LEVEL >= Level.L3, reason="sandboxes have the highest level here")
def test_a_level_that_this_machine_lacks_is_refused() -> None:
    env = TerminalEnv(backend="sandbox", min_level=3)
    with pytest.raises(TreegrpoError, match="L3"):
        env.reset(seed=0)
