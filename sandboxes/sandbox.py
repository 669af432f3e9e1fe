"""The handles: Sandbox for blocking callers, AsyncSandbox for asyncio.

A handle points to a state: a live interpreter and its files. Handles share a state as long as
nobody changes it; the first change on one of them forks. So `snapshot` costs nothing, and
`copy.deepcopy(sandbox)` is a snapshot.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from treegrpo.sandboxes.base import MIB, Entry, Level, Result
from treegrpo.sandboxes.errors import (
    Reason,
    SandboxBusy,
    SandboxClosed,
    SandboxError,
    SnapshotUnsupported,
)
from treegrpo.sandboxes.guest.wire import fields
from treegrpo.sandboxes.history import Action, History
from treegrpo.sandboxes.tree import Script, State, Tree, drive

if TYPE_CHECKING:
    from treegrpo.sandboxes.backend import Backend

_MOST_SECONDS = 86_400

T = TypeVar("T")
U = TypeVar("U")


class _Handle:
    """What both handles share: the state pointed to, and every operation as a script.

    One operation at a time runs on one handle; for concurrent work take a handle each.
    """

    def __init__(self, backend: Backend, tree: Tree, state: State) -> None:
        """Point to a state of a tree."""
        self._backend, self._tree = backend, tree
        self._lock = threading.Lock()
        self._state = tree.hold(state)
        self._cell = [self._state]
        self._finalizer = weakref.finalize(self, backend.drop_later, tree, self._cell)
        self._finalizer.atexit = False  # all ends with the process; a forked one owns nothing

    @property
    def alive(self) -> bool:
        """Whether code can run in it."""
        return not self._state.dead and self._finalizer.alive and not self._tree.closed

    @property
    def state_hash(self) -> str:
        """Hex SHA-256 over the whole history that made this state.

        Equal histories, equal hashes; states that came to be equal by other ways differ.
        """
        return self._state.history.hash.hex()

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done to reach this state, oldest first."""
        return self._state.history.actions()

    @property
    def level(self) -> Level:
        """The isolation level that holds here."""
        return self._tree.level

    @property
    def tree(self) -> Tree:
        """The tree this state belongs to."""
        return self._tree

    def _close(self) -> None:
        if self._finalizer.detach():
            self._tree.let_go(self._cell[0])

    @contextmanager
    def _claim(self) -> Generator[None]:
        if not self._finalizer.alive or self._tree.closed:
            raise SandboxClosed("This sandbox has been closed; use another handle or a new one.")
        if not self._lock.acquire(blocking=False):
            raise SandboxBusy(
                "Another operation is running on this sandbox. Wait for it, or use a handle of "
                "its own (snapshot() or fork()) for each thread."
            )
        self._tree.pin(self._state, 1)
        try:
            yield
        finally:
            self._tree.pin(self._state, -1)
            self._lock.release()

    def _point_to(self, state: State) -> None:
        if state is self._state:
            return
        old, self._state = self._state, self._tree.hold(state)
        self._tree.pin(state, 1)
        self._tree.pin(old, -1)
        self._cell[0] = state
        self._tree.let_go(old)

    # ------------------------------------------------------------------------------- scripts

    def _exec(
        self, code: str | Sequence[str], stdin: bytes, timeout_s: float | None
    ) -> Script[Result]:
        with self._claim():
            result = yield from self._act(self._action(code, stdin, timeout_s))
            assert result is not None  # code and argv always have one
            return result

    def _act(self, action: Action) -> Script[Result | None]:
        tree = self._tree
        self._point_to((yield from tree.own(self._state)))
        state = self._state
        assert state.number is not None  # own() returns live states
        state.checked = False
        result, outcome = yield from tree.perform(state.number, action)
        state.history = state.history.then(action, outcome)
        if result is not None and not result.alive:
            state.dead = True
        return result

    def _action(self, code: str | Sequence[str], stdin: bytes, timeout_s: float | None) -> Action:
        limit = self._tree.spec.limits.timeout_s if timeout_s is None else timeout_s
        _check_step(code, stdin, limit)
        if isinstance(code, str):
            return Action("code", _encode(code), stdin=stdin, timeout_s=limit)
        argv = fields(*(_encode(word) for word in code))
        return Action("argv", argv, stdin=stdin, timeout_s=limit)

    def _change(self, action: Action) -> Script[None]:
        with self._claim():
            yield from self._act(action)

    def _read(self, path: str | os.PathLike[str], max_bytes: int) -> Script[bytes]:
        with self._claim():
            number = yield from self._tree.living(self._state)
            header = {"state": number, "path": os.fspath(path), "max_bytes": max_bytes}
            _, data = yield self._tree.request("read", **header)
            return data

    def _list(self, path: str | os.PathLike[str]) -> Script[list[Entry]]:
        with self._claim():
            number = yield from self._tree.living(self._state)
            answer, _ = yield self._tree.request("list", state=number, path=os.fspath(path))
            return [Entry(**entry) for entry in answer["entries"]]

    def _snapshot(self) -> Script[State]:
        with self._claim():
            yield from self._tree.check(self._state)
            return self._state

    def _check(self) -> Script[list[Reason]]:
        with self._claim():
            if self._state.dead:
                return [Reason("dead", "its interpreter has ended")]
            number = yield from self._tree.living(self._state)
            answer, _ = yield self._tree.request("check", state=number)
            return [Reason(kind, detail) for kind, detail in answer["reasons"]]

    def _fork(self, n: int) -> Script[list[State | SandboxError]]:
        if type(n) is not int or n < 1:
            raise SandboxError(f"{n!r} forks were asked for; ask for 1 or more.")
        with self._claim():
            return (yield from self._tree.fork(self._state, n))

    def _evict(self) -> Script[None]:
        with self._claim():
            yield from self._tree.evict(self._state)


