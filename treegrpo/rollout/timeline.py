"""What happened when: spans and counters as a trace file for Perfetto or chrome://tracing.

    timeline = Timeline()
    with timeline.span("decode", track="engine", rows=12):
        ...
    timeline.counter("live nodes", 37)
    timeline.write(Path("trace.json"))

A track is one row of the picture, or several: spans of different threads that overlap on a
track get rows of their own ("environment", "environment 2"), since the spans of one row have
to nest. The file is the JSON object form of the trace event format: complete ("X"), instant
("i") and counter ("C") events, and metadata ("M") that names the rows.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from treegrpo.runfolder import write_text

Value: TypeAlias = str | int | float | bool | None
"""What is told about a span or an instant; a number that is not finite is written as text."""

_PROCESS = "treegrpo"
_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass
class _Row:
    """One row of a track: who has spans open on it, and how many."""

    number: int
    name: str
    owner: int = 0
    open: int = 0


class _Event(NamedTuple):
    """Something that happened; times in nanoseconds from the start of the time line."""

    phase: str
    name: str
    row: int
    start_ns: int
    length_ns: int
    told: dict[str, Value]

    def as_json(self, pid: int) -> dict[str, Any]:
        """Return the event in the trace event format, whose times are in microseconds."""
        event: dict[str, Any] = {
            "ph": self.phase,
            "name": self.name,
            "pid": pid,
            "tid": self.row,
            "ts": self.start_ns / 1000,
            "args": {key: _writable(value) for key, value in self.told.items()},
        }
        if self.phase == "X":
            event["dur"] = self.length_ns / 1000
        elif self.phase == "i":
            event["s"] = "t"  # drawn on its row only
        return event


class Timeline:
    """Records what any number of threads do; all methods may be called from all of them."""

    def __init__(self, *, max_events: int = 1_000_000) -> None:
        """Start now; what comes after `max_events` is counted and left out of the file."""
        self._started_ns = time.perf_counter_ns()
        self._lock = threading.Lock()
        self._tracks: dict[str, list[_Row]] = {}
        self._num_rows = 0
        self._events: list[_Event] = []
        self._max_events, self._left_out = max_events, 0

    def span(
        self, name: str, *, track: str = "main", **told: Value
    ) -> AbstractContextManager[None]:
        """Return a context whose time inside becomes one span, also when it raises.

        Args:
            name: what is done.
            track: where it is drawn.
            told: shown when the span is selected.
        """
        return self._spanning(name, track, told)

    def instant(self, name: str, *, track: str = "main", **told: Value) -> None:
        """Record a moment on a track."""
        now_ns = self._now_ns()
        with self._lock:
            self._add(_Event("i", name, self._row(track).number, now_ns, 0, told))

    def counter(self, name: str, value: float) -> None:
        """Record what a quantity is from now on; one that is not finite leaves no sample."""
        if math.isfinite(value):
            now_ns = self._now_ns()
            with self._lock:
                self._add(_Event("C", name, 0, now_ns, 0, {"value": value}))

    def write(self, path: Path) -> None:
        """Write what has ended so far, whole or not at all; recording may go on.

        Raises:
            RunFolderError: the file cannot be written.
        """
        with self._lock:
            events, left_out = list(self._events), self._left_out
            rows = [row for track in self._tracks.values() for row in track]
        # In order of time, and what contains before what is contained.
        events.sort(key=lambda event: (event.start_ns, -event.length_ns))
        pid = os.getpid()
        lines = [*_names(rows, pid), *(event.as_json(pid) for event in events)]
        content = {
            "traceEvents": lines,
            "displayTimeUnit": "ms",
            "otherData": {"events_left_out": left_out},
        }
        write_text(path, json.dumps(content, allow_nan=False))

    def _now_ns(self) -> int:
        return time.perf_counter_ns() - self._started_ns

    @contextmanager
    def _spanning(self, name: str, track: str, told: dict[str, Value]) -> Generator[None]:
        row, start_ns = self._open(track)
        try:
            yield
        except BaseException as error:
            told = {**told, "raised": type(error).__name__}
            raise
        finally:
            self._close(row, name, start_ns, told)

    def _open(self, track: str) -> tuple[_Row, int]:
        """Return the row of a span that begins, and its time."""
        with self._lock:
            row = self._row(track)
            row.owner, row.open = threading.get_ident(), row.open + 1
            return row, self._now_ns()

    def _close(self, row: _Row, name: str, start_ns: int, told: dict[str, Value]) -> None:
        """Record a span that ends."""
        with self._lock:
            row.open -= 1
            length_ns = self._now_ns() - start_ns
            self._add(_Event("X", name, row.number, start_ns, length_ns, told))

    def _row(self, track: str) -> _Row:
        """Return the row this thread has spans open on, or the first that nobody has."""
        rows, me = self._tracks.setdefault(track, []), threading.get_ident()
        for row in rows:
            if row.open and row.owner == me:
                return row
        for row in rows:
            if not row.open:
                return row
        self._num_rows += 1
        name = f"{track} {len(rows) + 1}" if rows else track
        rows.append(_Row(self._num_rows, name))
        return rows[-1]

    def _add(self, event: _Event) -> None:
        if len(self._events) < self._max_events:
            self._events.append(event)
        else:
            self._left_out += 1


class _NoTimeline(Timeline):
    """Records nothing and writes nothing."""

    def span(
        self, name: str, *, track: str = "main", **told: Value
    ) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return _NOTHING

    def instant(self, name: str, *, track: str = "main", **told: Value) -> None:
        """Do nothing."""

    def counter(self, name: str, value: float) -> None:
        """Do nothing."""

    def write(self, path: Path) -> None:
        """Write nothing."""


NO_TIMELINE: Timeline = _NoTimeline()
"""What is passed where no trace was asked for."""


def _names(rows: list[_Row], pid: int) -> list[dict[str, Any]]:
    """Return the metadata that names the process and its rows, in order of first use."""
    facts: list[tuple[str, int, dict[str, Value]]] = [("process_name", 0, {"name": _PROCESS})]
    for row in rows:
        facts.append(("thread_name", row.number, {"name": row.name}))
        facts.append(("thread_sort_index", row.number, {"sort_index": row.number}))
    return [
        {"ph": "M", "name": name, "pid": pid, "tid": row, "args": args} for name, row, args in facts
    ]


def _writable(value: Value) -> Value:
    """Return the value, as text where JSON has no number for it."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
