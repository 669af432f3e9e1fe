"""The supervisor: the one trusted process of a tree.

It owns the states, their views, timers and limits, and answers the host's requests. One
request may wait (a step, a fork); others go on meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
from typing import Any, cast

from treegrpo.sandboxes.guest import files, gate, inspection, kernel, landlock, wire, worker
from treegrpo.sandboxes.guest.loop import Loop, Promise, Task
from treegrpo.sandboxes.guest.states import Kin, Order, State, Step, allow_processes, sweep
from treegrpo.sandboxes.guest.views import CopyViews, OverlayViews, View

_READY_S = 10.0
_SPARE = 64  # for forks: dead processes count until they are reaped
_SAMPLE = 32  # states whose memory is looked at; a look costs 0.5 ms
_WINDOW = 8  # forks of one state that are under way at once
_CREDENTIALS = struct.Struct("3i")


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
        self._numbers = iter(range(1, 1 << 62))
        self._gate: gate.Gate | None = None
        self._kin = Kin(inspection.ancestors())
        self._spec: dict[str, Any] = {}
        self._clean_pid = b""  # the newest process number when no stray was about
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def run(self) -> None:
        """Serve until the host closes the stream."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.adopt_orphans()
        self._loop.watch(self._read_fd, self._on_input)
        self._loop.after(1.0, self._reap)
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
        except Fault as fault:
            answer, data = fault.header, b""
        except files.Refused as refused:
            answer, data = {"error": "FileRefused", "message": str(refused)}, b""
        except (OSError, ValueError, KeyError, RecursionError) as error:
            message = f"{header['op']} failed in the supervisor: {error!r}"
            answer, data = {"error": "SandboxError", "message": message}, b""
        self._send({"id": header["id"], **answer}, data)

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
        if header["views"] == "overlay":
            self._views: Any = OverlayViews(workspace_mb=spec["workspace_mb"], files=spec["files"])
        else:
            self._views = CopyViews(header["top"])
        number = next(self._numbers)
        view = self._views.make(number, None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_worker(theirs, view, header, blob)
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 64, 1)
        rooted = self._views.mode == "chroot"
        if header["gate"]:
            self._gate = gate.Gate(self._loop, descriptors[0], rooted=rooted)
        state = State(number, pid, ours, view, rooted, self._kin)
        self._enlist(state)
        yield from self._ping(state)
        self._clean_pid = inspection.newest_pid()
        return {"state": number, "pid": os.getpid()}, b""

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
        if inspection.newest_pid() != self._clean_pid:
            self._collect()
        state.busy, state.finding = "exec", None
        result, output = yield Step(self._loop, state, order, self._census).finished
        state.busy = ""
        if state.dead:
            self._forget(state)
        elif (
            self._spec["on_unforkable"] == "kill_background"
            and inspection.newest_pid() != self._clean_pid
        ):
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
        allow_processes(state.pid, self._census() + len(header["seeds"]) + _SPARE)
        outcomes: list[Any] = []
        under_way: list[tuple[State, bytes, str]] = []
        for seed in header["seeds"]:
            try:
                under_way.append(self._begin_fork(state, finding, bytes.fromhex(seed)))
            except (OSError, RecursionError) as error:  # shutil.Error is an OSError
                message = f"The fork failed: no view of the files could be made: {error}"
                outcomes.append({"error": "SandboxError", "message": message[:500]})
            if len(under_way) == _WINDOW:
                outcomes.append((yield from self._end_fork(state, *under_way.pop(0))))
        while under_way:
            outcomes.append((yield from self._end_fork(state, *under_way.pop(0))))
        state.busy = ""
        self._kin.forking -= 1
        for promise in state.waiting:
            promise.fulfil(None)
        state.waiting.clear()
        if state.dead:
            self._forget(state)
        self._clean_pid = inspection.newest_pid() if not self._others_run() else b""
        return {"states": outcomes}, b""

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

    def _op_stats(self, header: wire.Header, blob: bytes) -> Task:
        yield from ()
        looked_at = list(self._states.values())[-_SAMPLE:]
        sample = sum(inspection.private_bytes(state.pid) for state in looked_at)
        total = sample * len(self._states) // max(1, len(looked_at))
        return {"private_bytes": total, "processes": self._census()}, b""

    # ----------------------------------------------------------------------------- the inside

    def _idle(self, number: int) -> Task:
        """Return a parked state; wait for its forks if there are some under way."""
        while True:
            state = self._states.get(number)
            if state is None:
                raise Fault("SandboxDead", "The interpreter of this sandbox has ended.")
            if not state.busy:
                return state
            if state.busy == "exec":
                raise Fault("SandboxBusy", "Code is running in this sandbox; wait for its end.")
            promise = Promise()
            state.waiting.append(promise)
            yield promise

    def _census(self) -> int:
        """Return how many processes the tree may have: what is there, and what steps may start.

        The kernel counts threads as processes.
        """
        running = sum(state.busy == "exec" for state in self._states.values())
        allowed = 1 + len(self._states) + running * (self._spec["processes"] - 1)
        if inspection.newest_pid() == self._clean_pid:
            return allowed
        for pid in inspection.processes():
            if pid not in self._kin.pids and not any(
                state.busy == "exec" and state.owns(pid) for state in self._states.values()
            ):
                allowed += inspection.tasks_of(pid)
        return allowed + sum(
            inspection.tasks_of(state.pid) - 1 for state in self._states.values() if not state.busy
        )

    def _others_run(self) -> bool:
        return any(state.busy for state in self._states.values())

    def _look(self, state: State) -> inspection.Finding:
        if state.finding is None:
            newest = inspection.newest_pid()
            strays: list[int] = []
            if newest != self._clean_pid:
                strays = [p for p in inspection.processes() if state.owns(p)]
                strays = [p for p in strays if not inspection.is_dead(p)]
                if not strays and not self._others_run():
                    self._clean_pid = newest
            most = self._spec["memory_mb"]
            state.finding = inspection.look(state.pid, state.view.root, strays, max_mb=most)
            if state.pending_timer:
                timer = (("pending_timer", "an alarm or interval timer is set"),)
                state.finding = inspection.Finding(
                    state.finding.reasons + timer, state.finding.files
                )
        return state.finding

    def _begin_fork(
        self, state: State, finding: inspection.Finding, seed: bytes
    ) -> tuple[State, bytes, str]:
        number = next(self._numbers)
        view = self._views.make(number, state.view)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        nonce = os.urandom(16)
        cwd = self._cwd_in(state, view)
        entries = [
            wire.fields(
                str(f.number).encode(),
                str(f.flags).encode(),
                str(f.offset).encode(),
                os.fsencode((view.root if view.home == view.root and f.inside else "") + f.path),
            )
            for f in finding.files
        ]
        message = wire.fields(b"fork", nonce, os.fsencode(cwd), seed, *entries)
        if self._gate is not None and state.rooted:
            self._gate.expect(view.root, state.view.root)
        fault = ""
        try:
            socket.send_fds(state.channel, [message], [theirs.fileno(), view.descriptor])
        except OSError as error:
            fault = f"the worker does not take requests: {error}"
        theirs.close()
        return State(number, 0, ours, view, state.rooted, self._kin), nonce, fault

    def _end_fork(self, state: State, child: State, nonce: bytes, fault: str) -> Task:
        """Wait for the fork's own word, then look whether it is where it should be."""
        if not fault:
            fault = yield from self._parent_word(state, nonce)
        if not fault:
            ready = yield from self._message(child.channel)
            fault = self._admit(child, ready, nonce)
        if self._gate is not None:
            self._gate.settle(child.view.root)
        if fault:
            if child.pid:
                gate.kill(child.pid)
            child.channel.close()
            self._views.drop(child.view)
            return {"error": "SandboxError", "message": f"The fork failed: {fault}"}
        self._enlist(child)
        return child.number

    def _parent_word(self, state: State, nonce: bytes) -> Task:
        answer = yield from self._message(state.channel)
        try:
            parts = wire.split(answer[0]) if answer else []
        except ValueError:
            parts = []
        if not parts or parts[0] != nonce:
            self._kill(state)
            return "its state answered out of turn and was ended"
        return "" if parts[1] == b"forked" else parts[2].decode("utf-8", "replace")

    def _admit(self, child: State, ready: Any, nonce: bytes) -> str:
        if not ready:
            return "it died or did not come up in time"
        data, ancillary = ready
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                child.pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        child.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        if data != wire.fields(nonce, b"ready") or not child.pid:
            return "it gave a wrong word"
        if child.pid in {s.pid for s in self._states.values()}:
            return "it is not a new process"
        if child.rooted and inspection.root_of(child.pid) != child.view.root:
            return "it is not in its own root"
        held = inspection.strayed(child.pid, child.view.root) if child.rooted else ""
        return f"it holds {held}" if held else ""

    def _message(self, channel: socket.socket) -> Task:
        """Wait for one message: (data, ancillary), or None on its end or after a while."""
        promise = Promise()

        def take() -> None:
            try:
                data, ancillary, _, _ = channel.recvmsg(worker.MAX_MESSAGE, 256)
            except OSError:
                data, ancillary = b"", []
            promise.fulfil((data, ancillary) if data else None)

        self._loop.watch(channel.fileno(), take)
        timer = self._loop.after(_READY_S, lambda: promise.fulfil(None))
        answer = yield promise
        self._loop.cancel(timer)
        self._loop.forget(channel.fileno())
        return answer

    def _ping(self, state: State) -> Task:
        state.channel.send(wire.fields(b"ping", b"hello"))
        answer = yield from self._message(state.channel)
        if not answer or answer[0] != wire.fields(b"hello", b"pong"):
            raise Fault("SandboxLost", "The first worker of the tree did not come up.")

    def _cwd_in(self, state: State, view: View) -> str:
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

    def _kill(self, state: State) -> None:
        """End a state and all that runs in it."""
        gate.kill(state.pid)
        if state.busy == "exec":
            return  # the step notices, cleans up and forgets it
        if inspection.newest_pid() != self._clean_pid:
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
        """Collect orphans that ended under us; workers are left to those who wait for them."""
        self._loop.after(1.0, self._reap)
        self._collect()

    def _collect(self) -> None:
        for pid in inspection.processes():
            if pid not in self._kin.pids and inspection.is_dead(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

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

    def _become_worker(
        self, channel: socket.socket, view: View, header: wire.Header, program: bytes
    ) -> None:
        """Give up all that a worker must not have; never returns."""
        try:
            spec = self._spec
            kernel.die_with_parent()
            os.setsid()
            _set_limits(spec)
            if header["landlock"]:
                landlock.restrict(header["read_write"], header["read_only"])
            home = view.home
            if self._views.mode != "copy":
                os.fchdir(view.descriptor)
                os.chroot(".")
            kernel.keep_capabilities(*([kernel.CAP_SYS_CHROOT] if header["gate"] else []))
            os.chdir(home)
            listener = kernel.install_filter(program, listen=header["gate"]) if program else -1
            if listener >= 0:
                socket.send_fds(channel, [b"up"], [listener])
            else:
                channel.send(b"up")
            worker.start(
                channel,
                files=self._views.mode,
                seed=spec["seed"],
            )
        except BaseException as error:  # noqa: BLE001 - said, then the process ends
            os.write(2, f"the first worker failed: {error!r}\n".encode())
        finally:
            os._exit(70)


def _set_limits(spec: wire.Header) -> None:
    memory = spec["memory_mb"] << 20
    written = max(1, spec["workspace_mb"]) << 20
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_NOFILE, 1024),
    ):
        resource.setrlimit(kind, (value, value))
