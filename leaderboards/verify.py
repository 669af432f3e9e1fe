"""Verification: every recorded action is played again, and everything must come out as recorded.

    chain      the hashes of every action log: a changed byte is found
    replay     fresh environments, the recorded actions; observation, reward, flags and state
               hash are compared after every step
    record     the replayed episode's reward, components, success, turns and tool calls are
               compared with its line in episodes.jsonl; failed episodes must score 0

What replay cannot prove: who chose the actions. Failures are declared too: an environment
that failed then need not fail now, and a failed episode scores 0 whoever says so (so where
rewards can be negative, a claimed failure can hide one). The environment's options come from
the bundle: one that names a file has that file read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from treegrpo.envs.errors import LogError
from treegrpo.envs.recorder import Divergence, Event, StepEvent, verify_chain
from treegrpo.leaderboards.bundle import TRAJECTORIES, Bundle, read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import probe
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.leaderboards.schema import EpisodeRecord, TaskEntry, Trajectory

Outcome = Literal["match", "diverged", "environment-mismatch"]
Word = Literal["replayed", "recomputed", "declared"]

WORDS: Mapping[str, Word] = {
    "success": "replayed",
    "reward": "replayed",
    "turns": "replayed",
    "tool_calls": "replayed",
    "interval": "recomputed",
    "failures": "declared",
    "sampled_tokens": "declared",
    "wall_seconds": "declared",
}
"""How far each headline number of a verified bundle can be trusted."""

_DECLARED = {"failure", "failure_detail", "sampled_tokens", "wall_seconds"}
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class EpisodeOutcome:
    """What the replay of one episode found; `divergence` is its first difference.

    "environment-mismatch" is a difference in an environment whose source or whose task is
    not the recorded one, so that nobody needs to have forged anything.
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


@dataclass(frozen=True)
class VerifyReport:
    """What verification found, episode by episode.

    `environment_changed` says that the environment's source is not the recorded one; episodes
    that replay all the same stay valid.
    """

    digest: str
    outcomes: tuple[EpisodeOutcome, ...]
    environment_changed: bool

    @property
    def verified(self) -> bool:
        """Whether every episode came out as recorded."""
        return all(outcome.outcome == "match" for outcome in self.outcomes)

    @property
    def first_difference(self) -> str | None:
        """The first difference with both values; None when there is none."""
        return next((str(o) for o in self.outcomes if o.outcome != "match"), None)

    @property
    def words(self) -> dict[str, Word]:
        """For each headline number: replayed, recomputed or declared.

        A replay that differs anywhere proves nothing, so then all is declared.
        """
        return {name: word if self.verified else "declared" for name, word in WORDS.items()}

    def lines(self) -> list[str]:
        """Return the report as text, one finding a line."""
        counts = Counter(outcome.outcome for outcome in self.outcomes)
        lines = [f"{count} of {len(self.outcomes)} episodes: {o}" for o, count in counts.items()]
        if self.environment_changed:
            lines.append("The environment's source has changed since; replay decides.")
        if self.first_difference is not None:
            lines.append(f"First difference: {self.first_difference}")
        return lines + [f"{name.replace('_', ' ')}: {word}" for name, word in self.words.items()]


def verify(
    path: str | Path,
    *,
    trust_module: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Return what a full replay of the bundle at `path` found.

    Args:
        path: folder of the bundle.
        trust_module: import the module that the environment's id names ("module:id"). Importing
            runs code: only for bundles of people one trusts.
        progress: called with (episodes replayed, episodes in all).

    Raises:
        BundleError: the bundle is damaged, incomplete or altered; names file, line and field.
        UnknownEnv: its environment is not installed here.
    """
    return verify_bundle(read_bundle(Path(path)), trust_module=trust_module, progress=progress)


def verify_bundle(
    bundle: Bundle,
    *,
    trust_module: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Return what a full replay of a bundle found; see `verify`."""
    manifest = bundle.manifest
    if ":" in manifest.env_id and not trust_module:
        raise BundleError(
            f"Verifying '{bundle.path}' asked for, but its environment '{manifest.env_id}' would "
            "import a module, which runs code. If you trust that module, say --trust-module."
        )
    for line, trajectory in enumerate(bundle.trajectories, start=1):
        _check_chain(trajectory, line)
    setting = Setting(manifest.env_id, manifest.env_kwargs, manifest.split, manifest.seed)
    changed = probe(setting, []) != manifest.env_digest
    tasks = {task.index: task for task in manifest.tasks}
    outcomes: list[EpisodeOutcome] = []
    for episode, trajectory in zip(bundle.episodes, bundle.trajectories, strict=True):
        outcomes.append(_replay(setting, tasks[episode.index], episode, trajectory, changed))
        if progress is not None:
            progress(len(outcomes), len(bundle.episodes))
    return VerifyReport(bundle.digest, tuple(outcomes), changed)


def _check_chain(trajectory: Trajectory, line: int) -> None:
    try:
        if trajectory.events:
            verify_chain(trajectory.events)
    except LogError as error:
        raise BundleError(
            f"{TRAJECTORIES}, line {line}, {error} "
            "The log was altered: get the bundle again, or evaluate again."
        ) from error


def _replay(
    setting: Setting,
    task: TaskEntry,
    episode: EpisodeRecord,
    trajectory: Trajectory,
    changed: bool,
) -> EpisodeOutcome:
    """Play one episode again with its recorded actions."""
    play = Play(setting, episode.index, episode.trial)
    try:
        divergence, same_task = _compare(play, task, episode, trajectory.events)
    finally:
        play.close()
    outcome: Outcome = "match"
    if divergence is not None:
        outcome = "environment-mismatch" if changed or not same_task else "diverged"
    return EpisodeOutcome(episode.index, episode.trial, outcome, divergence)


def _compare(
    play: Play, task: TaskEntry, episode: EpisodeRecord, events: Sequence[Event]
) -> tuple[Divergence | None, bool]:
    """Return the first difference, and whether the task is the recorded one."""
    if not events and episode.failure is not None:
        # Nothing was played. What is left to compare is that it counts for nothing.
        play.fail(episode.failure, RuntimeError("declared"))
        return _record_difference(0, episode, play.record(None)), True
    play.start()
    same_task = play.task == task
    if not same_task and play.log is not None and episode.failure is None:
        return Divergence(0, "task", task.model_dump_json(), play.task.model_dump_json()), False
    for number, event in enumerate(events):
        if isinstance(event, StepEvent) and play.live:
            play.step(event.action)
        played = play.log.events if play.log is not None else []
        if len(played) <= number:
            got = f"{play.failure}: {play.detail}" if play.failure else "the episode had ended"
            return Divergence(number, "event", "an event", got), same_task
        found = _model_difference(number, event, played[number], last="chain")
        if found is not None:
            return found, same_task
    last = max(len(events) - 1, 0)
    if episode.failure is not None:
        play.fail(episode.failure, RuntimeError("declared"))
    elif play.live or play.failure is not None:
        got = f"{play.failure}: {play.detail}" if play.failure else "the episode goes on"
        return Divergence(last, "end", "the end of the episode", got), same_task
    return _record_difference(last, episode, play.record(None)), same_task


def _record_difference(
    step: int, recorded: EpisodeRecord, replayed: EpisodeRecord
) -> Divergence | None:
    return _model_difference(step, recorded, replayed, skip=_DECLARED)


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
