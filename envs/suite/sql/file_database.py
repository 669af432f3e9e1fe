"""A stranger's SQLite file as a database to read: in memory, guarded, never changed.

The file's bytes are read once and handed to SQLite, which never sees the file: it can write
nothing, follow no journal and open no other file. An image may be crafted to do harm, so
virtual tables are refused, views cannot call functions of ours, the sizes of cells are checked
and statements run under the guard, with limits for larger data. Nothing changes, so all
episodes and forks share one connection.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from treegrpo.envs.errors import SnapshotUnsupported
from treegrpo.envs.records import DataFile
from treegrpo.envs.suite.sql.database import Cell, Database, Result, connect, shown
from treegrpo.envs.suite.sql.files import read_bytes
from treegrpo.envs.suite.sql.guard import FUNCTIONS, Guard, SQLError

MAX_FILE_BYTES = 512 * 1024**2
"""The largest database file that is read: it is held in memory."""
MAX_FILE_STEPS = 50_000_000
"""Virtual-machine steps one statement may take: some seconds of plain scans and joins."""
MAX_GROWTH_BYTES = 2 * 1024**3
"""How much the process may grow under one statement; measured where /proc tells it."""
MAX_SECONDS = 30.0
"""How long one statement may take: a single step on long texts can be slow."""
MAX_VALUE_BYTES = 65_536
MAX_NOTE_CHARS = 160
_STEPS_PER_TICK = 100
_TICKS_PER_LOOK = 10
_MAX_DATES = 1_024
_HEADER = b"SQLite format 3\x00"
_HEADER_BYTES = 100
# Sorting in memory, where the guard sees it grow; on disk it would fill that.
_PRAGMAS = (
    "query_only = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "temp_store = MEMORY",
)
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)
MAX_SQL_BYTES = 10_000
"""The longest statement, the gold query's included."""
_DATES = ("date", "time", "datetime", "julianday", "strftime")
_CLOCK_WORDS = ("now", "subsec", "subsecond", "localtime", "utc")
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_STATM = Path("/proc/self/statm")
Notes = Mapping[str, Mapping[str, str]]
"""Per table and column, both in lower case, what the data set says about it."""


class FileDatabase(Database):
    """A read-only database; made by `load_database`."""

    ROW_LIMIT: ClassVar[int] = 20_000

    def __init__(self, image: bytes, notes: Notes) -> None:
        """Open the image at once.

        Raises:
            sqlite3.Error: SQLite cannot read it.
            ValueError: it has virtual tables.
        """
        super().__init__(image)
        self._notes = notes
        # Episodes of several threads may share this object; a connection runs one statement.
        self._lock = threading.RLock()
        self._clock = connect()
        try:
            self._connection = self._connected(image)
        except BaseException:
            self._clock.close()
            raise
        self._image = None  # SQLite has its own copy

    def execute(self, sql: str, *, max_rows: int = ROW_LIMIT, read_only: bool = True) -> Result:
        """Run one SELECT and return what it gave; any other statement is refused."""
        with self._lock:
            return super().execute(sql, max_rows=max_rows, read_only=True)

    def tables(self) -> list[str]:
        """Return the names of the tables, those of SQLite's own left out."""
        with self._lock:
            return [name for name in super().tables() if not name.startswith("sqlite_")]

    def describe(self, table: str) -> str:
        """Return the table's columns in one line, and a line per column that has a note."""
        with self._lock:
            line = super().describe(table)
            notes = self._notes.get(table.lower(), {})
            columns = [name for name in self.columns(table) if notes.get(name.lower())]
        texts = [_one_line(notes[name.lower()]) for name in columns]
        cut = [t if len(t) <= MAX_NOTE_CHARS else t[:MAX_NOTE_CHARS] + "..." for t in texts]
        lines = [f"{shown(name)}: {text}" for name, text in zip(columns, cut, strict=True)]
        return "\n".join((_one_line(line), *map(_one_line, lines)))

    def image(self) -> bytes:
        """Refuse: the file is what there is, and episodes keep only what was submitted."""
        raise SnapshotUnsupported(["a database file is shared, not copied"])

    def close(self) -> None:
        """Drop the connections; the database cannot be used again."""
        self._clock.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if hasattr(self, "_clock"):
            self.close()

    def _connected(self, image: bytes) -> sqlite3.Connection:
        connection = connect()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            connection.deserialize(image)
            for limit, value in _LIMITS:
                connection.setlimit(limit, value)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            tables = "SELECT sql, rootpage FROM sqlite_schema WHERE type = 'table'"
            if any(_is_virtual(str(sql)) or not page for sql, page in connection.execute(tables)):
                raise ValueError("it has virtual tables")
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)
            self._guard = _FileGuard(MAX_FILE_STEPS, _STEPS_PER_TICK, FUNCTIONS | set(_DATES))
            for name in _DATES:
                connection.create_function(name, -1, _clockless(name, self._guard, self._clock))
            connection.set_authorizer(self._guard.authorize)
            connection.set_progress_handler(self._guard.tick, _STEPS_PER_TICK)
            on_failure.pop_all()
        return connection


