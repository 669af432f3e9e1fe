"""Forks of SQL are real: each has a database of its own, here and in another process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from treegrpo.envs import make
from treegrpo.envs.snapshot import Snapshot, fork
from treegrpo.envs.suite.sql.env import SQLEnv

ENDED = ("submitted", "turn_limit", "tool_call_limit")


def query(env: SQLEnv, sql: str) -> str:
    return env.step(env.encode_call("query", sql=sql))[0]


def submit(env: SQLEnv) -> float:
    return env.step(env.encode_call("submit", sql="done"))[1]


def play(env: SQLEnv) -> float:
    while not (env.episode.terminated or env.episode.truncated):
        env.step(env.oracle())
    return env.episode.episode_return


def restock(env: SQLEnv) -> tuple[str, str]:
    """Start a restock task; return its two gold statements, the second an INSERT."""
    tasks = env.tasks("train")
    index = next(i for i, task in enumerate(tasks) if task.id.startswith("restock-"))
    env.reset(seed=0, options={"index": index})
    one, two = (step.arguments["sql"] for step in env.task.data["plan"] if step.writes)
    assert two.startswith("INSERT INTO log")
    return one, two


def test_a_fork_after_an_insert_sees_the_row_and_one_before_does_not() -> None:
    env = SQLEnv()
    update, insert = restock(env)
    query(env, update)
    before = env.fork()
    count = "SELECT COUNT(*) FROM log"
    rows = int(query(before.fork(), count).splitlines()[1])
    assert query(env, insert) == "1 row changed."
    after = env.fork()
    assert query(after.fork(), count) == f"COUNT(*)\n{rows + 1}"
    assert query(before.fork(), count) == f"COUNT(*)\n{rows}"
    # The leaves' rewards follow from what each database holds.
    assert submit(after) == 1.0
    assert submit(before.fork()) == 0.0
    query(before, insert)
    assert submit(before) == 1.0
    query(env, insert)
    assert submit(env) == 0.0, "the row stands there twice"


def test_a_wrong_write_dooms_one_branch_only() -> None:
    env = SQLEnv(horizon="long")
    env.reset(seed=0, options={"index": 4})
    plan = env.task.data["plan"]
    cut = next(i for i, step in enumerate(plan) if step.writes and i > 4)
    for _ in range(cut):
        env.step(env.oracle())
    here = env.state_hash()
    doomed, saved = env.fork(), env.fork()
    query(doomed, "DELETE FROM stock")
    for step in plan[cut:]:
        doomed.step(doomed.encode_call(step.tool, **step.arguments))
    assert doomed.episode.end_reason == "submitted" and doomed.episode.episode_return == 0.0
    assert play(saved) == 1.0
    assert env.state_hash() == here
    assert play(env) == 1.0


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_every_fork_of_a_random_walk_goes_on_alike(horizon: str) -> None:
    """Law S2 under writes, errors and refusals: the same actions, the same everything."""
    rng = np.random.default_rng(7)
    env = SQLEnv(horizon=horizon)
    for index in range(15):
        env.reset(seed=index, options={"index": index})
        for _ in range(int(rng.integers(1, 5))):
            if not env.episode.terminated:
                env.step(env.sample_action(rng))
        snapshot = env.snapshot()
        twin = SQLEnv(horizon=horizon)
        twin.reset(seed=99)
        twin.restore(Snapshot.from_bytes(snapshot.to_bytes()))
        assert env.state_hash() == twin.state_hash() == snapshot.hash
        while not (env.episode.terminated or env.episode.truncated):
            action = env.sample_action(rng)
            assert env.step(action) == twin.step(action)
            assert env.state_hash() == twin.state_hash()
        assert env.episode.end_reason in ENDED
        env.restore(snapshot)
        assert env.state_hash() == snapshot.hash


def test_a_snapshot_outlives_its_environment() -> None:
    env = SQLEnv()
    restock(env)
    env.step(env.oracle())
    snapshot = env.snapshot()
    play(env)
    env.close()
    for _ in range(2):
        other = SQLEnv()
        other.restore(snapshot)
        assert play(other) == 1.0


def test_forks_keep_foreign_keys_on() -> None:
    env = SQLEnv()
    tasks = env.tasks("train")
    for index in range(60):
        tables = tasks[index].data["tables"]
        link = next((t for t in tables if any(c.references for c in t.columns)), None)
        if link is not None and not any(c.cascade for c in link.columns):
            env.reset(seed=0, options={"index": index})
            twin = env.fork().fork()
            assert "FOREIGN KEY constraint failed" in query(twin, f"DELETE FROM {tables[0].name}")
            return
    raise AssertionError("no task with a plain foreign key among the first sixty")


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_through_the_stack_of_gymnasium(horizon: str) -> None:
    env: gymnasium.Env[str, str] = make("treegrpo/SQL-v0", horizon=horizon)
    env.reset(seed=3, options={"index": 2})
    core = env.unwrapped
    assert isinstance(core, SQLEnv)
    table = core.state.database.tables()[0]
    column = core.state.database.columns(table)[-1]
    twin = fork(env)
    env.step(core.encode_call("query", sql=f"UPDATE {table} SET {column} = 0"))
    twin_core = twin.unwrapped
    assert isinstance(twin_core, SQLEnv)
    assert twin_core.state.database.dump()[table] != core.state.database.dump()[table]
    check_env(core)


PROGRAM = """
import json, sys
from treegrpo.envs.snapshot import Snapshot
from treegrpo.envs.suite.sql.env import SQLEnv

found = []
env = SQLEnv(horizon=sys.argv[2])
if sys.argv[1] != "-":
    with open(sys.argv[1], "rb") as file:
        env.restore(Snapshot.from_bytes(file.read()))
else:
    env.reset(seed=0, options={"split": "test", "index": 5})
found.append(env.state_hash())
while not (env.episode.terminated or env.episode.truncated):
    text, reward, *_ = env.step(env.oracle())
    found.append([text, reward, env.state_hash()])
print(json.dumps(found))
"""


def run(snapshot: str, horizon: str, hash_seed: str) -> list[Any]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PROGRAM, snapshot, horizon]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_processes_agree_whatever_their_hash_seeds(tmp_path: Path) -> None:
    whole = run("-", "long", "1")
    assert whole == run("-", "long", "2")
    env = SQLEnv(horizon="long")
    env.reset(seed=0, options={"split": "test", "index": 5})
    for _ in range(4):
        env.step(env.oracle())
    path = tmp_path / "snapshot"
    path.write_bytes(env.snapshot().to_bytes())
    assert run(str(path), "long", "3")[1:] == whole[5:]
    assert whole[-1][1] == 1.0
