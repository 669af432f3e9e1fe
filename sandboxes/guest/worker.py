"""A worker: one single-threaded interpreter that runs steps, parks, and is forked.

Parked means blocked in `receive`: the process as it lies there is the snapshot. Everything
used after the first step of untrusted code is bound here beforehand, and this module runs
with its own copy of the builtins, so that code which replaces them breaks only itself.
"""

from __future__ import annotations

import _ast
import _socket
import builtins
import errno
import gc
import io
import linecache
import os
import random
import signal
import socket
import sys
import time
import traceback
import types
from dataclasses import dataclass
from typing import Any

from treegrpo.sandboxes.guest import kernel, wire

CHANNEL = 1000  # the descriptor of the supervisor's channel, out of the way of the code's
NULL = 1001
MAX_MESSAGE = 120_000
_MAX_TEXT = 24_000
_FDS_BYTES = socket.CMSG_SPACE(8 * 4)

_dup2, _close, _open, _read, _lseek = os.dup2, os.close, os.open, os.read, os.lseek
_fork, _waitpid, _execvpe, _exit, _set_inheritable = (
    os.fork,
    os.waitpid,
    os.execvpe,
    os._exit,
    os.set_inheritable,
)
_chroot, _fchdir, _chdir, _setsid = os.chroot, os.fchdir, os.chdir, os.setsid
_times, _perf_counter = os.times, time.perf_counter
_seed = random.seed
# signal.signal is Python code over this: what it calls could be replaced.
_set_handler: Any = sys.modules["_signal"].signal
_SIGCONT, _SIG_DFL = int(signal.SIGCONT), int(signal.SIG_DFL)
_getitimer, _timers = signal.getitimer, (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL)
_fork_sibling, _die_with_parent, _split, _fields = (
    kernel.fork_sibling,
    kernel.die_with_parent,
    wire.split,
    wire.fields,
)
_recvmsg, _send = _socket.socket.recvmsg, _socket.socket.send
_Expression, _Expr, _ONLY_AST = _ast.Expression, _ast.Expr, _ast.PyCF_ONLY_AST
_lines = linecache.cache
_compile, _eval, _exec, _repr, _isinstance = compile, eval, exec, repr, isinstance
_get_objects = gc.get_objects
_open_text: Any = open
_byteorder: Any = sys.byteorder
_stdout: Any = sys.stdout
_stderr: Any = sys.stderr
_write, _dup, _environ = os.write, os.dup, os.environ
_waitstatus_to_exitcode = os.waitstatus_to_exitcode
_extract_tb, _format_list = traceback.extract_tb, traceback.format_list
_format_only = traceback.format_exception_only
_BUFFERED = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)


@dataclass
class Outcome:
    """What a step did, as the worker tells it."""

    kind: str = "ok"
    value: str = ""
    has_value: bool = False
    exception: str = ""
    traceback: str = ""
    exit_code: int = -1


