"""The replay of one recorded episode: the first thing that does not come out as recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from treegrpo.envs.recorder import Divergence, Event, StepEvent
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.leaderboards.schema import EpisodeRecord, TaskEntry
from treegrpo.leaderboards.usage import Usage

Outcome = Literal["match", "diverged", "environment-mismatch", "timeout"]

# Of an episode's line: what nobody can replay, and the digest of a file that was checked as read.
_NOT_REPLAYED = {
    "failure", "failure_detail", "tokens", "dollars", "requests", "wall_seconds", "trajectory",
    "search", "reruns",
}  # fmt: skip
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class EpisodeOutcome:
    """What the replay of one episode found; `divergence` is its first difference.

    "environment-mismatch" is a difference in an environment whose source, limits or task are
    not the recorded ones, so that nobody needs to have forged anything. "timeout" is a step or
    an episode that took longer than it was given.
    """

    index: int
    trial: int
    outcome: Outcome
    divergence: Divergence | None = None

    def __str__(self) -> str:
        """Return one line: the episode, the outcome, the step and both values."""
        line = f"task {self.index}, trial {self.trial}: {self.outcome}"
        found = self.divergence
        if found is None:
            return line
        place = f"step {found.step}" if found.step else "reset"
        return (
            f"{line} at {place}, field {found.field}: recorded "
            f"{found.expected[:_SHOWN_CHARS]}, replayed {found.got[:_SHOWN_CHARS]}"
        )


def replay_episode(
    setting: Setting,
    task: TaskEntry,
    episode: EpisodeRecord,
    events: Sequence[Event],
    *,
    changed: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> EpisodeOutcome:
    """Play one episode again with its recorded actions.

    Args:
        setting: of the evaluation.
        task: as the manifest lists it.
        episode: its line in episodes.jsonl.
        events: its action log.
        changed: whether the environment is known not to be the recorded one.
        advance: called with the number of each event before it is played.
    """
    play = Play(setting, episode.index, episode.trial)
    try:
        divergence, same_task = _compare(play, task, episode, events, advance)
    finally:
        play.close()
    outcome: Outcome = "match"
    if divergence is not None:
        outcome = "environment-mismatch" if changed or not same_task else "diverged"
    return EpisodeOutcome(episode.index, episode.trial, outcome, divergence)


def _compare(
    play: Play,
    task: TaskEntry,
    episode: EpisodeRecord,
    events: Sequence[Event],
    advance: Callable[[int], None],
) -> tuple[Divergence | None, bool]:
    """Return the first difference, and whether the task is the recorded one."""
    if not events and episode.failure is not None:
        # Nothing was played. What is left to compare is that it counts for nothing.
        play.fail(episode.failure, RuntimeError("declared"))
        return _record_difference(0, episode, play.record(Usage())), True
    advance(0)
    play.start()
    same_task = play.task == task
    if not same_task and play.log is not None and episode.failure is None:
        return Divergence(0, "task", task.model_dump_json(), play.task.model_dump_json()), False
    for number, event in enumerate(events):
        if isinstance(event, StepEvent) and play.live:
            advance(number)
            play.step(event.action)
        if len(play.events) <= number:
            got = f"{play.failure}: {play.detail}" if play.failure else "the episode had ended"
            return Divergence(number, "event", "an event", got), same_task
        found = _model_difference(number, event, play.events[number], last="chain")
        if found is not None:
            return found, same_task
    last = max(len(events) - 1, 0)
    if episode.failure is not None:
        play.fail(episode.failure, RuntimeError("declared"))
    elif play.live or play.failure is not None:
        got = f"{play.failure}: {play.detail}" if play.failure else "the episode goes on"
        return Divergence(last, "end", "the end of the episode", got), same_task
    return _record_difference(last, episode, play.record(Usage())), same_task


def _record_difference(
    step: int, recorded: EpisodeRecord, replayed: EpisodeRecord
) -> Divergence | None:
    return _model_difference(step, recorded, replayed, skip=_NOT_REPLAYED)


def _model_difference(
    step: int,
    recorded: BaseModel,
    replayed: BaseModel,
    *,
    skip: set[str] | None = None,
    last: str | None = None,
) -> Divergence | None:
    """Return the first field that differs; `last` (a hash of the others) is compared last."""
    before, after = recorded.model_dump(exclude=skip), replayed.model_dump(exclude=skip)
    for name in sorted(before, key=lambda name: name == last):
        if before[name] != after.get(name):
            return Divergence(step, name, str(before[name]), str(after.get(name)))
    return None
