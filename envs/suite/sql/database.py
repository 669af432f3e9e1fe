"""A small SQLite database that is copied exactly, and that an agent cannot misuse.

A `Database` is an image (the bytes of `serialize()`) and, once it is used, a connection in
memory. Copies share the image and open a connection of their own when they first need one,
so a snapshot of an unchanged database costs next to nothing.

Three properties make the copies true:
- no statement leaves a transaction open, so an image never holds uncommitted rows;
- nothing lives in the connection alone (no temporary tables, no functions of ours, no
  `changes()`), and the pragmas are set again whenever an image is opened;
- nothing is random: no clock, no `random()`, and runaway statements are stopped after a
  count of virtual-machine steps, not of seconds.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from treegrpo.envs.digest import digest
from treegrpo.envs.errors import SnapshotUnsupported
from treegrpo.envs.suite.sql.guard import LIMITS, STEPS_PER_TICK, Guard, SQLError, check_statement

Cell = int | float | str | bytes | None
Row = tuple[Cell, ...]

MAX_PAGES = 256
PAGE_BYTES = 1024

# Opened from an image, a connection starts with SQLite's defaults: foreign keys off.
_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_mode = MEMORY",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    f"PRAGMA max_page_count = {MAX_PAGES}",
)


@dataclass(frozen=True)
class Column:
    """One column: `references` names a table whose `id` it holds."""

    name: str
    type: str = "INTEGER"
    references: str = ""
    cascade: bool = False


@dataclass(frozen=True)
class Table:
    """A table as a task states it; the first column is the primary key."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()

    def ddl(self) -> str:
        """Return the CREATE TABLE statement.

        The range of an integer key is bounded because SQLite hands out *random* row ids once
        the largest possible one is taken; other tables have no row id at all.
        """
        key, *others = self.columns
        has_id = key.type == "INTEGER"
        check = f" CHECK ({key.name} BETWEEN 1 AND 9999)" if has_id else ""
        parts = [f"{key.name} {key.type} PRIMARY KEY{check}"]
        for column in others:
            part = f"{column.name} {column.type}".rstrip() + " NOT NULL"
            if column.references:
                part += f" REFERENCES {column.references}(id)"
            parts.append(part + (" ON DELETE CASCADE" if column.cascade else ""))
        return f"CREATE TABLE {self.name} ({', '.join(parts)})" + (
            "" if has_id else " WITHOUT ROWID"
        )


