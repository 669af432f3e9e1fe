"""A small event loop: descriptors, timers, and tasks written as generators.

The supervisor is forked into many trees, so it stays free of asyncio's weight.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import select
import time
from collections.abc import Callable, Generator
from typing import Any

Task = Generator["Promise", Any, Any]


class Promise:
    """A value that comes later; one task may wait for it."""

    def __init__(self) -> None:
        """Start without a value."""
        self.done = False
        self.value: Any = None
        self._waiting: Callable[[Any], None] | None = None

    def fulfil(self, value: Any) -> None:
        """Give the value, once; later values are dropped."""
        if self.done:
            return
        self.done, self.value = True, value
        if self._waiting is not None:
            self._waiting(value)

    def then(self, call: Callable[[Any], None]) -> None:
        """Call with the value, now if it is there."""
        if self.done:
            call(self.value)
        else:
            self._waiting = call


class Loop:
    """Runs callbacks of descriptors and timers until stopped."""

    def __init__(self) -> None:
        """Start with nothing to watch."""
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self.running = True

    def watch(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call when `descriptor` can be read."""
        self._calls[descriptor] = call
        self._poll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """Stop watching; nothing happens if it was not watched."""
        if self._calls.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        """Call once after `seconds`; returns a key for `cancel`."""
        key = next(self._order)
        bisect.insort(self._timers, (time.monotonic() + seconds, key, call))
        return key

    def cancel(self, key: int) -> None:
        """Take a timer back; nothing happens if it has fired."""
        self._timers = [timer for timer in self._timers if timer[1] != key]

    def start(self, task: Task) -> Promise:
        """Run a task to its first wait; the promise gets what it returns."""
        result = Promise()

        def advance(value: Any) -> None:
            try:
                task.send(value).then(advance)
            except StopIteration as end:
                result.fulfil(end.value)

        advance(None)
        return result

    def run(self) -> None:
        """Serve until `running` is set to False."""
        while self.running:
            for descriptor, _ in self._poll.poll(self._wait()):
                call = self._calls.get(descriptor)
                if call is not None:
                    self._guarded(call)
            self._fire()

    def _guarded(self, call: Callable[[], object]) -> None:
        """Run a callback; what goes wrong with one process must not end the others'."""
        try:
            call()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(2, f"{call!r}: {error!r}\n".encode())

    def _wait(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _fire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._guarded(self._timers.pop(0)[2])
