"""Run an agent over the tasks of an environment and write a bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pydantic
import scipy
from pydantic import ValidationError

import treegrpo
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents import Agent, EpisodeView
from treegrpo.leaderboards.bundle import (
    check_place,
    first_fault,
    read_bundle,
    sealed_manifest,
    staging,
    write_bundle,
)
from treegrpo.leaderboards.environment import open_env, source_digest
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.leaderboards.schema import FORMAT_VERSION, EpisodeRecord, TaskEntry, Trajectory
from treegrpo.leaderboards.summary import EvaluationSummary, summarise

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


def evaluate(
    agent: Agent,
    env_id: str,
    *,
    split: str,
    num_tasks: int,
    trials: int,
    seed: int,
    out: str | Path,
    env_kwargs: Mapping[str, Any] | None = None,
    concurrency: int = 64,
    first_index: int = 0,
    progress: Progress | None = None,
) -> EvaluationSummary:
    """Return the scores of `agent`, and leave a bundle that others can verify at `out`.

    An agent or an environment that crashes costs its own episode only: that episode has a
    failure, is counted, and scores 0.

    Args:
        agent: acts in up to `concurrency` live episodes at once.
        env_id: id of a registered environment.
        split: split of the environment.
        num_tasks: tasks `first_index` to `first_index + num_tasks - 1` of the split.
        trials: episodes per task, each with a seed of its own.
        seed: decides every reset seed, together with environment, split, task and trial.
        out: folder of the bundle; must not exist. It appears whole at the end, or never.
        env_kwargs: options of the environment, as JSON values.
        concurrency: at most so many episodes are live at once.
        first_index: index of the first task.
        progress: called after every episode.

    Raises:
        TreegrpoError: an unknown environment, option or split, too few tasks, a value out of
            range; an `out` that exists or cannot be written.
    """
    setting = Setting(env_id, dict(env_kwargs or {}), split, seed)
    _check_counts(num_tasks=num_tasks, trials=trials, concurrency=concurrency)
    check_place(Path(out))
    env_digest = probe(setting, (first_index, first_index + num_tasks - 1))
    head = _head(agent, setting, num_tasks, trials, first_index) | {"env_digest": env_digest}
    indices = range(first_index, first_index + num_tasks)
    _check_head(head, indices)
    plays = [Play(setting, index, trial) for index in indices for trial in range(trials)]
    results = _Results(progress, len(plays))
    _run(agent, plays, concurrency, results)
    episodes, trajectories, tasks = results.in_order(plays)
    with staging(Path(out)) as folder:
        write_bundle(folder, head | {"tasks": tasks}, episodes, trajectories)
        # What was written is read back before it appears: nobody gets a bundle that is refused.
        summary = summarise(read_bundle(folder))
    return summary


def probe(setting: Setting, indices: Sequence[int]) -> str | None:
    """Return the environment's source digest, after trying whether these tasks exist.

    Raises:
        TreegrpoError: what is wrong with the request as a whole. Crashes are no such thing:
            they belong to their episodes.
    """
    env = open_env(setting.env_id, setting.env_kwargs)
    try:
        for index in indices:
            env.reset(seed=0, options={"split": setting.split, "index": index})
    except TreegrpoError:
        raise
    except Exception:  # noqa: BLE001 - the boundary is play.py: the episode will say it
        pass
    finally:
        env.close()
    return source_digest(core_of(env))


class _Results:
    """What is kept of the episodes that have ended."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._found: dict[str, tuple[EpisodeRecord, Trajectory]] = {}
        self._tasks: dict[int, TaskEntry] = {}

    def check_task(self, play: Play) -> None:
        """Fail an episode whose task is not the one that an earlier trial had."""
        known = self._tasks.get(play.index)
        if known is None or known.digest is None:
            self._tasks[play.index] = play.task
        elif play.task != known and play.failure is None:
            play.fail("environment", ValueError("the task differs between trials"))

    def add(self, play: Play, sampled_tokens: int | None) -> None:
        self._found[play.key] = play.record(sampled_tokens), play.trajectory()
        play.close()
        if self._progress is not None:
            self._progress(len(self._found), self._total)

    def in_order(
        self, plays: Sequence[Play]
    ) -> tuple[list[EpisodeRecord], list[Trajectory], list[TaskEntry]]:
        found = [self._found[play.key] for play in plays]
        indices = dict.fromkeys(play.index for play in plays)
        return [f[0] for f in found], [f[1] for f in found], [self._tasks[i] for i in indices]


