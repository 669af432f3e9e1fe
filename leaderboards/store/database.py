"""The results database, opened: SQLite in one file by default, PostgreSQL by URL.

Readers see one state of the database and wait for nobody. Writers take turns: SQLite's begin
with BEGIN IMMEDIATE, PostgreSQL's with an advisory lock, so that what is computed from other
rows (ranks, the next hash of the ledger) is right when it is written.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.orm import Session

from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store.objects import Objects

DEFAULT_STORE = "sqlite:///leaderboard.sqlite"
_WRITERS_LOCK = 0x7472656567727061
_BUSY_MS = 30_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What PostgreSQL (or UTF-8) has no place for in a text; JSON columns hold it as an escape."""


class Database:
    """An open results database and the folder of its files.

    A transaction on `engine` is a writing one; `reading()` is for those that only read.
    """

    def __init__(self, url: URL, objects: Path | None) -> None:
        """Prepare an engine; nothing is opened yet."""
        self.url = url
        file = sqlite_file(url)
        if objects is None and file is not None:
            objects = file.parent / "objects"
        self.objects = Objects(objects)
        with translated(url):
            self.engine = _engine(url)

    @contextlib.contextmanager
    def reading(self) -> Generator[Session]:
        """Yield a session on one state of the database.

        Raises:
            StoreError: it cannot be read.
        """
        engine = self.engine.execution_options(reading=True)
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with translated(self.url), Session(engine) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def writing(self) -> Generator[Session]:
        """Yield the one session that may write; all of it is kept, or nothing.

        Raises:
            StoreError: it cannot be written, or not every database could hold one of the texts.
        """
        with translated(self.url), Session(self.engine) as session, session.begin():
            if self.engine.dialect.name == "postgresql":
                session.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))
            event.listen(session, "before_flush", _check_texts)
            yield session

    def prepare(self) -> None:
        """Let readers of an SQLite file go on while it is written (WAL), from now on for good.

        Raises:
            StoreError: it cannot be written.
        """
        if self.engine.dialect.name == "sqlite":
            with translated(self.url), contextlib.closing(self.engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def _check_texts(session: Session, *_: Any) -> None:
    """Refuse a text that one database would keep and the other not."""
    for row in (*session.new, *session.dirty):
        for name, value in sa.inspect(row).dict.items():
            found = _UNSTORABLE.search(value) if isinstance(value, str) else None
            if found is not None:
                raise StoreError(
                    f"Writing {value!a:.100} as '{name}' of a {row.__tablename__} asked for, found "
                    f"the character U+{ord(found[0]):04X} in it, which not every database holds. "
                    "Leave it out."
                )


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # transactions begin below, not inside the driver
        for setting in (f"busy_timeout={_BUSY_MS}", "foreign_keys=ON", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        reads = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def translated(url: URL) -> Generator[None]:
    """Turn every error of the database into one StoreError."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        cause: Any = getattr(error, "orig", None) or error
        raise StoreError(
            f"The results database '{hidden(url.render_as_string())}' asked for, but: "
            f"{' '.join(str(cause).split())}. "
            "Give the URL of a database that treegrpo leaderboard add has made, or of a new one."
        ) from error
    except ModuleNotFoundError as error:
        raise StoreError(
            f"The results database '{hidden(url.render_as_string())}' asked for, but its driver is "
            f"missing: {error}. For PostgreSQL: pip install 'treegrpo[postgresql]', and a URL "
            "that begins with postgresql+psycopg://. Else use sqlite:///FILE."
        ) from error


def checked_url(store: str, *, create: bool) -> URL:
    """Return the URL; SQLite would silently make a missing file where reading was asked for.

    Raises:
        StoreError: no URL, or a file or folder that is not there.
    """
    try:
        url = make_url(store)
    except (exc.ArgumentError, ValueError):  # the second for a port that is no number
        raise StoreError(
            f"The results database '{hidden(store)}' asked for, but that is no database URL. "
            f"Write it as {DEFAULT_STORE}."
        ) from None
    file = sqlite_file(url)
    if file is None:
        return url
    if not create and not file.exists():
        raise StoreError(
            f"The results database '{store}' asked for, but there is no file '{file}'. "
            "Add a bundle first: treegrpo leaderboard add BUNDLE."
        )
    if create and not file.parent.is_dir():
        raise StoreError(
            f"The results database '{store}' asked for, but there is no folder '{file.parent}'. "
            "Make the folder, or give another path."
        )
    return url


def hidden(store: str) -> str:
    """Return the text of a URL, right or wrong, without what may be a password in it."""
    no_login = re.sub(r"^(\w[\w+.-]*://)?+.*:.*@", r"\1***@", store, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", no_login, flags=re.IGNORECASE)


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for any other one."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)