class Sandbox(_Handle):
    """A live Python interpreter with a workspace of files, forkable at any depth.

        with open_backend("process") as backend:
            sandbox = backend.create()
            sandbox.exec("x = 1")
            left, right = sandbox.fork(2)
            left.exec("x += 1")           # right still has x == 1

    The failures of the code come back in the Result; SandboxError is raised for ours.
    """

    def exec(
        self, code: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> Result:
        """Return what running `code` did.

        Args:
            code: Python for the live interpreter, or the argv of a program.
            stdin: what it can read.
            timeout_s: wall clock; None takes the specification's.
        """
        return drive(self._exec(code, stdin, timeout_s))

    def read(self, path: str | os.PathLike[str], *, max_bytes: int = 16 * MIB) -> bytes:
        """Return a file's content; relative paths start at the workspace.

        Raises:
            FileRefused: missing, no regular file, or larger than `max_bytes`.
        """
        return drive(self._read(path, max_bytes))

    def write(self, path: str | os.PathLike[str], data: bytes) -> None:
        """Make or replace a file; directories above it are made."""
        drive(self._change(_writing(path, data)))

    def remove(self, path: str | os.PathLike[str]) -> None:
        """Delete a file, a symlink or an empty directory."""
        drive(self._change(Action("remove", path=os.fspath(path))))

    def list(self, path: str | os.PathLike[str] = ".") -> list[Entry]:
        """Return what is in a directory, sorted by name."""
        return drive(self._list(path))

    def snapshot(self) -> Sandbox:
        """Return a second handle on this very state; whoever changes it first forks it.

        Raises:
            SnapshotUnsupported: the state cannot be forked, with the reasons.
        """
        return self._handle(drive(self._snapshot()))

    def fork(self, n: int = 1) -> list[Sandbox | SandboxError]:
        """Return n new live states; each fork succeeds or fails for itself.

        Raises:
            SnapshotUnsupported: the state cannot be forked, with the reasons.
        """
        made = drive(self._fork(n))
        return [s if isinstance(s, SandboxError) else self._handle(s) for s in made]

    def step(
        self, code: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> tuple[Sandbox, Result]:
        """Return a new sandbox in which `code` ran, and what it did; self stays as it was."""
        after = self.snapshot()
        return after, after.exec(code, stdin=stdin, timeout_s=timeout_s)

    def check(self) -> list[Reason]:
        """Return why this state could not be forked now; [] if it could."""
        return drive(self._check())

    def evict(self) -> None:
        """Drop the process; it comes back by verified replay when it is needed."""
        drive(self._evict())

    def close(self) -> None:
        """Give the handle back; the last one of a tree ends the tree. May be called twice."""
        self._close()

    def _handle(self, state: State) -> Sandbox:
        return Sandbox(self._backend, self._tree, state)

    def __copy__(self) -> Sandbox:
        """Return a snapshot."""
        return self.snapshot()

    def __deepcopy__(self, memo: dict[int, Any]) -> Sandbox:
        """Return a snapshot."""
        return self.snapshot()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the portable form: the history, replayed and verified where it is opened."""
        from treegrpo.sandboxes.portable import revive, steps_of

        if self._state.dead:
            raise SnapshotUnsupported([Reason("dead", "its interpreter has ended")])
        history: History = self._state.history
        facts = (self._backend.name, self._backend.options, self._tree.spec.model_dump_json())
        return revive, (*facts, steps_of(history))

    def __enter__(self) -> Self:
        """Return the sandbox itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class AsyncSandbox(_Handle):
    """The same sandbox for asyncio: every operation that talks to it is awaited."""

    async def exec(
        self, code: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> Result:
        """Return what running `code` did; see Sandbox.exec."""
        return await _drive(self._exec(code, stdin, timeout_s), _same)

    async def read(self, path: str | os.PathLike[str], *, max_bytes: int = 16 * MIB) -> bytes:
        """Return a file's content; see Sandbox.read."""
        return await _drive(self._read(path, max_bytes), _same)

    async def write(self, path: str | os.PathLike[str], data: bytes) -> None:
        """Make or replace a file."""
        await _drive(self._change(_writing(path, data)), _same)

    async def remove(self, path: str | os.PathLike[str]) -> None:
        """Delete a file, a symlink or an empty directory."""
        await _drive(self._change(Action("remove", path=os.fspath(path))), _same)

    async def list(self, path: str | os.PathLike[str] = ".") -> list[Entry]:
        """Return what is in a directory."""
        return await _drive(self._list(path), _same)

    async def snapshot(self) -> AsyncSandbox:
        """Return a second handle on this very state; see Sandbox.snapshot."""
        return await _drive(self._snapshot(), self._handle)

    async def fork(self, n: int = 1) -> list[AsyncSandbox | SandboxError]:
        """Return n new live states; see Sandbox.fork."""
        return await _drive(self._fork(n), self._handles)

    async def step(
        self, code: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> tuple[AsyncSandbox, Result]:
        """Return a new sandbox in which `code` ran, and what it did."""
        after = await self.snapshot()
        return after, await after.exec(code, stdin=stdin, timeout_s=timeout_s)

    async def check(self) -> list[Reason]:
        """Return why this state could not be forked now."""
        return await _drive(self._check(), _same)

    async def evict(self) -> None:
        """Drop the process; it comes back by verified replay."""
        await _drive(self._evict(), _same)

    async def close(self) -> None:
        """Give the handle back; see Sandbox.close."""
        await asyncio.to_thread(self._close)

    def _handles(self, made: list[State | SandboxError]) -> list[AsyncSandbox | SandboxError]:
        return [s if isinstance(s, SandboxError) else self._handle(s) for s in made]

    def _handle(self, state: State) -> AsyncSandbox:
        return AsyncSandbox(self._backend, self._tree, state)

    async def __aenter__(self) -> Self:
        """Return the sandbox itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()


async def _drive(script: Script[T], finish: Callable[[T], U]) -> U:
    """Run a script to its end, awaiting each answer, and finish with what it returns.

    A step that was begun goes on where it runs; so a caller that is cancelled leaves the
    script to finish by itself, or the handle would not know what became of its state.
    """
    return await asyncio.shield(asyncio.ensure_future(_run(script, finish)))


async def _run(script: Script[T], finish: Callable[[T], U]) -> U:
    try:
        request = next(script)
        while True:
            future = request.connection.future(request.op, request.blob, **request.header)
            try:
                answer = await asyncio.wrap_future(future)
            except SandboxError as error:
                request = script.throw(error)
            else:
                request = script.send(answer)
    except StopIteration as end:
        return finish(end.value)


def _same(value: T) -> T:
    return value


def _writing(path: str | os.PathLike[str], data: object) -> Action:
    if not isinstance(data, bytes):
        raise SandboxError(f"write() was given {type(data).__name__}; give bytes.")
    return Action("write", data, os.fspath(path))


def _check_step(code: object, stdin: object, timeout_s: object) -> None:
    """Refuse what cannot be meant, before anything is sent."""
    words = cast("Sequence[object]", code) if isinstance(code, (list, tuple)) else ()
    if not isinstance(code, str) and not (words and all(isinstance(w, str) for w in words)):
        raise SandboxError(
            f"exec() was given {code!r}; give Python code as a str, or a program and its "
            "arguments as a list of str."
        )
    if not isinstance(stdin, bytes):
        raise SandboxError(f"stdin was given as {type(stdin).__name__}; give bytes.")
    usable = isinstance(timeout_s, (int, float)) and 0 < timeout_s <= _MOST_SECONDS
    if not usable:
        raise SandboxError(f"timeout_s={timeout_s!r} was asked for; give 0 to {_MOST_SECONDS} s.")


def _encode(text: str) -> bytes:
    """Return UTF-8; half characters, which are none, go through for Python to refuse."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