class _FileGuard(Guard):
    """A guard that stops a statement by memory and seconds, too.

    Long values times many steps are much of both. Unlike steps, these depend on the machine and
    on what else the process does: a statement that comes near them may be answered here and
    stopped there, and its episode then does not replay.
    """

    _start_bytes, _start_s = 0, 0.0

    def begin(self, *, may_write: bool) -> None:
        super().begin(may_write=may_write)
        self._start_bytes, self._start_s = _resident_bytes(), time.monotonic()

    def tick(self) -> int:
        if self.active and self.ticks % _TICKS_PER_LOOK == 0:
            if _resident_bytes() - self._start_bytes > MAX_GROWTH_BYTES:
                self.denied = "stopped: it takes too much memory"
            elif time.monotonic() - self._start_s > MAX_SECONDS:
                self.denied = "stopped: it takes too long"
        return super().tick() or int(self.active and bool(self.denied))


def load_database(file: DataFile, notes: Notes) -> FileDatabase:
    """Return the database of a file.

    Raises:
        DataFileError: no SQLite database, or one that cannot be read as it stands.
    """
    check_header(file)
    image = read_bytes(file)
    page_bytes = int.from_bytes(image[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    # The header's count of pages is valid only where these two counters agree.
    if image[24:28] == image[92:96]:
        wanted = page_bytes * int.from_bytes(image[28:32], "big")
        if wanted > len(image):
            found = f"it is cut short: {len(image)} bytes of {wanted}"
            raise file.error(found, "Fetch the file again.")
    try:
        return FileDatabase(image, notes)
    except (sqlite3.Error, ValueError, OverflowError, MemoryError) as error:
        raise file.error(f"SQLite cannot read it ({error})", "Fetch the file again.") from error


def check_header(file: DataFile) -> None:
    """Raise DataFileError unless the file looks like a whole, closed SQLite database."""
    head = read_bytes(file, first=_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(_HEADER):
        raise file.error("it is no SQLite database", "Fetch the file again.")
    if 2 in (head[18], head[19]):
        found = "it is in WAL mode, so a part of it may be in another file"
        raise file.error(found, "Run PRAGMA journal_mode = DELETE on it first.")
    journal = file.path.with_name(f"{file.path.name}-journal")
    if journal.exists() and journal.stat().st_size:
        found = f"a transaction on it was never finished ('{journal.name}')"
        raise file.error(found, "Open it once with sqlite3 to roll it back.")


def _clockless(name: str, guard: Guard, inner: sqlite3.Connection) -> Callable[..., Cell]:
    """Return SQLite's date function of a name, without its ways to ask the clock."""
    least = 2 if name == "strftime" else 1

    def call(*values: Cell) -> Cell:
        if len(values) < least or any(map(_asks_clock, values)):
            guard.denied = "the current time is not available"
            raise SQLError(guard.denied)
        marks = ", ".join("?" * len(values))
        return inner.execute(f"SELECT {name}({marks})", values).fetchone()[0]

    # A column holds the same day many times, and a call back from SQLite is slow.
    return functools.lru_cache(_MAX_DATES, typed=True)(call)


def _is_virtual(sql: str) -> bool:
    """Return whether a statement of a schema makes a virtual table, spelled in whatever way."""
    head = re.split("table", _COMMENT.sub(" ", sql), maxsplit=1, flags=re.IGNORECASE)[0]
    return "virtual" in head.lower()


def _asks_clock(value: Cell) -> bool:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    # SQLite reads up to the first NUL.
    return isinstance(text, str) and text.partition("\0")[0].lower() in _CLOCK_WORDS


def _resident_bytes() -> int:
    """Return the memory that this process holds, or 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _one_line(text: str) -> str:
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
