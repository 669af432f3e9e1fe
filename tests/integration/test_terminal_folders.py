"""Task folders played in a sandbox: rewards, what the agent can see, hostile agents and tests."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from treegrpo.envs import check_env_laws, make
from treegrpo.envs.baselines import null_action, oracle_action, run_episode
from treegrpo.envs.errors import GraderFailed, TreegrpoError
from treegrpo.envs.suite.terminal.env import TerminalEnv
from treegrpo.envs.suite.terminal.real import ShellState
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.verify import verify
from treegrpo.sandboxes import Level, open_backend

FIXTURE = Path(__file__).parents[1] / "fixtures" / "terminal" / "harbor"
LEVEL = open_backend("process").probe().level
pytestmark = pytest.mark.skipif(
    LEVEL < Level.L2, reason=f"sandboxes have only level {LEVEL.name} here"
)
COUNT = "grep -c north /workspace/app/data/visits.csv > /workspace/app/north.txt"


@pytest.fixture(scope="module")
def playable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of the fixture that can be played."""
    root = tmp_path_factory.mktemp("tasks")
    for name in ("image-only", "plain-copy", "repair-script"):
        shutil.copytree(FIXTURE / name, root / name)
    return root


@pytest.fixture
def env(playable: Path) -> Iterator[TerminalEnv]:
    made = TerminalEnv(backend="sandbox", path=str(playable / "plain-copy"))
    made.reset(seed=0)
    yield made
    made.close()


def sh(env: TerminalEnv, command: str) -> str:
    return env.step(env.encode_call("shell", command=command))[0]


def submit(env: TerminalEnv) -> float:
    _, reward, terminated, _, info = env.step(env.encode_call("submit"))
    assert terminated
    assert info["reward_components"] == {"tests": reward}
    return reward


def test_every_law_holds(playable: Path) -> None:
    options = {"backend": "sandbox", "path": str(playable / "plain-copy")}
    made = partial(make, "treegrpo/Terminal-v0", **options)
    spell = TerminalEnv(**options).encode_call
    steps = ("echo 9 > north.txt && cd data", "rm -r *; pwd", "ls -A / /tmp; cat north.txt")
    actions = [*(spell("shell", command=step) for step in steps), spell("submit")]
    reports = check_env_laws(made, episodes=1, seed=11, actions=actions)
    assert [report.law for report in reports if report.checks == 0 or report.note] == []


def test_the_oracle_solves_every_task_and_doing_nothing_none(playable: Path) -> None:
    env = TerminalEnv(backend="sandbox", path=str(playable))
    for index in range(len(env.tasks("test"))):
        options = {"split": "test", "index": index}
        assert run_episode(env, oracle_action, seed=1, options=options).episode_return == 1.0
        assert env.episode.terminated
        assert run_episode(env, null_action, seed=1, options=options).episode_return == 0.0
        assert env.episode.end_reason == "turn_limit"
    env.close()


def test_forks_are_scored_each_for_itself_and_in_parts(playable: Path) -> None:
    env = TerminalEnv(backend="sandbox", path=str(playable / "repair-script"))
    env.reset(seed=0)
    fork = env.fork()
    sh(fork, "sed -i 's/Hello, $1/Hello, $1./' greet.sh")
    # The second line, for de, still says Hello: half of the reward.
    assert sh(fork, "./greet.sh Ann") == "Hello, Ann."
    assert (submit(fork), submit(env)) == (0.5, 0.0)
    # The tests wrote into the configuration, but only in their own fork.
    assert fork.state.sandbox.read("opt/tools/conf/language") == b"en\n"
    for one in (fork, env):
        one.close()


def test_tests_and_solution_are_nowhere_while_the_agent_plays(env: TerminalEnv) -> None:
    look = "find /workspace /tmp | sort; ls -d /app /logs /tests /solution 2>/dev/null"
    at_first = [
        "/tmp",
        "/workspace",
        "/workspace/app",
        "/workspace/app/data",
        "/workspace/app/data/visits.csv",
        "/workspace/app/readme.txt",
        "[exit code 2]",  # of ls: none of the four is there
    ]
    assert sh(env, look).splitlines() == at_first
    sh(env, COUNT)
    solved = sorted([*at_first[:-1], "/workspace/app/north.txt"])
    twin = env.fork()
    assert submit(twin) == 1.0
    # Neither the sibling nor the state that was scored holds anything of the tests.
    assert sh(env, look).splitlines() == [*solved, "[exit code 2]"]
    after, result = twin.state.sandbox.step(["/bin/sh", "-c", look])
    assert result.stdout.decode().splitlines() == solved
    after.close()
    twin.close()


