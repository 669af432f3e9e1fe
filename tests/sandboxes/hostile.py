"""What the tests with hostile code share: a host that suits, forks, and patience that ends."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

import pytest

from treegrpo.sandboxes import Backend, Level, Sandbox, SandboxError, open_backend
from treegrpo.sandboxes.conformance.case import PATIENCE_S
from treegrpo.sandboxes.conformance.leaks import descendants

T = TypeVar("T")

# Code that finds the worker's own globals: `code[...]` replaces what the worker goes by.
FIND_WORKER = """
import gc, os, select, time
w = [o for o in gc.get_objects() if type(o).__name__ == "Worker"][0]
code = type(w)._enter.__globals__
me = os.getpid()
"""


@contextmanager
def backend_at(least: Level, *, level: Level | None = None) -> Iterator[Backend]:
    """Yield a process backend; skips a host that gives less than `least`."""
    with open_backend("process") as probed:
        found = probed.probe()
        if found.level < least:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in found.missing())
            pytest.skip(f"{least.name} is needed, the host gives {found.level.name}: {reasons}")
        if level is None:
            yield probed
            return
    with open_backend("process", level=level) as backend:
        yield backend


def fork_of(sandbox: Sandbox) -> Sandbox:
    """Return one fork, which must be made."""
    (made,) = sandbox.fork()
    assert isinstance(made, Sandbox), made
    return made


def fork_with_pid(sandbox: Sandbox) -> tuple[Sandbox, int]:
    """Return one fork and its worker's process, as this host numbers it."""
    before = descendants()
    made = fork_of(sandbox)
    (pid,) = descendants() - before
    return made, pid


def runs(sandbox: Sandbox, text: str, **options: Any) -> str | None:
    """Return the value of code that must run to its end."""
    result = sandbox.exec(text, **options)
    assert result.ok, result
    return result.value


def later(call: Callable[[], T]) -> Future[T]:
    """Return what `call` will return or raise; its thread holds nobody up at the end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  handed on to who asks
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def within(call: Callable[[], T]) -> T:
    """Return what `call` returns; fails the test if it hangs."""
    try:
        return later(call).result(PATIENCE_S)
    except TimeoutError:
        pytest.fail(f"no answer within {PATIENCE_S} s")


def answers(call: Callable[[], T]) -> T | SandboxError:
    """Return what `call` returns, or the typed error that it raises, in time."""
    try:
        return within(call)
    except SandboxError as error:
        return error
