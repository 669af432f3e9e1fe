"""A bounded pool of threads that runs environments while the engine decodes.

Calls wait in one queue; results come back to one caller. A call that takes too long is
abandoned: its caller is told, its thread gets an exception and takes no other call, and a new
thread takes its place. So an environment that hangs costs its own episode and, until it lets
go, one idle thread.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from treegrpo.rollout.timeline import NO_TIMELINE, Timeline


@dataclass(frozen=True)
class Late:
    """What a caller gets instead of a result: the call was abandoned after so many seconds."""

    seconds: float

    @property
    def message(self) -> str:
        """What is told of it."""
        return f"TimeoutError: no answer within {self.seconds:.1f} s"


class _Abandoned(BaseException):
    """Raised inside a thread whose call was given up; no `except Exception` stops it."""


@dataclass(eq=False)
class _Call:
    """One call, from the queue to its result."""

    run: Callable[[], Any]
    then: Callable[[Any], None]
    drop: Callable[[Any], None]
    kind: str
    timeout_s: float | None
    thread: threading.Thread | None = None
    """The thread that runs it; None before and after."""
    began: float = 0.0
    is_abandoned: bool = False
    runner: threading.Thread | None = None
    """The thread that it was taken from when it was abandoned."""
    seconds: float = 0.0
    result: Any = None
    error: BaseException | None = None


@dataclass
class Workers:
    """Threads that run calls.

    Attributes:
        size: threads at most, abandoned ones not counted.
        abandoned: calls given up so far.
        busy_seconds: of all calls that came back.
    """

    size: int
    timeline: Timeline = NO_TIMELINE
    abandoned: int = 0
    busy_seconds: float = 0.0
    _queue: queue.SimpleQueue[_Call | None] = field(
        default_factory=queue.SimpleQueue["_Call | None"]
    )
    _done: queue.SimpleQueue[_Call] = field(default_factory=queue.SimpleQueue["_Call"])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: set[_Call] = field(default_factory=set["_Call"])
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _hanging: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _started: int = 0

    def submit(
        self,
        run: Callable[[], Any],
        then: Callable[[Any], None],
        drop: Callable[[Any], None],
        *,
        kind: str,
        timeout_s: float | None = None,
    ) -> None:
        """Run `run()` in a thread; `collect` will call `then` with its result, or a `Late`.

        Args:
            run: raises nothing that the caller of `collect` should not see.
            then: called by the thread that collects.
            drop: called in the worker's thread with a result that nobody waits for any more
                (None if there is none), to close what it holds.
            kind: one word for the time line.
            timeout_s: seconds from its start after which it is abandoned.
        """
        call = _Call(run, then, drop, kind, timeout_s)
        self._open.add(call)
        if len(self._threads) < min(self.size, len(self._open)):
            self._add_thread()
        self._queue.put(call)

    @property
    def pending(self) -> int:
        """Calls whose result has not been collected."""
        return len(self._open)

    def collect(self, wait_s: float = 0.0) -> int:
        """Hand over all results that are there; return how many.

        Args:
            wait_s: where there is none, wait at most so long for the first.
        """
        deadline = time.perf_counter() + wait_s
        count = 0
        while self._open:
            call = self._next(0.0 if count else deadline - time.perf_counter())
            if call is None:
                count += self._abandon_late()
                if count or time.perf_counter() >= deadline:
                    break
                continue
            if call not in self._open:
                continue  # it was abandoned while it came back
            self._open.discard(call)
            self.busy_seconds += call.seconds
            count += 1
            if call.error is not None:
                raise call.error
            call.then(call.result)
        return count

    def close(self, grace_s: float = 0.0) -> int:
        """Give up what is open, end the threads, and return how many still hang after a grace."""
        with self._lock:
            # Those that no thread has in hand: not begun, or done and not collected.
            waiting = [call for call in self._open if call.thread is None]
            for call in self._open:
                call.is_abandoned = True
                _interrupt(call)
        for call in waiting:
            call.drop(call.result)
        self._open.clear()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.perf_counter() + grace_s
        threads = [*self._threads, *self._hanging]
        for thread in threads:
            thread.join(max(0.0, deadline - time.perf_counter()))
        return sum(thread.is_alive() for thread in threads)

    def _next(self, wait_s: float) -> _Call | None:
        try:
            if wait_s <= 0:
                return self._done.get_nowait()
            return self._done.get(timeout=min(wait_s, 0.05))  # deadlines are looked at in between
        except queue.Empty:
            return None

    def _abandon_late(self) -> int:
        now = time.perf_counter()
        late: list[_Call] = []
        with self._lock:
            for call in self._open:
                if call.thread and call.timeout_s is not None and now - call.began > call.timeout_s:
                    call.is_abandoned, call.runner = True, call.thread
                    _interrupt(call)
                    late.append(call)
        for call in late:
            self._open.discard(call)
            self.abandoned += 1
            self._hanging += [thread for thread in self._threads if thread is call.runner]
            self._threads = [thread for thread in self._threads if thread is not call.runner]
            if self._open:
                self._add_thread()
            call.then(Late(now - call.began))
        return len(late)

    def _add_thread(self) -> None:
        self._started += 1
        name = f"environment {self._started}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        try:
            while (call := self._queue.get()) is not None:
                if self._begin(call) and not self._run(call):
                    return
        except _Abandoned:
            return  # it came after the call it was meant for

    def _begin(self, call: _Call) -> bool:
        """Take up a call; False where it was given up before."""
        with self._lock:
            if call.is_abandoned:
                return False
            call.thread, call.began = threading.current_thread(), time.perf_counter()
            return True

    def _run(self, call: _Call) -> bool:
        """Run a call and hand its result over; False where nobody waits for it."""
        try:
            try:
                with self.timeline.span(call.kind, track="environments"):
                    call.result = call.run()
            except _Abandoned:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again by whoever collects
                call.error = error
            with self._lock:
                call.thread, call.seconds = None, time.perf_counter() - call.began
                if not call.is_abandoned:
                    self._done.put(call)
                    return True
        except _Abandoned:
            pass  # it came when the call had just ended
        call.drop(call.result)
        return False


def _interrupt(call: _Call) -> None:
    """Raise an exception in the call's thread as soon as it runs Python again."""
    if call.thread is not None and call.thread.ident is not None:
        ident = ctypes.c_ulong(call.thread.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_Abandoned))