@dataclass(frozen=True)
class Result:
    """What a statement gave: rows (with column names) or a number of changed rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_more: bool
    changed: int | None


class Database:
    """An in-memory database whose copies are independent; made by `create` or from an image."""

    ROW_LIMIT: ClassVar[int] = 1_000

    def __init__(self, image: bytes) -> None:
        """Keep the image; the connection is opened by the first use."""
        self._image: bytes | None = image
        self._facts: str | None = None
        self._connection: sqlite3.Connection | None = None
        self._guard = Guard()

    @classmethod
    def create(cls, tables: Sequence[Table]) -> Database:
        """Return a database with these tables; a parent table stands before its children."""
        with contextlib.closing(connect()) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("BEGIN")
            for table in tables:
                connection.execute(table.ddl())
                marks = ", ".join("?" * len(table.columns))
                connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", table.rows)
            connection.execute("COMMIT")
            return cls(connection.serialize())

    # ------------------------------------------------------------------------- for the agent

    def execute(self, sql: str, *, max_rows: int = ROW_LIMIT, read_only: bool = False) -> Result:
        """Run one statement of an agent and return what it gave.

        Raises:
            SQLError: refused, stopped or failed; the database is then unchanged.
        """
        check_statement(sql, read_only=read_only)
        connection, guard = self._open(), self._guard
        guard.begin(may_write=not read_only)
        try:
            cursor = connection.execute(sql)
            names = tuple(str(column[0]) for column in cursor.description or ())
            # A write runs to its end whatever it returns; a read stops at the cap.
            rows: list[Row] = cursor.fetchall() if guard.wrote else cursor.fetchmany(max_rows + 1)
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise SQLError(guard.explain(error)) from None
        finally:
            guard.active = False
            if guard.wrote:
                self._image = self._facts = None
        changed = self._changes() if guard.wrote else None
        return Result(names, tuple(rows[:max_rows]), len(rows) > max_rows, changed)

    def tables(self) -> list[str]:
        """Return the names of the tables, in the order of their creation."""
        found = self._open().execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return [str(name) for (name,) in found.fetchall()]

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns, the primary key first."""
        return [str(row[1]) for row in self._open().execute(f"PRAGMA table_info({quoted(table)})")]

    def describe(self, table: str) -> str:
        """Return one line: the table, its columns with types, keys and references.

        Raises:
            SQLError: no such table.
        """
        known = self.tables()
        if table not in known:
            raise SQLError(f"no such table: {table[:60]}. Tables: {', '.join(known)}")
        connection = self._open()
        keys = connection.execute(f"PRAGMA foreign_key_list({quoted(table)})").fetchall()
        parents = {key[3]: f" REFERENCES {shown(key[2])}{_column(key[4])}" for key in keys}
        cascades = {key[3]: " ON DELETE CASCADE" for key in keys if key[6] == "CASCADE"}
        parts: list[str] = []
        for _, name, kind, _, _, primary in connection.execute(
            f"PRAGMA table_info({quoted(table)})"
        ):
            text = f"{shown(name)} {kind}".rstrip() + (" PRIMARY KEY" if primary else "")
            parts.append(text + parents.get(name, "") + cascades.get(name, ""))
        return f"{shown(table)} ({', '.join(parts)})"

    # ------------------------------------------------------------------- for copies and hashes

    def image(self) -> bytes:
        """Return the bytes of the database, from which an equal one can be made.

        Raises:
            SnapshotUnsupported: a transaction is open. SQLite would copy its rows as if they
                were committed.
        """
        if self._connection is not None and self._connection.in_transaction:
            raise SnapshotUnsupported(
                ["the SQLite database has an open transaction; COMMIT or ROLLBACK it first"]
            )
        if self._image is None:
            self._image = self._open().serialize()
        return self._image

    def dump(self) -> dict[str, tuple[Row, ...]]:
        """Return the rows of every table, sorted by primary key."""
        connection = self._open()
        return {
            name: tuple(connection.execute(f"SELECT * FROM {name} ORDER BY 1"))
            for name in self.tables()
        }

    def digest(self) -> str:
        """Return a digest of schema and rows with exact types; 64 hex digits.

        Two databases that went different ways to the same rows have equal digests: page
        layout and SQLite's version do not matter.
        """
        if self._facts is None:
            schema = self._open().execute("SELECT name, sql FROM sqlite_schema").fetchall()
            self._facts = digest([sorted(schema, key=str), self.dump()])
        return self._facts

    def state_facts(self) -> str:
        """Return what the state hash covers."""
        return self.digest()

    def close(self) -> None:
        """Drop the connection; what was written stays in the image."""
        if self._connection is not None:
            self.image()
            self._connection.close()
            self._connection = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Database:
        twin = Database(self.image())
        twin._facts = self._facts
        return twin

    def __reduce__(self) -> tuple[type[Database], tuple[bytes]]:
        return Database, (self.image(),)

    def __del__(self) -> None:
        # Python 3.13 warns about a connection that nobody closed.
        if getattr(self, "_connection", None) is not None:
            self._connection.close()  # type: ignore[union-attr]

    # ----------------------------------------------------------------------------- the inside

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            assert self._image is not None  # ours: a closed database has an image
            connection = connect()
            connection.deserialize(self._image)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            for limit, value in LIMITS:
                connection.setlimit(limit, value)
            self._guard = Guard()
            connection.set_authorizer(self._guard.authorize)
            connection.set_progress_handler(self._guard.tick, STEPS_PER_TICK)
            self._connection = connection
        return self._connection

    def _changes(self) -> int:
        return int(self._open().execute("SELECT changes()").fetchone()[0])


def connect() -> sqlite3.Connection:
    """Return a connection to an empty database in memory."""
    # Autocommit. Not bound to a thread, since a pool may step one environment from several in
    # turn. No statement cache: a cached statement keeps its step count from one run to the next.
    connection = sqlite3.connect(
        ":memory:", isolation_level=None, check_same_thread=False, cached_statements=0
    )
    connection.text_factory = _decode
    return connection


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def shown(name: str) -> str:
    """Return a name as an agent may write it: bare if it is a word, else quoted."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else quoted(name)


def _column(name: str | None) -> str:
    # A reference without a column is one to the parent's primary key.
    return "" if name is None else f"({shown(name)})"


def _decode(data: bytes) -> str:
    # Text that is not UTF-8 (CAST of a blob) must neither crash nor collide with other text.
    return data.decode("utf-8", "surrogateescape")
