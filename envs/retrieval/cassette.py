"""A cassette: replies by request, in one SQLite file that many threads and processes share.

An entry is written once and never changed: whoever comes second with the same request gets
the first one's reply, so what an agent saw stays what its siblings and its replays see. Each
call opens the file anew and holds nothing afterwards, so the object may be shared between
threads, pickled, and carried over os.fork().
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from treegrpo.envs.digest import digest
from treegrpo.envs.errors import DataFileError, suggest
from treegrpo.envs.retrieval.base import RetrievalFailed

CassetteMode = Literal["auto", "record", "replay"]
Request = Mapping[str, str | int]
_FORMAT = 1
_APPLICATION = 0x74677263  # "tgrc", by which the file is known as a cassette
_BUSY_S = 30.0
MAX_REPLY_CHARS = 4_000_000
_TABLE = (
    "CREATE TABLE replies "
    "(key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL) WITHOUT ROWID"
)


class Cassette:
    """The replies kept in one file.

    Args:
        path: of the file; made with its first use unless `writes` is False.
        writes: whether replies may be added.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Open the file once, to find out now whether it will do.

        Raises:
            DataFileError: no file where one is only read, no folder, or no cassette.
        """
        self.path, self.writes = Path(path), writes
        if not writes and not self.path.is_file():
            folder = self.path.parent
            near = suggest(self.path.name, [p.name for p in folder.glob("*")])
            raise self._error(
                f"there is no such file.{near} Record it first with cassette_mode='auto'."
            )
        if not self.path.parent.is_dir():
            raise self._error(f"there is no folder '{self.path.parent}'. Make it first.")
        try:
            with self._connection() as connection:
                self._prepare(connection)
        except sqlite3.Error as error:
            raise self._error(
                f"it is no cassette, or cannot be used ({error}). Name another file."
            ) from error

    def find(self, request: Request) -> str | None:
        """Return the reply to a request, or None if it was never recorded.

        Raises:
            RetrievalFailed: the file cannot be read any more.
        """
        with self._guarded() as connection:
            query = "SELECT reply FROM replies WHERE key = ?"
            row = connection.execute(query, (_key(request),)).fetchone()
        return None if row is None else cast("str", row[0])

    def keep(self, request: Request, reply: str) -> str:
        """Return the reply that is kept: this one, or the one that was there before.

        Raises:
            RetrievalFailed: too long a reply, a cassette that is only read, or a full disk.
        """
        if len(reply) > MAX_REPLY_CHARS:
            raise RetrievalFailed(
                f"A reply of {len(reply):,} characters was to be recorded in '{self.path}'; at "
                f"most {MAX_REPLY_CHARS:,} are kept. Ask for fewer or shorter documents."
            )
        if not self.writes:
            raise RetrievalFailed(f"'{self.path}' is open for replay: nothing can be added to it.")
        spelled = " ".join(f"{name}={value!r}" for name, value in sorted(request.items()))
        with self._guarded() as connection:
            row = (_key(request), spelled, reply)
            connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", row)
        kept = self.find(request)
        assert kept is not None, "the row was just written and is never deleted"
        return kept

    def __len__(self) -> int:
        """Return the number of replies kept."""
        with self._guarded() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table of a new file, or check that an old one is a cassette."""
        connection.execute("BEGIN")  # one look at it all: somebody may be making it
        if not _tables(connection) and self.writes:
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            if not _tables(connection):
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise sqlite3.DatabaseError("a database of something else")
        version: Any = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _FORMAT:
            raise sqlite3.DatabaseError(f"a cassette of format {version}; this is {_FORMAT}")
        connection.execute("SELECT key, request, reply FROM replies LIMIT 1").fetchone()
        connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        mode = "rwc" if self.writes else "ro"
        place = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(place, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _guarded(self) -> Generator[sqlite3.Connection]:
        try:
            with self._connection() as connection:
                yield connection
        except sqlite3.Error as error:
            raise RetrievalFailed(
                f"Cassette '{self.path}' cannot be used any more ({error}). Check the disk and "
                "whether the file was moved or changed."
            ) from error

    def _error(self, found: str) -> DataFileError:
        return DataFileError(f"Cassette '{self.path}' asked for, but {found}")


def _key(request: Request) -> str:
    return digest(dict(request))


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
