"""The tables' version: made new, brought up to date, or refused, in one transaction.

    version 1   run, episode and verification, without ledger, objects or a table of versions
    version 2   the tables of tables.py

A migration is a function from one version to the next. A database of a newer version is left
alone.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.from_version_1 import from_version_1
from treegrpo.leaderboards.store.objects import Objects
from treegrpo.leaderboards.store.tables import Base, RunTable, SchemaVersion, make_tables

VERSION = 2


def migrate(database: Database) -> None:
    """Make every table that is missing and bring older ones up to date.

    Tables of a server are made as well, where its module is loaded.

    Raises:
        StoreError: a newer version, or data that cannot be carried over; nothing was changed.
    """
    with database.writing() as session:
        found = _version(session)
        _refuse_newer(database, found)
        if found == 0:
            make_tables(session, VERSION)
        else:
            for version in range(found, VERSION):
                MIGRATIONS[version](session, database.objects)
        Base.metadata.create_all(session.connection())
    database.objects.sweep()


def check_version(database: Database) -> None:
    """Refuse tables of another version, before anything is read from them.

    Raises:
        StoreError: says which version is there and what to do.
    """
    with database.reading() as session:
        found = _version(session)
    _refuse_newer(database, found)
    if found == 0:
        raise StoreError(
            f"The results database '{database.url.render_as_string()}' asked for, but it has no "
            "tables of a leaderboard. Add a bundle first: treegrpo leaderboard add BUNDLE."
        )
    if found < VERSION:
        raise StoreError(
            f"The results database '{database.url.render_as_string()}' asked for, but it is of "
            f"version {found}, and version {VERSION} is read. Bring it up to date, with all that "
            "is in it: treegrpo leaderboard migrate --store URL."
        )


def _version(session: Session) -> int:
    """Return the version of the tables, 0 if there are none."""
    inspector = sa.inspect(session.connection())
    if inspector.has_table(SchemaVersion.__tablename__):
        return session.scalars(sa.select(SchemaVersion.version)).one()
    return 1 if inspector.has_table(RunTable.__tablename__) else 0


def _refuse_newer(database: Database, found: int) -> None:
    if found > VERSION:
        raise StoreError(
            f"The results database '{database.url.render_as_string()}' asked for, but it is of "
            f"version {found}, and this treegrpo knows version {VERSION}. Install the treegrpo "
            "that wrote it, or a newer one."
        )


MIGRATIONS: dict[int, Callable[[Session, Objects], None]] = {1: from_version_1}
"""Version -> what brings its tables to the next."""
