"""Replay in a process of its own, which is ended when a step or an episode takes too long.

An environment is somebody's code, and what it does with a hostile action may never return. A
time limit inside the process cannot stop that; another process can.

The replaying process reads one episode a line from standard input and writes what it is doing
a line at a time: {"step": n} before each event, then the outcome.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from treegrpo.envs import registry
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.recorder import Divergence
from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.environment import open_env
from treegrpo.leaderboards.play import Setting
from treegrpo.leaderboards.replay import EpisodeOutcome, replay_episode
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest, TaskEntry
from treegrpo.leaderboards.trajectories import read_trajectory

_CODE = "from treegrpo.leaderboards.guarded import main; main()"
START_S = 120
"""What a replaying process has to import what it needs, before its first step counts."""


@dataclass(frozen=True)
class Limits:
    """How long a step (the reset is one) and a whole episode may take, in seconds."""

    step_s: float
    episode_s: float

    def __post_init__(self) -> None:
        """Refuse limits that stop everything or nothing."""
        for name, value in asdict(self).items():
            if not 0 < value < float("inf"):
                raise TreegrpoError(
                    f"Limits({name}={value}) asked for; give a finite number of seconds above 0."
                )


class _Overrun(Exception):
    """The limit that was broken, in words."""


class _Ended(Exception):
    """The process ended by itself."""


def replay_guarded(
    bundle: Bundle,
    episodes: Sequence[EpisodeRecord],
    limits: Limits,
    *,
    changed: bool,
) -> Iterator[EpisodeOutcome]:
    """Yield the outcome of each episode, in order; a process that had to be ended is replaced."""
    tasks = {task.index: task for task in bundle.manifest.tasks}
    worker: _Worker | None = None
    try:
        for episode in episodes:
            try:
                worker = worker or _Worker(bundle, limits, changed=changed)
                yield worker.replay(tasks[episode.index], episode)
            except (_Overrun, _Ended) as found:
                step = 0 if worker is None else worker.step
                yield _stopped(episode, found, step)
                if worker is not None:
                    worker.close()
                worker = None
    finally:
        if worker is not None:
            worker.close()


def _stopped(episode: EpisodeRecord, found: _Overrun | _Ended, step: int) -> EpisodeOutcome:
    late = isinstance(found, _Overrun)
    divergence = Divergence(step, "time" if late else "process", "an event", str(found))
    outcome = "timeout" if late else "diverged"
    return EpisodeOutcome(episode.index, episode.trial, outcome, divergence)


class _Worker:
    """The parent's end of one replaying process."""

    def __init__(self, bundle: Bundle, limits: Limits, *, changed: bool) -> None:
        self.step = 0
        self._limits = limits
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
            },
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        try:
            self._send(
                {
                    "spec": registry.find_spec(bundle.manifest.env_id).to_json(),
                    "path": str(bundle.path.resolve()),
                    "manifest": bundle.manifest.model_dump_json(exclude={"tasks"}),
                    "changed": changed,
                }
            )
            self._line(time.monotonic() + START_S, f"no start within {START_S} s")
        except (_Overrun, _Ended):
            self.close()
            raise

    def replay(self, task: TaskEntry, episode: EpisodeRecord) -> EpisodeOutcome:
        """Return the outcome of one episode.

        Raises:
            _Overrun, _Ended: the process cannot be used any more.
        """
        self.step = 0
        limits = self._limits
        end = time.monotonic() + limits.episode_s
        self._send({"task": task.model_dump_json(), "episode": episode.model_dump_json()})
        while True:
            now = time.monotonic()
            first = now + limits.step_s < end
            deadline = now + limits.step_s if first else end
            which, most = ("step", limits.step_s) if first else ("episode", limits.episode_s)
            line = self._line(deadline, f"no end of the {which} within {most:g} s")
            if "step" in line:
                self.step = line["step"]
                continue
            found = line["divergence"]
            return EpisodeOutcome(
                episode.index,
                episode.trial,
                line["outcome"],
                None if found is None else Divergence(**found),
            )

    def close(self) -> None:
        """End the process and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        with contextlib.suppress(BrokenPipeError):
            self._in.close()
        self._out.close()

    def _send(self, value: dict[str, Any]) -> None:
        try:
            self._in.write(json.dumps(value).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            raise _Ended(self._ending()) from None

    def _line(self, deadline: float, overrun: str) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise _Overrun(overrun)
            piece = os.read(self._out.fileno(), 2**16)
            if not piece:
                raise _Ended(self._ending())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _ending(self) -> str:
        return f"the replaying process ended with status {self._process.wait()}"


def main() -> None:
    """Replay what standard input names, until it ends."""
    # What an environment prints must not reach the parent: it would be read as an outcome.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    job = json.loads(sys.stdin.readline())
    manifest = _manifest(job)
    # What making an environment imports is no part of a step; whether it can be made, the
    # episodes will say.
    with contextlib.suppress(Exception):
        open_env(manifest.env_id, manifest.env_kwargs).close()
    say({"step": 0})
    for line in sys.stdin:
        outcome = _replayed(job, manifest, json.loads(line), lambda step: say({"step": step}))
        found = outcome.divergence
        say({"outcome": outcome.outcome, "divergence": None if found is None else asdict(found)})


def _manifest(job: dict[str, Any]) -> Manifest:
    """Return the manifest of a job, its tasks left out, with its environment registered."""
    spec = EnvSpec.from_json(job["spec"])
    gymnasium.registry.setdefault(spec.id, spec)
    nothing = [TaskEntry(index=0, id=None, difficulty=None, digest=None).model_dump()]
    return Manifest.model_validate(json.loads(job["manifest"]) | {"tasks": nothing})


def _replayed(
    job: dict[str, Any], manifest: Manifest, order: dict[str, str], advance: Callable[[int], None]
) -> EpisodeOutcome:
    episode = EpisodeRecord.model_validate_json(order["episode"])
    return replay_episode(
        Setting(
            manifest.env_id,
            manifest.env_kwargs,
            manifest.split,
            manifest.seed,
            manifest.env_digest,
        ),
        TaskEntry.model_validate_json(order["task"]),
        episode,
        read_trajectory(Path(job["path"]), manifest, episode),
        changed=job["changed"],
        advance=advance,
    )
