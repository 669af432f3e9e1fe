"""Run an agent over the tasks of an environment and write a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents import Agent, EpisodeView
from treegrpo.leaderboards.bundle import read_bundle, write_bundle
from treegrpo.leaderboards.environment import probe
from treegrpo.leaderboards.head import Terms, manifest_head
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.leaderboards.schema import TaskEntry
from treegrpo.leaderboards.staging import Staging, check_place, staging
from treegrpo.leaderboards.summary import EvaluationSummary, summarise
from treegrpo.leaderboards.usage import Usage, usage_of

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
    terms: Terms | None = None,
    progress: Progress | None = None,
) -> EvaluationSummary:
    """Return the scores of `agent`, and leave a bundle that others can verify at `out`.

    An agent or an environment that crashes costs its own episode only: that episode has a
    failure, is counted, and scores 0. After a kill the same call goes on: finished episodes
    are kept beside `out`.

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
        terms: under which terms the result counts (track, training, suite, registration).
        progress: called after every episode, and once with those that were kept.

    Raises:
        TreegrpoError: an unknown environment, option or split, too few tasks, a value out of
            range; an `out` that exists, cannot be written, or beside which another evaluation
            lies half finished.
    """
    _check_counts(num_tasks=num_tasks, trials=trials, concurrency=concurrency)
    check_place(Path(out))
    indices = range(first_index, first_index + num_tasks)
    kwargs = dict(env_kwargs or {})
    facts = probe(env_id, kwargs, split, (indices[0], indices[-1]))
    setting = Setting(env_id, kwargs, split, seed, facts.env_digest)
    head = manifest_head(agent, setting, facts, indices, trials, terms or Terms())
    with staging(Path(out), head) as stage:
        plays = [Play(setting, index, trial) for index in indices for trial in range(trials)]
        results = _Results(stage, progress, len(plays))
        waiting = [p for p in plays if (p.index, p.trial) not in stage.finished]
        _run(agent, waiting, concurrency, results)
        episodes = [stage.finished[play.index, play.trial][0] for play in plays]
        write_bundle(stage.bundle, stage.head | {"tasks": results.tasks(indices)}, episodes)
        # What was written is read back before it appears: nobody gets a bundle that is refused.
        summary = summarise(read_bundle(stage.bundle))
    return summary


class _Results:
    """What is kept of the episodes that have ended, earlier calls included."""

    def __init__(self, stage: Staging, progress: Progress | None, total: int) -> None:
        self._stage, self._progress, self._total = stage, progress, total
        self._tasks: dict[int, TaskEntry] = {}
        for record, task in stage.finished.values():
            known = self._tasks.get(record.index)
            if known is None or known.digest is None:
                self._tasks[record.index] = task
        if stage.finished:
            self._tell()

    def check_task(self, play: Play) -> None:
        """Fail an episode whose task is not the one that an earlier trial had."""
        known = self._tasks.get(play.index)
        if known is None or known.digest is None:
            self._tasks[play.index] = play.task
        elif play.task != known and play.failure is None:
            play.fail("environment", ValueError("the task differs between trials"))

    def add(self, play: Play, usage: Usage) -> None:
        trajectory = self._stage.write_log(play.events)
        self._stage.keep(play.record(usage, trajectory), self._tasks[play.index])
        play.close()
        self._tell()

    def tasks(self, indices: Sequence[int]) -> list[TaskEntry]:
        return [self._tasks[index] for index in indices]

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(len(self._stage.finished), self._total)


def _run(agent: Agent, plays: Sequence[Play], concurrency: int, results: _Results) -> None:
    """Play every episode; whenever one ends, the next takes its place."""
    waiting = iter(plays)
    live: list[Play] = []
    try:
        while _fill(live, waiting, concurrency, results):
            views = [_view(play) for play in live]
            for play, action in zip(live, _act(agent, views), strict=True):
                if isinstance(action, Exception):
                    play.fail_policy(action)
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
            results.add(play, Usage())
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


def _finish(agent: Agent, play: Play) -> Usage:
    """Return what the agent counted; an agent that fails here fails the episode."""
    try:
        return usage_of(agent.finish(play.key))
    except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
        play.fail_policy(error)
        return Usage()


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise TreegrpoError(f"{name}={value} asked for; give a whole number of at least 1.")
