"""A stand-in for a sandbox that runs trusted code in this process; it protects nothing.

A state is the list of what was done to reach it, and is played again whenever it is asked.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from treegrpo.sandboxes import FileRefused, Reason, Result, SandboxLost, SandboxSpec

Act = tuple[str, Any, bytes]


class Hang(BaseException):
    """What the fake's `hang()` raises: the step is reported as timed out."""


class Crash(BaseException):
    """What the fake's `crash()` raises: the step is reported as a segmentation fault."""


@dataclass
class FakeBackend:
    """Makes fake sandboxes; `open` counts the handles that nobody closed yet."""

    open: int = 0
    trees: int = 0
    lost: bool = False
    closed: bool = False
    seen: list[str] = field(default_factory=list)

    def close(self) -> None:
        self.closed = True

    def create(self, spec: SandboxSpec) -> Any:  # no Sandbox, but used as one
        self.trees += 1
        if self.lost:
            raise SandboxLost("The supervisor is gone.")
        return FakeSandbox(self, spec, ())


class FakeSandbox:
    """A handle on a state of the fake."""

    def __init__(self, backend: FakeBackend, spec: SandboxSpec, acts: tuple[Act, ...]) -> None:
        self.backend, self.spec, self.acts = backend, spec, acts
        self.closed = False
        backend.open += 1

    def snapshot(self) -> FakeSandbox:
        assert not self.closed
        return FakeSandbox(self.backend, self.spec, self.acts)

    def __deepcopy__(self, memo: dict[int, Any]) -> FakeSandbox:
        return self.snapshot()

    def __enter__(self) -> FakeSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.backend.open -= 1

    @property
    def state_hash(self) -> str:
        return hashlib.sha256(repr(self.acts).encode()).hexdigest()

    def step(
        self, code: str | Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> tuple[FakeSandbox, Result]:
        assert not self.closed
        if self.backend.lost:
            raise SandboxLost("The supervisor is gone.")
        act: Act = ("code", code, stdin) if isinstance(code, str) else ("argv", tuple(code), stdin)
        self.backend.seen.append(repr(act))
        after = FakeSandbox(self.backend, self.spec, (*self.acts, act))
        return after, after._play().result

    def exec(self, code: str) -> Result:
        self.acts = (*self.acts, ("code", code, b""))
        return self._play().result

    def write(self, path: str, data: bytes) -> None:
        if path.startswith("/"):
            raise FileRefused(f"'{path}' asked for; it leads outside.")
        self.backend.seen.append(repr((path, data)))
        self.acts = (*self.acts, ("write", path, data))

    def read(self, path: str, *, max_bytes: int = 2**24) -> bytes:
        files = self._play().files
        if path not in files:
            raise FileRefused(f"'{path}' asked for; there is no such file.")
        return files[path]

    def check(self) -> list[Reason]:
        return [Reason("threads", "one")] if self._play().namespace.get("left_thread") else []

    def _play(self) -> _Play:
        play = _Play()
        for kind, what, data in self.acts:
            if kind == "write":
                play.files[what] = data
            elif kind == "code":
                play.run(lambda what=what: play.interactive(what), b"")
            else:
                play.run(lambda what=what: play.program(what[1]), data)
        return play


class _Play:
    """One interpreter of the fake while it is played."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.namespace: dict[str, Any] = {"__name__": "__main__", "hang": _hang, "crash": _crash}
        self.result = Result("ok")

    def run(self, job: Callable[[], str | None], stdin: bytes) -> None:
        out, err = io.StringIO(), io.StringIO()
        kind: Any = "ok"
        value = exception = told = code = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with mock.patch.object(sys, "stdin", io.StringIO(stdin.decode())):
                    value = job()
            except Hang:
                kind = "timeout"
            except Crash:
                kind = "signal"
            except SystemExit as end:
                kind, code = "exit", int(end.code or 0)
            except Exception as error:  # noqa: BLE001 - it becomes a result
                kind, exception = "exception", type(error).__name__
                told = "".join(traceback.format_exception_only(error))
        self.result = Result(
            kind,
            out.getvalue().encode(),
            err.getvalue().encode(),
            value=value,
            exception=exception,
            traceback=told,
            exit_code=code,
            signal=11 if kind == "signal" else None,
            alive=kind not in ("timeout", "signal"),
        )

    def interactive(self, code: str) -> str | None:
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        last = last if isinstance(last, ast.Expr) else None
        tree.body = tree.body[:-1] if last else tree.body
        with mock.patch("builtins.open", self._open):
            exec(compile(tree, "<step>", "exec"), self.namespace)
            if last is None:
                return None
            value = eval(compile(ast.Expression(last.value), "<step>", "eval"), self.namespace)
        return None if value is None else repr(value)

    def program(self, path: str) -> None:
        source = self.files[path]
        exec(compile(source, path, "exec"), {"__name__": "__main__"})

    def _open(self, path: str, mode: str = "r") -> Any:
        if "w" not in mode:
            return io.StringIO(self.files[path].decode())
        return _Written(self.files, path)


class _Written(io.StringIO):
    def __init__(self, files: dict[str, bytes], path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        self._files[self._path] = self.getvalue().encode()
        super().close()


def _hang() -> None:
    raise Hang


def _crash() -> None:
    raise Crash