def test_random_commands_print_the_same_at_any_time(env: TerminalEnv) -> None:
    rng = np.random.default_rng(0)
    actions = [env.sample_action(rng) for _ in range(300)]
    commands = [a.partition('"command": "')[2].partition('"}}')[0] for a in actions]
    assert sum("visits.csv" in command for command in commands) > 50
    # Times of files, and two commands that fail side by side.
    timed = [c for c in commands if c.startswith("ls -l") or re.fullmatch(r"[\w']+ \| [\w']+", c)]
    assert timed == []


@pytest.mark.parametrize(
    "command",
    [
        "mkdir -p /workspace/logs/verifier; echo 1 > /workspace/logs/verifier/reward.txt",
        "cd /tmp; mkdir tests; echo 'echo 1' > tests/test.sh; cp -r tests /workspace",
        "cd /workspace; rm -rf app; ln -s /tmp app; chmod 000 /tmp /workspace",
        "rm -rf /workspace/* /tmp/*",
    ],
)
def test_what_an_agent_plants_or_breaks_earns_nothing(env: TerminalEnv, command: str) -> None:
    sh(env, command)
    assert submit(env) == 0.0


@pytest.mark.parametrize(
    "command",
    [
        "chmod 000 /tmp /workspace",
        "head -c 60000000 /dev/zero > /tmp/full",
        "mkdir -p /workspace/tests /workspace/logs; chmod 000 /workspace/tests /workspace/logs",
    ],
)
def test_a_task_that_was_solved_is_paid_whatever_else_was_done(
    env: TerminalEnv, command: str
) -> None:
    sh(env, COUNT)
    assert "exit code" not in sh(env, command)
    assert submit(env) == 1.0


def test_the_end_of_the_turns_is_scored_as_a_submission_is(env: TerminalEnv) -> None:
    sh(env, COUNT)
    reward = 0.0
    while not env.episode.ended:
        _, reward, *_ = env.step("nothing")
    assert (reward, env.episode.end_reason) == (1.0, "turn_limit")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 3", "wrote no /logs/verifier/reward: ended with exit 3, its last output ''"),
        ("echo why; rm -r /logs/verifier", "its last output 'why'"),
        ("echo 1 > /logs/verifier/reward.txt; sleep 60", "did not end: stopped after 1 seconds"),
        ("yes", "did not end: stopped after 1 seconds"),
        (": > /logs/verifier/reward.txt", r"/logs/verifier/reward.txt holds b'', no reward"),
        ("echo nan > /logs/verifier/reward.txt", r"holds b'nan\\n', no reward from 0 to 1"),
        ("echo 1.5 > /logs/verifier/reward.txt", r"holds b'1.5\\n', no reward from 0 to 1"),
        ("echo -0.5 > /logs/verifier/reward.txt", r"holds b'-0.5\\n', no reward from 0 to 1"),
        ("echo 1e999 > /logs/verifier/reward.json", "no reward from 0 to 1"),
        ("echo '[1]' > /logs/verifier/reward.json", r"holds b'[1]\\n', no reward from 0 to 1"),
        ("echo '{}' > /logs/verifier/reward.json", "no reward from 0 to 1"),
        ('echo \'{"a": 1, "b": 1}\' > /logs/verifier/reward.json', "no reward from 0 to 1"),
        ("echo true > /logs/verifier/reward.json", "no reward from 0 to 1"),
        ("mkdir /logs/verifier/reward.txt", "reward.txt is a directory, no regular file"),
        ("ln -s /tmp /logs/verifier/reward.txt", "reward.txt is a symlink, no regular file"),
        ("head -c 9000 /dev/zero > /logs/verifier/reward.txt", "has 9000 bytes; at most 4096"),
    ],
)
def test_tests_that_give_no_reward_are_the_graders_fault(
    playable: Path, tmp_path: Path, script: str, found: str
) -> None:
    with pytest.raises(GraderFailed) as error:
        _scored_by(playable, tmp_path, script, seconds=1 if "stopped after" in found else 60)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("script", "reward"),
    [
        ("head -c 5000000 /dev/zero; echo 1 > /logs/verifier/reward.txt", 1.0),
        ('echo \'{"reward": 0.25, "time": 9}\' > /logs/verifier/reward.json; exit 1', 0.25),
        ("echo '{\"accuracy\": 0.75}' > /logs/verifier/reward.json", 0.75),
        ("echo 0 > /logs/verifier/reward.txt; echo 1 > /logs/verifier/reward.json", 0.0),
        ("#!/usr/bin/env python3\nopen('/logs/verifier/reward.txt', 'w').write('1')", 1.0),
        ("pwd > /tmp/where; [ $(pwd) = /app ] && echo 1 > /logs/verifier/reward.txt", 1.0),
        ("cat || true; echo 1 > /logs/verifier/reward.txt", 1.0),
    ],
)
def test_a_reward_that_was_written_counts(
    playable: Path, tmp_path: Path, script: str, reward: float
) -> None:
    assert _scored_by(playable, tmp_path, script) == reward


