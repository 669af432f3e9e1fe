"""Machines that cannot be copied: a fork is reached by replaying what was done to its parent.

A machine (a server process, a game) is known by its history: the calls made since it was
started, each with what it gave. Who needs a machine at a history takes an idle one that stands
there, or one that is behind and replays the rest, or a new one. Nobody owns a machine, so a
snapshot is no more than the history, and forks cannot see each other.

Every replayed call is compared with what it gave the first time. A machine that answers
otherwise cannot be forked, and ReplayDiverged says at which call.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from treegrpo.envs.errors import SandboxFailed, SnapshotUnsupported

MAX_PROVEN = 4_096
"""How many histories are remembered as proven; forgotten ones are proven again."""


@dataclass(frozen=True)
class Done:
    """One call and what it gave, both as text."""

    call: str
    output: str


History = tuple[Done, ...]


class Machine(Protocol):
    """Something with state that no copy can reach; a new one stands at the empty history."""

    def do(self, call: str) -> str:
        """Return what the call gives; an exception leaves the machine unusable."""
        ...

    def close(self) -> None:
        """Stop it; may be called twice."""
        ...


class StateLost(SnapshotUnsupported, SandboxFailed):
    """The state of something foreign cannot be kept; raised inside a tool, it is not the agent's.

    The message is the given one, with its own remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__([message])
        self.args = (message,)


class ReplayDiverged(StateLost):
    """A replayed call gave something else than the first time: no fork can be made."""

    def __init__(self, number: int, done: Done, now: str) -> None:
        """Describe call `number` of the history, which gave `now` when it was replayed."""
        super().__init__(
            f"Snapshot by replay asked for, but call {number} of the history, "
            f"{_short(done.call)}, gave {_short(done.output)} at first and {_short(now)} when "
            "replayed. What is replayed must be deterministic: fix its seed and clock, mark "
            "calls that change nothing as read-only, or use this environment without forks."
        )


class Machines:
    """The live machines of one kind, shared by all environments that use it."""

    def __init__(self, start: Callable[[], Machine], *, max_idle: int = 8) -> None:
        """Start none yet; `max_idle` of them are kept, those used last."""
        self._start, self._max_idle = start, max_idle
        self._idle: list[tuple[Machine, History]] = []
        self._lock = threading.Lock()
        self._proven: OrderedDict[History, None] = OrderedDict()
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        weakref.finalize(self, _close_all, self._idle)

    def do(self, history: History, call: str, *, writes: bool = True) -> tuple[str, History]:
        """Return what the call gives at `history`, and the history after it.

        Args:
            history: what was done before.
            call: goes to the machine.
            writes: False for a call that changes nothing; it is never replayed.

        Raises:
            ReplayDiverged: no machine could be brought to `history`.
            Exception: what the machine raises; that machine is closed, and the history stands.
        """
        machine = self._take(history, below=False)
        try:
            output = machine.do(call)
        except BaseException:
            machine.close()
            raise
        after = (*history, Done(call, output)) if writes else history
        self._put(machine, after)
        return output, after

    def prove(self, history: History) -> None:
        """Replay a history that has not been replayed yet, on a machine of its own.

        Raises:
            ReplayDiverged: it gives something else the second time.
        """
        if not history or self._is_proven(history):
            return
        self._put(self._take(history, below=True), history)

    def join(self, user: object) -> None:
        """Count `user` among those who keep the machines alive."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Drop a user; the last one closes the idle machines."""
        self._users.discard(user)
        if not self._users:
            with self._lock:
                idle, self._idle[:] = list(self._idle), []
            _close_all(idle)

    @property
    def num_idle(self) -> int:
        """How many machines stand ready."""
        return len(self._idle)

    def put_new(self, machine: Machine) -> None:
        """Take over a machine that was started elsewhere and not used yet."""
        self._put(machine, ())

    def _take(self, history: History, *, below: bool) -> Machine:
        """Return a machine at `history`; with `below` one that had to replay the last call."""
        machine, reached = self._pick(history, len(history) - 1 if below else len(history))
        try:
            for number, done in enumerate(history[len(reached) :], start=len(reached) + 1):
                now = machine.do(done.call)
                if now != done.output:
                    raise ReplayDiverged(number, done, now)
        except BaseException:
            machine.close()
            raise
        if len(reached) < len(history):
            self._remember(history)
        return machine

    def _pick(self, history: History, max_calls: int) -> tuple[Machine, History]:
        """Return the idle machine that is nearest below, or a new one, and where it stands."""
        with self._lock:
            fit = [
                (len(at), number)
                for number, (_, at) in enumerate(self._idle)
                if len(at) <= max_calls and at == history[: len(at)]
            ]
            if fit:
                return self._idle.pop(max(fit)[1])
        return self._start(), ()

    def _put(self, machine: Machine, history: History) -> None:
        with self._lock:
            self._idle.append((machine, history))
            surplus = self._idle[: -self._max_idle]
            del self._idle[: -self._max_idle]
        _close_all(surplus)

    def _is_proven(self, history: History) -> bool:
        with self._lock:
            return history in self._proven

    def _remember(self, history: History) -> None:
        with self._lock:
            self._proven[history] = None
            if len(self._proven) > MAX_PROVEN:
                self._proven.popitem(last=False)


def _close_all(idle: list[tuple[Machine, History]]) -> None:
    for machine, _ in idle:
        machine.close()


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:120]}...")
