"""The supervisor: the one trusted process of a tree.

It owns the states, their views, timers and limits, and answers the host's requests. One
request may wait (a step, a fork); others go on meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from typing import Any, cast

from treegrpo.sandboxes.guest import files, gate, inspection, kernel, landlock, wire
from treegrpo.sandboxes.guest.census import Census
from treegrpo.sandboxes.guest.first import start_first
from treegrpo.sandboxes.guest.forking import Forking, Pending
from treegrpo.sandboxes.guest.loop import Loop, Promise, Task
from treegrpo.sandboxes.guest.states import Kin, Order, State, Step, allow_processes, sweep
from treegrpo.sandboxes.guest.views import CopyViews, OverlayViews

_SPARE = 64  # for forks: dead processes count until they are reaped
_SAMPLE = 32  # states whose memory is looked at; a look costs 0.5 ms
_WINDOW = 8  # forks of one state that are under way at once


class Fault(Exception):
    """A request that failed: the type and message that the host raises."""

    def __init__(self, kind: str, message: str, reasons: Any = ()) -> None:
        """Keep what the host needs to raise it."""
        super().__init__(message)
        self.header = {"error": kind, "message": message, "reasons": list(reasons)}


class Supervisor:
    """Serves one tree over a stream of frames."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        """Serve the host on these descriptors."""
        self._read_fd, self._write_fd = read_fd, write_fd
        self._loop = Loop()
        self._decoder = wire.Decoder()
        self._outbox = bytearray()
        self._flushing = False  # a timer will flush the rest
        self._states: dict[int, State] = {}
        self._kin = Kin(inspection.ancestors())
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def end_with(self, pid: int) -> None:
        """End in order when another process ends; where the kernel does not see to it."""
        self._loop.watch(os.pidfd_open(pid), self._stop)

    def _stop(self) -> None:
        self._loop.running = False

    def run(self) -> None:
        """Serve until the host closes the stream."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.adopt_orphans()
        self._loop.watch(self._read_fd, self._on_input)
        self._loop.run()
        self._end()

    # ------------------------------------------------------------------------------- requests

    def _on_input(self) -> None:
        try:
            data = os.read(self._read_fd, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.running = False
            return
        for header, blob in self._decoder.feed(data):
            self._loop.start(self._serve(header, blob))

    def _serve(self, header: wire.Header, blob: bytes) -> Task:
        call = getattr(self, "_op_" + header["op"])
        try:
            answer, data = cast("tuple[wire.Header, bytes]", (yield from call(header, blob)))
            self._send({"id": header["id"], **answer}, data)
            return
        except Fault as fault:
            answer = fault.header
        except files.Refused as refused:
            answer = {"error": "FileRefused", "message": str(refused)}
        except wire.FrameTooLarge as error:
            message = f"{header['op']}: the answer does not fit: {error}"
            answer = {"error": "FileRefused", "message": message}
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            message = f"{header['op']} failed in the supervisor: {error!r}"
            answer = {"error": "SandboxError", "message": message}
        self._send({"id": header["id"], **answer}, b"")

    def _send(self, header: wire.Header, blob: bytes) -> None:
        self._outbox += wire.pack(header, blob)
        if not self._flushing:
            self._flush()

    def _flush(self) -> None:
        """Write what the host takes now; come back soon for the rest."""
        self._flushing = False
        try:
            while self._outbox:
                del self._outbox[: os.write(self._write_fd, self._outbox[: 1 << 18])]
        except BlockingIOError:
            self._flushing = True
            self._loop.after(0.001, self._flush)
        except OSError:
            self._loop.running = False

    # ----------------------------------------------------------------------------- operations

    def _op_open(self, header: wire.Header, blob: bytes) -> Task:
        """Start the first worker; nothing has run in it, so it is the tree's seed."""
        self._spec = spec = header["spec"]
        numbers = itertools.count(1)
        if header["views"] == "overlay":
            self._views: Any = OverlayViews(workspace_mb=spec["workspace_mb"], files=spec["files"])
        else:
            # It copies files that states can swap under it, so it may reach no others itself.
            if header["landlock"]:
                landlock.restrict(header["read_write"], [*header["read_only"], "/proc"])
            self._views = CopyViews(header["top"])
        self._census = Census(self._states, self._kin, processes=spec["processes"])
        self._forking = Forking(self._loop, self._views, self._kin, numbers)
        view = self._views.make(next(numbers), None)
        pid, channel, listener = start_first(view, self._views.mode, header, blob)
        rooted = self._views.mode == "chroot"
        if header["gate"]:
            self._forking.gate = gate.Gate(self._loop, listener, rooted=rooted)
        state = State(view.number, pid, channel, view, rooted, self._kin)
        self._enlist(state)
        channel.send(wire.fields(b"ping", b"hello"))
        answer = yield from self._forking.message(channel)
        if not answer or answer[0] != wire.fields(b"hello", b"pong"):
            raise Fault("SandboxLost", "The first worker of the tree did not come up.")
        state.park()
        self._census.look()
        self._loop.after(1.0, self._reap)
        return {"state": state.number, "pid": os.getpid()}, b""

    def _op_exec(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        code_bytes = header["code_bytes"]
        order = Order(
            code=blob[:code_bytes],
            form=header["form"].encode(),
            stdin=blob[code_bytes:],
            timeout_s=header["timeout_s"],
            memory_mb=self._spec["memory_mb"],
            processes=self._spec["processes"],
            output_bytes=self._spec["output_kib"] * 1024,
        )
        if not self._census.quiet():
            self._census.collect()
        state.busy, state.finding = "exec", None
        if state.resident_at_start < 0:
            state.resident_at_start = inspection.resident_bytes(state.pid)
        try:
            state.wake()
            result, output = yield Step(self._loop, state, order, self._census.allowed).finished
            if not state.dead:
                state.park()
                result["held_bytes"] = state.held_bytes()
        finally:
            state.busy = ""
        if state.dead:
            self._forget(state)
        elif self._spec["on_unforkable"] == "kill_background" and not self._census.quiet():
            sweep(state)
        return result, output

    def _op_fork(self, header: wire.Header, blob: bytes) -> Task:
        """Fork a state n times; each fork succeeds or fails for itself."""
        state = yield from self._idle(header["state"])
        finding = self._look(state)
        if finding.reasons:
            raise Fault("SnapshotUnsupported", "", finding.reasons)
        state.busy = "fork"
        self._kin.forking += 1
        self._views.freeze(state.view)
        outcomes: list[Any] = []
        under_way: list[Pending] = []
        try:
            allow_processes(state.pid, self._census.allowed() + len(header["seeds"]) + _SPARE)
            state.wake()
            for seed in header["seeds"]:
                try:
                    under_way.append(self._forking.begin(state, finding, bytes.fromhex(seed)))
                except OSError as error:
                    outcomes.append(_failed(f"no view of the files could be made: {error}"))
                if len(under_way) == _WINDOW:
                    outcomes.append((yield from self._end_fork(under_way.pop(0))))
            while under_way:
                outcomes.append((yield from self._end_fork(under_way.pop(0))))
        finally:
            self._kin.forking -= 1
            self._release_fork(state, outcomes)
        return {"states": outcomes}, b""

    def _end_fork(self, pending: Pending) -> Task:
        fault = yield from self._forking.end(pending)
        if fault:
            return _failed(fault)
        self._enlist(pending.child)
        return pending.child.number

    def _release_fork(self, state: State, outcomes: list[Any]) -> None:
        """Park a state that was being forked; end it if it kept a way into its forks' files."""
        if not state.dead:
            state.park()
            if state.rooted and inspection.strayed(state.pid, state.view.root):
                gate.kill(state.pid)
                state.dead = True
        made = sum(isinstance(outcome, int) for outcome in outcomes)
        if made == len(outcomes):
            self._census.note_forks(made)
        else:
            sweep(state)  # a parked state has no processes; what is left came of the failure
        state.busy = ""
        waiting, state.waiting = state.waiting, []  # who goes on may have to wait again
        for promise in waiting:
            promise.fulfil(None)
        if state.dead:
            self._wait_for(state.pid)
            self._forget(state)

    def _op_check(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        return {"reasons": self._look(state).reasons}, b""

    def _op_read(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        return {}, files.read(state.view, header["path"], header["max_bytes"])

    def _op_write(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        if len(blob) > self._spec["workspace_mb"] << 20:
            room = self._spec["workspace_mb"]
            raise files.Refused(f"{header['path']!r} gets {len(blob)} bytes; room is {room} MiB")
        files.write(state.view, header["path"], blob)
        return {}, b""

    def _op_list(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        return {"entries": files.entries(state.view, header["path"])}, b""

    def _op_remove(self, header: wire.Header, blob: bytes) -> Task:
        state = yield from self._idle(header["state"])
        files.remove(state.view, header["path"])
        return {}, b""

    def _op_release(self, header: wire.Header, blob: bytes) -> Task:
        """End a state; those that were forked from it live on."""
        yield from ()
        state = self._states.get(header["state"])
        if state is not None:
            self._kill(state)
        return {}, b""

    def _op_seed(self, header: wire.Header, blob: bytes) -> Task:
        """Give a state's random generators a new seed."""
        state = yield from self._idle(header["state"])
        nonce = os.urandom(16)
        state.busy = "fork"
        try:
            state.wake()
            state.channel.send(wire.fields(b"seed", nonce, bytes.fromhex(header["seed"])))
            answer = yield from self._forking.message(state.channel)
            state.park()
        finally:
            state.busy = ""
        if not answer or answer[0] != wire.fields(nonce, b"pong"):
            self._kill(state)
            raise Fault("SandboxDead", "The interpreter answered out of turn and was ended.")
        return {}, b""

    def _op_stats(self, header: wire.Header, blob: bytes) -> Task:
        yield from ()
        states = list(self._states.values())
        looked_at = states[:: max(1, len(states) // _SAMPLE)]
        sample = sum(inspection.private_bytes(s.pid) + s.view.bytes() for s in looked_at)
        total = sample * len(self._states) // max(1, len(looked_at))
        return {"private_bytes": total, "processes": self._census.allowed()}, b""

    # ----------------------------------------------------------------------------- the inside

    def _idle(self, number: int) -> Task:
        """Return a parked state; wait for its forks if there are some under way."""
        while True:
            state = self._states.get(number)
            if state is None:
                raise Fault("SandboxDead", "The interpreter of this sandbox has ended.")
            if not state.busy:
                if os.waitpid(state.pid, os.WNOHANG)[0]:  # it was killed while parked
                    self._forget(state)
                    continue
                return state
            if state.busy == "exec":
                raise Fault("SandboxBusy", "Code is running in this sandbox; wait for its end.")
            promise = Promise()
            state.waiting.append(promise)
            yield promise

    def _look(self, state: State) -> inspection.Finding:
        """Return what a parked state holds; remembered until something runs in it."""
        if state.finding is None:
            strays = [pid for pid in self._census.look() if state.owns(pid)]
            most = self._spec["memory_mb"]
            found = inspection.look(state.pid, state.view.root, strays, max_mb=most)
            if state.pending_timer:
                timer = (("pending_timer", "an alarm or interval timer is set"),)
                found = inspection.Finding(found.reasons + timer, found.files)
            state.finding = found
        return state.finding

    def _kill(self, state: State) -> None:
        """End a state and all that runs in it."""
        gate.kill(state.pid)
        if state.busy == "exec":
            return  # the step notices, cleans up and forgets it
        if not self._census.quiet():
            sweep(state)
        self._wait_for(state.pid)
        state.dead = True
        if not state.busy:
            self._forget(state)

    def _enlist(self, state: State) -> None:
        self._states[state.number] = state
        self._kin.pids.add(state.pid)

    def _forget(self, state: State) -> None:
        if self._states.pop(state.number, None) is not None:
            self._kin.pids.discard(state.pid)
            state.channel.close()
            self._views.drop(state.view)

    def _wait_for(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def _reap(self) -> None:
        self._loop.after(1.0, self._reap)
        self._census.collect()

    def _end(self) -> None:
        """End every state; as the first process of a pid namespace the kernel does it for us."""
        me = os.getpid()
        if me == 1:
            os._exit(0)
        for state in list(self._states.values()):
            sweep(state)
            gate.kill(state.pid)
        for state in list(self._states.values()):
            self._wait_for(state.pid)
            self._forget(state)
        for _ in range(200):  # orphans are ours by now, and their children will be
            left = [p for p in inspection.processes() if inspection.parent_of(p) == me]
            if not left:
                break
            for pid in left:
                gate.kill(pid)
                self._wait_for(pid)
        os._exit(0)


def _failed(why: str) -> dict[str, str]:
    """Return one failed fork as the host reads it."""
    return {"error": "SandboxError", "message": f"The fork failed: {why}"[:1000]}