def test_a_reward_that_the_agent_wrote_is_not_found(playable: Path, tmp_path: Path) -> None:
    plant = "cd /workspace; mkdir -p logs/verifier && echo 1 | tee logs/verifier/reward.txt"
    with pytest.raises(GraderFailed, match="wrote no /logs/verifier/reward"):
        _scored_by(playable, tmp_path, "exit 0", command=plant)


def _scored_by(
    playable: Path, tmp_path: Path, script: str, *, seconds: int = 60, command: str = "true"
) -> float:
    """Return what a task of other tests, which may take so long, gives for a command."""
    folder = shutil.copytree(playable / "plain-copy", tmp_path / "plain-copy")
    (folder / "tests" / "test.sh").write_text(f"{script}\n")
    (folder / "task.toml").write_text(f"[verifier]\ntimeout_sec = {seconds}\n")
    env = TerminalEnv(backend="sandbox", path=str(folder))
    env.reset(seed=0)
    try:
        sh(env, command)
        return submit(env)
    finally:
        env.close()


def test_a_task_whose_files_do_not_fit_is_refused_at_reset(playable: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(playable / "plain-copy", tmp_path / "plain-copy")
    deep = "/".join(["d" * 200] * 25)
    docker = f"FROM x\nCOPY visits.csv /app/{deep}/x\n"
    (folder / "environment" / "Dockerfile").write_text(docker)
    env = TerminalEnv(backend="sandbox", path=str(folder))
    with pytest.raises(TreegrpoError, match="the sandbox does not take its files"):
        env.reset(seed=0)


def test_a_solution_without_a_folder_has_no_expert(playable: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(playable / "plain-copy", tmp_path / "plain-copy")
    shutil.rmtree(folder / "solution")
    env = TerminalEnv(backend="sandbox", path=str(folder))
    env.reset(seed=0)
    with pytest.raises(TreegrpoError, match="it has no solution"):
        env.oracle()
    assert cast("ShellState", env.state).cwd == "/workspace/app"
    env.close()


def test_a_bundle_is_replayed_and_tests_without_a_reward_score_nothing(
    playable: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(playable, tmp_path / "tasks")
    (folder / "image-only" / "tests" / "test.sh").write_text("exit 0\n")
    evaluate(
        scripted_agent("oracle"),
        "treegrpo/Terminal-v0",
        split="test",
        num_tasks=3,
        trials=1,
        seed=3,
        out=tmp_path / "bundle",
        env_kwargs={"backend": "sandbox", "path": str(folder)},
        concurrency=2,
    )
    lines = (tmp_path / "bundle" / "episodes.jsonl").read_text().splitlines()
    records = [EpisodeRecord.model_validate_json(line) for line in lines]
    found = sorted((r.task_id, r.reward, r.failure) for r in records)
    assert found == [
        ("image-only", "0.0", "grader"),
        ("plain-copy", "1.0", None),
        ("repair-script", "1.0", None),
    ]
    assert verify(tmp_path / "bundle").verified
    # Other tests are another task, and do not pass for the recorded one.
    (folder / "plain-copy" / "tests" / "test.sh").write_text("echo 1 > /logs/verifier/reward.txt\n")
    assert not verify(tmp_path / "bundle").verified


def test_nothing_is_warned_of_where_all_can_be_played(playable: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TerminalEnv(backend="sandbox", path=str(playable)).close()
