"""One state of a tree: a parked worker and its view; and one step of code in it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from treegrpo.sandboxes.guest import gate, inspection, wire
from treegrpo.sandboxes.guest.loop import Loop, Promise
from treegrpo.sandboxes.guest.views import View
from treegrpo.sandboxes.guest.worker import MAX_MESSAGE

_WATCH_S = 0.1
_GRACE_S = 0.2  # between the end of the channel and the end of the process
_CHUNK = 1 << 16
_SWEEP_S = 5.0
_MOST_GENERATIONS = 64


@dataclass
class Kin:
    """The supervisor, its ancestors and all workers; `forking` counts forks under way."""

    pids: set[int]
    forking: int = 0


@dataclass
class State:
    """A worker, parked or running."""

    number: int
    pid: int
    channel: socket.socket
    view: View
    rooted: bool  # whether its root directory tells its processes apart
    others: Kin  # whose processes are not its own
    busy: str = ""  # what it is doing: "", "exec" or "fork"
    dead: bool = False
    finding: inspection.Finding | None = None  # what a look found, until something runs
    pending_timer: bool = False
    resident_at_start: int = -1  # bytes, before its first step
    waiting: list[Promise] = field(default_factory=list[Promise])

    def held_bytes(self) -> int:
        """Return about what this state alone costs: its memory's growth and its files."""
        grown = inspection.resident_bytes(self.pid) - self.resident_at_start
        return max(0, grown) + self.view.bytes()

    def park(self) -> None:
        """Stop the worker: a parked state does not run, whatever the code in it wants."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let the worker run again."""
        os.kill(self.pid, signal.SIGCONT)

    def owns(self, pid: int, *, surely: bool = False) -> bool:
        """Return whether a process belongs to this state.

        With `surely` those that let nobody look are not counted; else they are anyone's.
        """
        if pid in self.others.pids:
            return False
        if self.rooted:
            root = inspection.root_of(pid)
            return root == self.view.root or (not root and not surely)
        if inspection.session_of(pid) == self.pid:
            return True
        above = inspection.parent_of(pid)
        for _ in range(_MOST_GENERATIONS):
            if above == self.pid:
                return True
            if above in self.others.pids or not above:
                break
            above = inspection.parent_of(above)
        # An orphan has left its line: it is anyone's, unless it is a fork on its way.
        return not surely and not self.others.forking and above == os.getpid()


@dataclass
class Order:
    """What a step is to run and what it may use."""

    code: bytes
    form: bytes  # b"code" or b"argv"
    stdin: bytes
    timeout_s: float
    memory_mb: int
    processes: int
    output_bytes: int


class Capture:
    """The end of a stream: kept up to a size, drained beyond it."""

    def __init__(self, loop: Loop, most: int) -> None:
        """Open a pipe; `writer` is for the worker."""
        self._loop, self._most = loop, most
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._kept = bytearray()
        self.truncated = False
        loop.watch(self._reader, self._drain)

    def _drain(self) -> bool:
        """Take what is there; return whether there may be more."""
        try:
            data = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.forget(self._reader)
            return False
        room = self._most - len(self._kept)
        self._kept += data[:room]
        self.truncated |= len(data) > room
        return True

    def finish(self) -> bytes:
        """Return what was kept; what is still in the pipe is taken first, within reason."""
        for _ in range(64):
            if not self._drain():
                break
        self._loop.forget(self._reader)
        os.close(self._reader)
        return bytes(self._kept)


