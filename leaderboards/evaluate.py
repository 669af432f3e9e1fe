"""Run an agent over the tasks of an environment and write a bundle.

    evaluate(agent, "treegrpo/SQL-v1", split="test", num_tasks=100, trials=2, seed=0, out="DIR")

An agent or an environment that crashes costs its own episode only: that episode has a failure,
is counted, and scores 0. After a kill the same call goes on: finished episodes are kept beside
`out`, which appears whole at the end, or never.

    agent          acts in up to `concurrency` live episodes at once
    env_id         id of a registered environment; env_kwargs are its options, as JSON values
    split          split of the environment
    num_tasks      tasks `first_index` to `first_index + num_tasks - 1` of the split
    trials         episodes per task, each with a seed of its own
    seed           decides every reset seed, together with environment, split, task and trial
    out            folder of the bundle; must not exist
    retry_failed   how often an episode that failed by its provider is played again before the
                   bundle is sealed; what the failed attempts cost is counted in
    terms          under which terms the result counts (track, training, suite, registration)
    progress       called after every episode, and once with those that were kept
    watch          called with every episode that ended, those that were kept included
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents.base import Agent, EpisodeView, act_some
from treegrpo.leaderboards.bundle import read_bundle, write_bundle
from treegrpo.leaderboards.environment import probe
from treegrpo.leaderboards.head import Terms, manifest_head
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.leaderboards.schema import EpisodeRecord, TaskEntry
from treegrpo.leaderboards.staging import Staging, check_place, staging
from treegrpo.leaderboards.summary import EvaluationSummary, summarise
from treegrpo.leaderboards.usage import NOTHING, Usage, usage_of

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""
Watch = Callable[[EpisodeRecord], None]
"""Called with every episode that ended, those that an earlier call left included."""


_NOT_READY = object()


class Extent(TypedDict):
    """How much of every environment is played, and how; see the module's text."""

    num_tasks: int
    trials: int
    seed: int
    concurrency: NotRequired[int]
    first_index: NotRequired[int]
    retry_failed: NotRequired[int]


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
    retry_failed: int = 0,
    terms: Terms | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> EvaluationSummary:
    """Return the scores of `agent`, and leave a bundle that others can verify at `out`.

    Raises:
        TreegrpoError: an unknown environment, option or split, too few tasks, a value out of
            range; an `out` that exists, cannot be written, or beside which another evaluation
            lies half finished; an agent that cannot act at all.
    """
    check_counts(num_tasks=num_tasks, trials=trials, concurrency=concurrency)
    check_place(Path(out))
    indices = range(first_index, first_index + num_tasks)
    setting, head = asked(
        agent, env_id, env_kwargs or {}, split, indices, trials, seed, terms or Terms()
    )
    with staging(Path(out), head) as stage:
        results = _Results(stage, num_tasks * trials, progress, watch)
        job = _Job(agent, setting, concurrency, results)
        job.run_all([(index, trial) for index in indices for trial in range(trials)], retry_failed)
        write_bundle(stage.bundle, stage.head | {"tasks": results.tasks(indices)}, results.episodes)
        # What was written is read back before it appears: nobody gets a bundle that is refused.
        return summarise(read_bundle(stage.bundle))


def asked(
    agent: Agent,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    split: str,
    indices: range,
    trials: int,
    seed: int,
    terms: Terms,
) -> tuple[Setting, dict[str, Any]]:
    """Return what all episodes of an evaluation share, and the beginning of its manifest.

    Raises:
        TreegrpoError: as for `evaluate`, before any work is done.
    """
    facts = probe(env_id, env_kwargs, split, (indices[0], indices[-1]))
    setting = Setting(env_id, dict(env_kwargs), split, seed, facts.env_digest)
    return setting, manifest_head(agent, setting, facts, indices, trials, terms)