class Worker:
    """The loop of one interpreter; a fork goes on in the same loop with another channel."""

    def __init__(self, channel: socket.socket, *, files: str) -> None:
        """Serve `channel`; `files` is how a fork gets its view: "chroot", "copy" or "none"."""
        self._channel = channel
        self._files = files
        self._steps = 0
        # What the code replaces in its builtins reaches its own modules only.
        copied = types.ModuleType("builtins")
        copied.__dict__.update(vars(builtins))
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = copied
        sys.modules |= {"__main__": main, "builtins": copied}
        self.namespace: dict[str, Any] = main.__dict__

    def serve(self) -> None:
        """Answer requests until the supervisor closes the channel."""
        while True:
            data, descriptors = _receive(self._channel)
            if not data:
                _exit(0)
            request = _split(data)
            if request[0] == b"exec":
                reply = self._step(request, descriptors)
            elif request[0] == b"fork":
                reply = self._divide(request, descriptors)
            else:
                if request[0] == b"seed":
                    self._reseed(request[2])
                reply = _fields(request[1], b"pong")
            _send(self._channel, reply)

    # ------------------------------------------------------------------------------- steps

    def _step(self, request: list[bytes], descriptors: list[int]) -> bytes:
        """Run one step with the given stdin, stdout and stderr; return the reply."""
        nonce, form = request[1], request[2]
        before = _times()
        for target, descriptor in enumerate(descriptors[:3]):
            _dup2(descriptor, target)
            _close(descriptor)
        code = _read_all(descriptors[3])
        self._steps += 1
        if request[3] == b"1":
            sys.stdin = _open_text(0, closefd=False)  # a fresh buffer on the same descriptor
        if form == b"argv":
            outcome = _run_program(_split(code))
        else:
            outcome = self._run_code(code.decode("utf-8", "surrogateescape"))
        self._settle()
        if request[3] == b"1":
            sys.stdin = _open_text(0, closefd=False)
        after = _times()
        spent = sum(after[:4]) - sum(before[:4])
        pending = b"1" if any(_getitimer(timer)[0] for timer in _timers) else b"0"
        return _fields(
            nonce,
            outcome.kind.encode(),
            _short(outcome.value),
            b"1" if outcome.has_value else b"0",
            _short(outcome.exception)[:500],
            _short(outcome.traceback),
            str(outcome.exit_code).encode(),
            b"%.6f" % spent,
            pending,
        )

    def _run_code(self, code: str) -> Outcome:
        """Run code as a REPL does: the last expression's value is the step's value."""
        outcome = Outcome()
        name = f"<step {self._steps}>"
        _lines[name] = (len(code), None, code.splitlines(True), name)
        try:
            tree: Any = _compile(code, name, "exec", _ONLY_AST, dont_inherit=True)
            last = tree.body.pop() if tree.body and _isinstance(tree.body[-1], _Expr) else None
            _exec(_compile(tree, name, "exec", dont_inherit=True), self.namespace)
            if last is not None:
                expression = _Expression(last.value)
                value = _eval(_compile(expression, name, "eval", dont_inherit=True), self.namespace)
                if value is not None:
                    outcome.value, outcome.has_value = _repr(value), True
        except SystemExit as end:
            outcome.kind, outcome.exit_code = "exit", _exit_code(end.code)
            if end.code is not None and not _isinstance(end.code, int):
                _complain(end.code)
        except BaseException as error:  # noqa: BLE001 - whatever the code does is a result
            _describe(error, outcome)
        return outcome

    def _settle(self) -> None:
        """Flush what is buffered, so that no fork writes it a second time."""
        for stream in (sys.stdout, sys.stderr, _stdout, _stderr):
            _flush(stream)
        if _has_more_descriptors():
            for thing in _get_objects():
                if _isinstance(thing, _BUFFERED):
                    _flush(thing)
        for target in (0, 1, 2):
            _dup2(NULL, target)
        _set_handler(_SIGCONT, _SIG_DFL)  # it is how the supervisor wakes us

    # ------------------------------------------------------------------------------- forks

    def _divide(self, request: list[bytes], descriptors: list[int]) -> bytes:
        """Fork; the child takes over the new channel and its own view of the files."""
        nonce = request[1]
        try:
            pid = _fork_sibling()
        except OSError as error:
            for descriptor in descriptors:
                _close(descriptor)
            return _fields(nonce, b"refused", str(error).encode())
        if pid:
            for descriptor in descriptors:
                _close(descriptor)
            return _fields(nonce, b"forked")
        self._enter(request, descriptors)
        if request[3]:
            self._reseed(request[3])
        return _fields(nonce, b"ready")

    def _enter(self, request: list[bytes], descriptors: list[int]) -> None:
        """Become the new state: its channel, its session, its files."""
        _die_with_parent()
        _setsid()
        _dup2(descriptors[0], CHANNEL, False)
        _close(descriptors[0])
        if self._files == "chroot":
            _fchdir(descriptors[1])
            _chroot(".")
            _close(descriptors[1])
        if self._files != "none":
            _chdir(request[2].decode("utf-8", "surrogateescape"))
        for entry in request[4:]:
            _reopen(_split(entry))

    def _reseed(self, seed: bytes) -> None:
        _seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(int.from_bytes(seed[:4], "big"))


