"""Forking a state: ask its worker, wait for the child's own word, and look where it is.

The worker that forks ran untrusted code, so neither its word nor its child's counts: the
child is admitted by what /proc shows of it, or ended.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from treegrpo.sandboxes.guest import gate, inspection, wire
from treegrpo.sandboxes.guest.loop import Loop, Promise, Task
from treegrpo.sandboxes.guest.states import Kin, State, sweep
from treegrpo.sandboxes.guest.views import View
from treegrpo.sandboxes.guest.worker import MAX_MESSAGE

_READY_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)


@dataclass
class Pending:
    """A fork under way; `fault` says what went wrong already."""

    parent: State
    child: State
    nonce: bytes
    fault: str = ""


class Forking:
    """Makes forks of one tree's states."""

    def __init__(self, loop: Loop, views: Any, kin: Kin, numbers: Iterator[int]) -> None:
        """Number the states that are made by `numbers`."""
        self._loop, self._views, self._kin, self._numbers = loop, views, kin, numbers
        self.gate: gate.Gate | None = None

    def begin(self, state: State, finding: inspection.Finding, seed: bytes) -> Pending:
        """Ask a state's worker for one fork.

        Raises:
            OSError: no view of the files could be made.
        """
        view = self._views.make(next(self._numbers), state.view)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        child = State(view.number, 0, ours, view, state.rooted, self._kin)
        pending = Pending(state, child, os.urandom(16))
        entries = [_reopening(file, view) for file in finding.files]
        cwd = os.fsencode(_cwd_in(state, view))
        message = wire.fields(b"fork", pending.nonce, cwd, seed, *entries)
        if self.gate is not None and state.rooted:
            self.gate.expect(view.root, state.view.root)
        try:
            socket.send_fds(state.channel, [message], [theirs.fileno(), view.descriptor])
        except OSError as error:
            pending.fault = f"the worker does not take requests: {error}"
        theirs.close()
        return pending

    def end(self, pending: Pending) -> Task:
        """Return "" when the child is where it should be, else what went wrong; then it ended."""
        child = pending.child
        fault = pending.fault or (yield from self._parents_word(pending))
        if not fault:
            ready = yield from self.message(child.channel)
            try:
                fault = self._judge(pending, ready)
            except OSError as error:
                fault = f"it could not be looked at: {error}"
        if self.gate is not None:
            self.gate.settle(child.view.root)
        if fault:
            if child.pid and child.pid not in self._kin.pids:
                gate.kill(child.pid)
            if child.rooted:
                sweep(child)
            child.channel.close()
            self._views.drop(child.view)
        return fault

    def message(self, channel: socket.socket) -> Task:
        """Wait for one message: (data, ancillary), or None on its end or after a while."""
        promise = Promise()

        def take() -> None:
            try:
                data, ancillary, _, _ = channel.recvmsg(MAX_MESSAGE, _CREDENTIALS_SPACE)
                _close_all(ancillary)
            except OSError:
                data, ancillary = b"", []
            promise.fulfil((data, ancillary) if data else None)

        self._loop.watch(channel.fileno(), take)
        timer = self._loop.after(_READY_S, lambda: promise.fulfil(None))
        answer = yield promise
        self._loop.cancel(timer)
        self._loop.forget(channel.fileno())
        return answer

    def _parents_word(self, pending: Pending) -> Task:
        answer = yield from self.message(pending.parent.channel)
        try:
            parts = wire.split(answer[0]) if answer else []
        except ValueError:
            parts = []
        if len(parts) < 2 or parts[0] != pending.nonce:
            gate.kill(pending.parent.pid)
            pending.parent.dead = True
            return "its state answered out of turn and was ended"
        return "" if parts[1] == b"forked" else parts[-1].decode("utf-8", "replace")

    def _judge(self, pending: Pending, ready: Any) -> str:
        child = pending.child
        if not ready:
            return "it died or did not come up in time"
        data, ancillary = ready
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                child.pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        child.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        if data != wire.fields(pending.nonce, b"ready") or not child.pid:
            return "it gave a wrong word"
        if child.pid in self._kin.pids or inspection.parent_of(child.pid) != os.getpid():
            return "it is not a new process of ours"
        if not child.rooted:
            child.park()
            return ""
        if inspection.root_of(child.pid) != child.view.root:
            return "it is not in its own root"
        held = inspection.strayed(child.pid, child.view.root)
        if not held:
            child.park()
        return f"it holds {held}" if held else ""


def _close_all(ancillary: list[tuple[int, int, bytes]]) -> None:
    """Close descriptors that a worker has sent along: we want none."""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for at in range(0, len(value) - 3, 4):
                os.close(int.from_bytes(value[at : at + 4], sys.byteorder))


def _reopening(file: inspection.OpenFile, view: View) -> bytes:
    """Return how a fork is told to reopen a file."""
    above = view.root if file.inside and view.home == view.root else ""
    numbers = (file.number, file.flags, file.offset)
    return wire.fields(*(str(n).encode() for n in numbers), os.fsencode(above + file.path))


def _cwd_in(state: State, view: View) -> str:
    """Return the state's working directory as its fork will name it."""
    try:
        cwd = os.readlink(f"/proc/{state.pid}/cwd")
    except OSError:
        return view.home
    root = state.view.root
    if not (cwd == root or cwd.startswith(root + "/")) or cwd.endswith(" (deleted)"):
        return view.home
    inside = cwd[len(root) :] or "/"
    return view.root + inside if view.home == view.root else inside