class _Results:
    """What is kept of the episodes that have ended, earlier calls included."""

    def __init__(
        self, stage: Staging, total: int, progress: Progress | None, watch: Watch | None
    ) -> None:
        self.stage = stage
        self._total, self._progress, self._watch = total, progress, watch
        self._tasks: dict[int, TaskEntry] = {}
        for record, task in stage.finished.values():
            known = self._tasks.get(record.index)
            if known is None or known.digest is None:
                self._tasks[record.index] = task
            if watch is not None:
                watch(record)
        if stage.finished:
            self._tell()

    @property
    def episodes(self) -> list[EpisodeRecord]:
        """All that have ended, by task, then trial."""
        return [self.stage.finished[pair][0] for pair in sorted(self.stage.finished)]

    def check_task(self, play: Play) -> None:
        """Fail an episode whose task is not the one that an earlier trial had."""
        known = self._tasks.get(play.index)
        if known is None or known.digest is None:
            self._tasks[play.index] = play.task
        elif play.task != known and play.failure is None:
            play.fail("environment", ValueError("the task differs between trials"))

    def add(self, play: Play, usage: Usage) -> None:
        trajectory = self.stage.write_log(play.events)
        record = play.record(usage, trajectory)
        self.stage.keep(record, self._tasks[play.index])
        play.close()
        if self._watch is not None:
            self._watch(record)
        self._tell()

    def tasks(self, indices: Sequence[int]) -> list[TaskEntry]:
        return [self._tasks[index] for index in indices]

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(len(self.stage.finished), self._total)


@dataclass
class _Job:
    """Plays episodes; whenever one ends, the next takes its place."""

    agent: Agent
    setting: Setting
    concurrency: int
    results: _Results
    live: list[Play] = field(default_factory=list[Play])

    def run_all(self, pairs: Sequence[tuple[int, int]], retry_failed: int) -> None:
        """Play what is not finished; then, in rounds, what failed by its provider."""
        stage = self.results.stage
        self.run([Play(self.setting, *pair) for pair in pairs if pair not in stage.finished])
        for _ in range(retry_failed):
            failed = [
                record for record, _ in stage.finished.values() if _again(record, retry_failed)
            ]
            self.run([Play.again(self.setting, record) for record in failed])

    def run(self, plays: Sequence[Play]) -> None:
        waiting = iter(plays)
        try:
            while self._fill(waiting):
                views = [_view(play) for play in self.live]
                given = act_some(self.agent, views)
                for play in self.live:
                    action = given.get(play.key, _NOT_READY)
                    if isinstance(action, Exception):
                        play.fail_policy(action)
                    elif action is not _NOT_READY:
                        play.step(action)
                for play in self.live:
                    if not play.live:
                        self.results.add(play, self._finish(play))
                self.live = [play for play in self.live if play.live]
        finally:
            for play in self.live:
                play.close()

    def _fill(self, waiting: Iterator[Play]) -> bool:
        """Start episodes until enough are live; return whether any is."""
        while len(self.live) < self.concurrency and (play := next(waiting, None)) is not None:
            play.start()
            self.results.check_task(play)
            if play.live:
                self.live.append(play)
            else:
                # The agent was never asked: nothing beside what earlier attempts cost.
                self.results.add(play, NOTHING)
        return bool(self.live)

    def _finish(self, play: Play) -> Usage:
        """Return what the agent counted; an agent that fails here fails the episode."""
        try:
            return usage_of(self.agent.finish(play.key))
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            play.fail_policy(error)
            return Usage()


def _again(record: EpisodeRecord, limit: int) -> bool:
    return record.failure == "provider" and (record.reruns or 0) < limit


def _view(play: Play) -> EpisodeView:
    assert play.env is not None
    seed = stable_seed("agent", play.reset_seed)
    return EpisodeView(play.key, seed, core_of(play.env), play.delta)


def check_counts(**counts: int) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        TreegrpoError: names it.
    """
    for name, value in counts.items():
        if value < 1:
            raise TreegrpoError(f"{name}={value} asked for; give a whole number of at least 1.")
