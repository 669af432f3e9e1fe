"""The whole proof of every environment that ships: run by `make test-suite`.

Every check of `treegrpo check`, 10,000 steps of the random agent, 200 test tasks for oracle, null
and random agent, and no task in two splits. `make test` keeps short forms of the same.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from treegrpo.envs import Task, ToolEnv, list_envs, make
from treegrpo.envs.baselines import (
    EpisodeResult,
    Policy,
    null_action,
    oracle_action,
    random_action,
    run_episode,
)
from treegrpo.envs.checks import run_checks
from treegrpo.envs.checks.episodes import TASKS_PER_LEVEL
from treegrpo.envs.digest import digest
from treegrpo.envs.laws import LAWS, law_name
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suites import SuiteEntry, find_suite
from treegrpo.sandboxes import Level, open_backend

if os.environ.get("TREEGRPO_SUITE") != "1":
    pytest.skip("the whole proof of the suite takes minutes: make test-suite", True)

ENTRIES = {
    entry.name: entry
    for entry in (
        # Other test modules may have registered toys; they are tested there.
        *(SuiteEntry(id) for id in list_envs() if id.startswith("treegrpo/")),
        *find_suite("treegrpo/core-v1").entries,
    )
}
SANDBOXED = ("treegrpo/CodeExec-", "treegrpo/PythonMath-")
LEVEL = open_backend("process").probe().level


def _entry_param(entry: SuiteEntry) -> Any:
    barred = entry.env.startswith(SANDBOXED) and LEVEL < Level.L2
    why = f"sandboxes have only level {LEVEL.name} here"
    return pytest.param(entry, id=entry.name, marks=[pytest.mark.skip(why)] if barred else [])


every_entry = pytest.mark.parametrize("entry", [_entry_param(e) for e in ENTRIES.values()])

TASKS = 200
RANDOM_STEPS = 10_000
PARTS = 4
"""The random agent's steps are this many tests, so that two workers share the slow ones."""

CEILING = {"treegrpo/FrozenLake-v0": 199}
"""Of 200 tasks; elsewhere the oracle solves all. On ice no play is sure of the goal in time."""

RANDOM_SHARE, RANDOM_LEVEL_SHARE = 0.05, 0.1
"""The most that random calls may solve: of all tasks, and of one level's."""

SPLIT_TASKS = 500
SHARED_TASKS = {"treegrpo/SearchQA-v0": 1}
"""Equal questions and answers about other worlds, which version 0 is known to have by chance."""

CHECK_SECONDS = 300.0
"""Enough for every part of the check on a busy machine: what the time cuts short is a failure."""


def _core(entry: SuiteEntry) -> ToolEnv:
    return core_of(make(entry.env, **entry.options))


@every_entry
def test_every_check_holds_and_none_is_cut_short(entry: SuiteEntry) -> None:
    results = list(run_checks(lambda: make(entry.env, **entry.options), seconds=CHECK_SECONDS))
    outcomes = {result.name: result.outcome for result in results}
    told = "\n".join(f"{r.name}: {r.outcome}: {r.found} {r.shown_by or ''}" for r in results)
    costs = {"snapshot cost", "restore cost", "snapshot size"}
    laws = {law_name(law) for law in LAWS}
    wanted = {"random agent", "Gymnasium's checker", "determinism", "grader purity", "oracle"}
    assert set(outcomes) == laws | wanted | costs | {"null agent", "leaks"}, told
    assert {outcomes.pop(name) for name in costs} == {"measured"}, told
    assert set(outcomes.values()) == {"holds"}, told

    found = {result.name: result.found for result in results}
    # A law that could not be tried as a whole says so in place of the number of its checks.
    assert [law for law in sorted(laws) if not re.fullmatch(r"[1-9]\d* checks", found[law])] == []
    assert re.fullmatch(r"200 episodes, no exception; \d+ solved", found["random agent"])
    core = _core(entry)
    tasks = TASKS_PER_LEVEL * len(core.splits) * len(core.difficulties)
    assert found["oracle"].startswith(f"{tasks} tasks, all solved"), found["oracle"]
    assert found["null agent"] == f"0 of {tasks} tasks solved"


@pytest.mark.parametrize("part", range(PARTS))
@every_entry
def test_ten_thousand_random_steps_raise_nothing(entry: SuiteEntry, part: int) -> None:
    env, rng = _core(entry), np.random.default_rng([part, 7])
    steps, levels = 0, Counter[int]()
    for episode in itertools.count():
        if steps >= RANDOM_STEPS // PARTS:
            break
        options = {"split": env.splits[episode % len(env.splits)]}
        env.reset(seed=100_000 * part + episode, options=options)
        levels[env.task.difficulty] += 1
        while not env.episode.ended:
            text, reward, _, _, info = env.step(random_action(env, rng))
            steps += 1
            assert text in env.observation_space and math.isfinite(reward)
            assert info["turn"] <= env.max_turns and info["tool_calls"] <= env.max_tool_calls
    env.close()
    assert set(levels) == set(env.difficulties)


@every_entry
def test_the_oracle_solves_200_tasks_that_null_and_random_do_not(entry: SuiteEntry) -> None:
    env, rng = _core(entry), np.random.default_rng(3)

    def play(policy: Policy) -> list[EpisodeResult]:
        # Levels take turns by index: every level has its share of any run of tasks.
        options = ({"split": "test", "index": index} for index in range(TASKS))
        return [run_episode(env, policy, seed=n, options=o) for n, o in enumerate(options)]

    best, worst = play(oracle_action), play(null_action)
    lucky = play(lambda core: random_action(core, rng))
    levels = Counter(result.difficulty for result in best)
    assert set(levels) == set(env.difficulties) and min(levels.values()) >= TASKS // len(levels)
    failed = [result for result in best if not result.success]
    assert TASKS - len(failed) >= CEILING.get(entry.env, TASKS), failed[:3]
    assert max(r.episode_return for r in worst) < env.success_threshold
    assert not any(r.success for r in worst)
    won = Counter(result.difficulty for result in lucky if result.success)
    assert won.total() <= RANDOM_SHARE * TASKS, won
    assert all(won[level] <= RANDOM_LEVEL_SHARE * count for level, count in levels.items()), won


def content(task: Task) -> str:
    """Return a digest of what a task asks and wants, without where it comes from."""
    data = {name: value for name, value in task.data.items() if name not in ("split", "world")}
    return digest([task.question, task.answer, data])


@every_entry
def test_no_task_is_in_two_splits(entry: SuiteEntry) -> None:
    env = _core(entry)
    contents = {
        split: {content(task) for task in env.tasks(split)[:SPLIT_TASKS]} for split in env.splits
    }
    assert "test" in contents and len(contents) >= 2
    # Within a split the simplest levels may repeat themselves.
    assert min(map(len, contents.values())) >= 0.9 * SPLIT_TASKS
    shared = sum(len(contents[a] & contents[b]) for a, b in itertools.combinations(contents, 2))
    assert shared == SHARED_TASKS.get(entry.env, 0)