def _run(agent: Agent, plays: Sequence[Play], concurrency: int, results: _Results) -> None:
    """Play every episode; whenever one ends, the next takes its place."""
    waiting = iter(plays)
    live: list[Play] = []
    try:
        while _fill(live, waiting, concurrency, results):
            views = [_view(play) for play in live]
            for play, action in zip(live, _act(agent, views), strict=True):
                if isinstance(action, Exception):
                    play.fail("policy", action)
                else:
                    play.step(action)
            for play in live:
                if not play.live:
                    results.add(play, _finish(agent, play))
            live = [play for play in live if play.live]
    finally:
        for play in live:
            play.close()


def _fill(live: list[Play], waiting: Iterator[Play], concurrency: int, results: _Results) -> bool:
    """Start episodes until enough are live; return whether any is."""
    while len(live) < concurrency and (play := next(waiting, None)) is not None:
        play.start()
        results.check_task(play)
        if play.live:
            live.append(play)
        else:
            results.add(play, None)
    return bool(live)


def _view(play: Play) -> EpisodeView:
    assert play.env is not None
    seed = stable_seed("agent", play.reset_seed)
    return EpisodeView(play.key, seed, core_of(play.env), play.delta)


def _act(agent: Agent, views: Sequence[EpisodeView]) -> list[object]:
    """Return an action, or the error that took its place, for every view."""
    try:
        return _checked(agent.act(views), len(views))
    except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
        if len(views) == 1:
            return [error]
    # One episode made the batch fail, and nobody knows which: ask for each alone.
    return [action for view in views for action in _act(agent, [view])]


def _checked(actions: Sequence[object], count: int) -> list[object]:
    if len(actions) != count:
        raise ValueError(f"the agent gave {len(actions)} actions for {count} episodes")
    return list(actions)


def _finish(agent: Agent, play: Play) -> int | None:
    """Return the agent's count of sampled tokens; an agent that fails here fails the episode."""
    try:
        tokens = agent.finish(play.key)
        if tokens is not None and tokens < 0:
            raise ValueError(f"the agent counted {tokens} tokens")
        return None if tokens is None else int(tokens)
    except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
        play.fail("policy", error)
        return None


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise TreegrpoError(f"{name}={value} asked for; give a whole number of at least 1.")


def _head(
    agent: Agent, setting: Setting, num_tasks: int, trials: int, first_index: int
) -> dict[str, Any]:
    """Return the manifest's fields that are known before the first episode."""
    return {
        "format": "treegrpo-bundle",
        "format_version": FORMAT_VERSION,
        **dataclasses.asdict(setting),
        "first_index": first_index,
        "num_tasks": num_tasks,
        "trials": trials,
        "agent": {
            "name": agent.name, "digest": agent.digest, "settings": dict(agent.settings)
        },
        "versions": {
            "treegrpo": treegrpo.__version__,
            "python": platform.python_version(),
            "gymnasium": gymnasium.__version__,
            "numpy": np.__version__,
            "pydantic": pydantic.VERSION,
            "scipy": str(scipy.__version__),
        },
        "command": _command(agent.name, setting, num_tasks, trials, first_index),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {
            "cores": os.cpu_count() or 0,
            "system": f"{platform.system()} {platform.machine()}",
        },
    }  # fmt: skip


def _command(agent: str, setting: Setting, num_tasks: int, trials: int, first_index: int) -> str:
    words = ["treegrpo", "eval", "--agent", agent, "--env", setting.env_id]
    words += ["--split", setting.split, "--tasks", str(num_tasks), "--trials", str(trials)]
    words += ["--seed", str(setting.seed), "--first-index", str(first_index)]
    for name, value in setting.env_kwargs.items():
        words += ["--env-arg", f"{name}={json.dumps(value, default=repr)}"]
    return shlex.join([*words, "--out", "DIR"])


def _check_head(head: dict[str, Any], indices: range) -> None:
    """Refuse what could not be written before any work is done."""
    tasks = [TaskEntry(index=0, id=None, difficulty=None, digest=None)]
    try:
        sealed_manifest(head | {"tasks": tasks, "files": {}})
    except ValidationError as error:
        raise TreegrpoError(
            f"An evaluation of tasks {indices.start} to {indices.stop - 1} asked for, but its "
            f"bundle could not be written: {first_fault(error)}. Change that value."
        ) from error