class Step:
    """One running step: it ends by a reply, by the worker's end, or by a limit."""

    def __init__(self, loop: Loop, state: State, order: Order, census: Callable[[], int]) -> None:
        """Send the step to the worker; `finished` gets the result's header and blob."""
        self._loop, self._state, self._order = loop, state, order
        self.finished = Promise()
        self._nonce = os.urandom(16)
        self._cause = ""
        self._started = time.monotonic()
        self._pids_before = inspection.newest_pid()
        allow_processes(state.pid, census())
        self._out = Capture(loop, order.output_bytes)
        self._err = Capture(loop, order.output_bytes)
        self._pidfd = os.pidfd_open(state.pid)
        loop.watch(state.channel.fileno(), self._on_reply)
        loop.watch(self._pidfd, self._on_end)
        self._timers = [
            loop.after(order.timeout_s, lambda: self._kill("timeout")),
            loop.after(_WATCH_S, self._on_watch),
        ]
        self._send()

    def _send(self) -> None:
        order = self._order
        stdin = _memory_file(order.stdin)
        code = _memory_file(order.code)
        has_stdin = b"1" if order.stdin else b"0"
        message = wire.fields(b"exec", self._nonce, order.form, has_stdin)
        descriptors = [stdin, self._out.writer, self._err.writer, code]
        try:
            socket.send_fds(self._state.channel, [message], descriptors)
        except OSError:
            self._kill("protocol")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # ------------------------------------------------------------------------------- events

    def _on_reply(self) -> None:
        try:
            data = self._state.channel.recv(MAX_MESSAGE)
        except OSError:
            data = b""
        if self._cause:
            return  # a limit has struck; whatever the worker still says comes too late
        if not data:  # the process may be on its way out; if not, it has closed the channel
            self._loop.forget(self._state.channel.fileno())
            self._timers.append(self._loop.after(_GRACE_S, lambda: self._kill("protocol")))
            return
        try:
            parts = wire.split(data)
            if len(parts) != 9 or parts[0] != self._nonce:
                raise ValueError("no answer to this step")
            header = _reply_header(parts)
        except ValueError:
            self._kill("protocol")
            return
        self._state.pending_timer = parts[8] == b"1"
        self._finish(header)

    def _on_end(self) -> None:
        try:
            status = os.waitpid(self._state.pid, 0)[1]
        except ChildProcessError:  # another has reaped it, so nobody knows how it ended
            status = signal.SIGKILL
        self._state.dead = True
        if self._state.rooted or self._pids_before != inspection.newest_pid():
            self._sweep()
        code = os.waitstatus_to_exitcode(status)
        header: dict[str, Any] = {"kind": self._cause or ("exit" if code >= 0 else "signal")}
        if not self._cause:
            header["exit_code" if code >= 0 else "signal"] = abs(code)
        self._finish(header)

    def _on_watch(self) -> None:
        """Hold the limits that no rlimit holds: of all that the step has started together."""
        if self.finished.done:
            return
        self._timers.append(self._loop.after(_WATCH_S, self._on_watch))
        state, order = self._state, self._order
        pids = [state.pid]
        if inspection.newest_pid() != self._pids_before:
            seen = inspection.processes()
            pids += [p for p in seen if state.owns(p, surely=True) and not inspection.is_dead(p)]
        if len(pids) > order.processes:
            self._kill("pids")
        elif sum(map(_resident_mb, pids)) > order.memory_mb:
            self._kill("memory")

    def _kill(self, cause: str) -> None:
        if self.finished.done or self._cause:
            return
        self._cause = cause
        self._loop.forget(self._state.channel.fileno())
        gate.kill(self._state.pid)  # first, or it would see its children's end and go on
        self._sweep()

    def _sweep(self) -> None:
        """Kill whatever the step has started."""
        sweep(self._state)

    def _finish(self, header: dict[str, Any]) -> None:
        if self.finished.done:
            return
        for key in self._timers:
            self._loop.cancel(key)
        self._loop.forget(self._state.channel.fileno())
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        out, err = self._out.finish(), self._err.finish()
        header["wall_s"] = time.monotonic() - self._started
        header["alive"] = not self._state.dead
        header["stdout_bytes"] = len(out)
        header["stdout_truncated"] = self._out.truncated
        header["stderr_truncated"] = self._err.truncated
        self.finished.fulfil((header, out + err))


def sweep(state: State) -> None:
    """Kill every process of a state but its worker, again and again until none is left."""
    deadline = time.monotonic() + _SWEEP_S
    while time.monotonic() < deadline:
        left = [
            pid
            for pid in inspection.processes()
            if pid != state.pid and state.owns(pid) and not inspection.is_dead(pid)
        ]
        if not left:
            return
        for pid in left:
            gate.kill(pid)
        time.sleep(0.0002)  # the kernel needs a moment to end them


def _reply_header(parts: list[bytes]) -> dict[str, Any]:
    """Return the result's header as the worker tells it; ValueError if it tells nonsense."""
    kind = parts[1].decode("ascii")
    if kind not in ("ok", "exception", "exit", "memory", "pids", "disk"):
        raise ValueError("no such kind")
    texts = [part.decode("utf-8", "replace") for part in parts[2:6]]
    exit_code = int(parts[6])
    return {
        "kind": kind,
        "value": texts[0] if texts[1] == "1" else None,
        "exception": texts[2] or None,
        "traceback": texts[3] or None,
        "exit_code": exit_code if exit_code >= 0 else None,
        "cpu_s": float(parts[7]),
    }


def _memory_file(data: bytes) -> int:
    """Return a descriptor that reads `data` from its start."""
    descriptor = os.memfd_create("step", os.MFD_CLOEXEC)
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _resident_mb(pid: int) -> int:
    try:
        return inspection.memory_mb(pid)
    except (OSError, IndexError):
        return 0


def allow_processes(pid: int, total: int) -> None:
    """Let the worker start processes until the whole tree has `total`.

    The kernel counts them together, parked ones included. The worker cannot raise it itself.
    """
    hard = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
    resource.prlimit(pid, resource.RLIMIT_NPROC, (total, hard))
