"""The demonstrator of the long tasks: right without mistakes, doomed by each of them."""

import numpy as np
import pytest

from treegrpo.envs import make
from treegrpo.envs.suite.sql import SQLEnv
from treegrpo.envs.suite.sql.demonstrator import Demonstrator, Mistakes

NONE = Mistakes(mix_up=0, reverse=0, stop_early=0)


def play(index: int, mistakes: Mistakes, seed: int = 0) -> tuple[bool, list[str], SQLEnv]:
    """Return success, the actions, and the environment of one episode of level 1."""
    env = make("treegrpo/SQL-v0", horizon="long")
    core = env.unwrapped
    assert isinstance(core, SQLEnv)
    _, info = env.reset(seed=0, options={"split": "test", "index": 3 * index})
    player = Demonstrator(mistakes, np.random.default_rng(seed))
    player.begin(core)
    actions: list[str] = []
    ended = False
    while not ended:
        actions.append(player.act(core))
        _, _, terminated, truncated, info = env.step(actions[-1])
        ended = terminated or truncated
    return bool(info["success"]), actions, core


def kinds(env: SQLEnv) -> list[str]:
    """Return the kinds of the jobs on the chain, in order."""
    rows = {row[0]: row for row in env.task.data["tables"][1].rows}
    job = int(env.task.data["plan"][0].arguments["sql"].split()[-1])
    found: list[str] = []
    while job:
        found.append(str(rows[job][1]))
        job = int(str(rows[job][4]))
    return found


@pytest.mark.parametrize("index", range(12))
def test_without_mistakes_it_does_what_the_oracle_does(index: int) -> None:
    success, actions, env = play(index, NONE)
    plan = [env.encode_call(step.tool, **step.arguments) for step in env.task.data["plan"]]
    assert success and actions == plan


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize(
    ("mistakes", "doomed"),
    [
        (Mistakes(mix_up=1, reverse=0, stop_early=0), {"take", "drop"}),
        (Mistakes(mix_up=0, reverse=1, stop_early=0), {"copy"}),
    ],
)
def test_a_mistake_dooms_the_episodes_with_such_a_job(
    index: int, mistakes: Mistakes, doomed: set[str]
) -> None:
    success, actions, env = play(index, mistakes)
    asked = kinds(env)
    if not doomed & set(asked):
        assert success
    elif asked[-1] in doomed:  # nothing that comes later can cover it
        assert not success
    assert actions[-1] == env.encode_call("submit", sql="done")


def test_an_early_stop_leaves_jobs_undone() -> None:
    success, actions, env = play(0, Mistakes(mix_up=0, reverse=0, stop_early=1))
    assert len(kinds(env)) > 1
    assert not success
    assert sum("FROM job" in action for action in actions) == 1


def test_a_copy_writes_the_number_that_was_shown() -> None:
    mistakes = Mistakes(mix_up=0.5, reverse=0.5, stop_early=0)
    copies = 0
    for index in range(12):
        _, _, env = play(index, mistakes)
        said = [message["content"] for message in env.messages]
        for position, text in enumerate(said):
            if "SELECT count" in text and "UPDATE" in said[position + 2]:
                copies += 1
                assert f"count = {said[position + 1].split()[-1]} " in said[position + 2]
    assert copies >= 12


def test_the_stream_alone_decides_the_mistakes() -> None:
    mistakes = Mistakes()
    runs = [[play(index, mistakes, seed)[1] for index in range(6)] for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