def start(channel: socket.socket, *, files: str, seed: int) -> None:
    """Turn this process into a worker and serve; never returns."""
    _dup2(channel.detach(), CHANNEL, False)
    null = _open("/dev/null", os.O_RDWR)
    _dup2(null, NULL, False)
    for target in (0, 1, 2):
        _dup2(NULL, target)
    os.closerange(3, CHANNEL)
    sys.stdin = _open_text(0, closefd=False)
    for stream in (_stdout, _stderr):  # what a step has printed is kept if it is killed
        stream.reconfigure(line_buffering=True)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    for name in [n for n in sys.modules if n == "treegrpo" or n.startswith("treegrpo.")]:
        del sys.modules[name]
    sys.argv = [""]
    sys.path.insert(0, "")  # modules in the workspace are found, as at any prompt
    gc.freeze()
    Worker(socket.socket(fileno=CHANNEL), files=files).serve()


# ------------------------------------------------------------------------------------ pieces


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and the descriptors that came with it."""
    data, ancillary, _, _ = _recvmsg(channel, MAX_MESSAGE, _FDS_BYTES)
    packed = b"".join(value for _, _, value in ancillary)
    order = range(0, len(packed), 4)
    return data, [int.from_bytes(packed[i : i + 4], _byteorder) for i in order]


def _run_program(argv: list[bytes]) -> Outcome:
    """Run a program of the sandbox to its end."""
    pid = _fork()
    if pid == 0:
        try:
            _execvpe(argv[0], argv, _environ)
        except OSError as error:
            _write(2, f"{argv[0].decode('utf-8', 'replace')}: {error.strerror}\n".encode())
        finally:
            _exit(127)
    status = _waitstatus_to_exitcode(_waitpid(pid, 0)[1])
    if status == 0:
        return Outcome(exit_code=0)
    return Outcome(kind="exit", exit_code=status if status > 0 else 128 - status)


def _describe(error: BaseException, outcome: Outcome) -> None:
    """Fill in what the exception was, with the code's own frames only."""
    outcome.kind, outcome.exception = _kind_of(error), type(error).__name__
    try:
        frames = [
            frame
            for frame in _extract_tb(error.__traceback__)
            if frame.filename.startswith("<step ") or frame.filename.startswith("/workspace")
        ]
        lines = ["Traceback (most recent call last):\n", *_format_list(frames)] if frames else []
        outcome.traceback = "".join([*lines, *_format_only(type(error), error)])
    except BaseException:  # noqa: BLE001 - the code can make its exceptions do anything
        outcome.traceback = outcome.exception


def _kind_of(error: BaseException) -> str:
    """Tell the limits of the sandbox from faults of the code."""
    if _isinstance(error, MemoryError):
        return "memory"
    if _isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk"
    if _isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:
        return "pids"
    if _isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "pids"
    return "exception"


def _reopen(entry: list[bytes]) -> None:
    """Put the new view's file of that path behind a descriptor, at the same offset."""
    number, flags, offset = (int(part) for part in entry[:3])
    keep = flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
    inheritable = not flags & os.O_CLOEXEC
    descriptor = _open(entry[3], keep)
    if offset:
        _lseek(descriptor, offset, 0)
    _dup2(descriptor, number, inheritable)
    if descriptor != number:
        _close(descriptor)


def _has_more_descriptors() -> bool:
    """Return whether the code holds files open: the lowest free number tells."""
    lowest = _dup(NULL)
    _close(lowest)
    return lowest > 3


def _complain(words: object) -> None:
    """Say what sys.exit was given, as Python does at its end."""
    try:
        _stderr.write(f"{words}\n")
    except BaseException:  # noqa: BLE001 - the code's own str() may do anything
        _write(2, b"(words that cannot be told)\n")


def _flush(stream: Any) -> None:
    try:  # noqa: SIM105 - contextlib is within reach of the code
        stream.flush()
    except BaseException:  # noqa: BLE001 - closed, replaced or hostile
        pass


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= _MAX_TEXT else data[:_MAX_TEXT] + b" ... (cut)"


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while part := _read(descriptor, 1 << 20):
        parts.append(part)
    _close(descriptor)
    return b"".join(parts)


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if _isinstance(code, int) else 1
