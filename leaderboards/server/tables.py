"""The tables that only a server needs, in the results database beside the others."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from treegrpo.leaderboards.store.database import Database, translated
from treegrpo.leaderboards.store.tables import Base, Json, Real, Whole


class TokenTable(Base):
    """One token, known by the digest of its secret."""

    __tablename__ = "token"
    __table_args__: ClassVar[Any] = {"sqlite_strict": True}

    digest: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    owner: Mapped[str] = mapped_column(sa.Text)
    scopes: Mapped[list[str]] = mapped_column(Json)
    created: Mapped[str] = mapped_column(sa.Text)
    revoked: Mapped[str | None] = mapped_column(sa.Text)


class SubmissionTable(Base):
    """One piece of work for the verifiers: waiting, being verified, or decided."""

    __tablename__ = "submission"
    __table_args__: ClassVar[Any] = {"sqlite_strict": True}

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    owner: Mapped[str] = mapped_column(sa.Text, index=True)
    archive: Mapped[str | None] = mapped_column(sa.Text)
    """Digest of the tar file's bytes; null where a run of the store is verified again."""
    state: Mapped[str] = mapped_column(sa.Text, index=True)
    run_digest: Mapped[str | None] = mapped_column(sa.Text, index=True)
    reason: Mapped[str | None] = mapped_column(sa.Text)
    attempts: Mapped[int] = mapped_column(Whole, default=0)
    worker: Mapped[str | None] = mapped_column(sa.Text)
    lease_until: Mapped[float | None] = mapped_column(Real)
    """Seconds since 1970: until when the worker has it, later anybody may take it; of one that
    waits, since when it does."""
    received: Mapped[str] = mapped_column(sa.Text)
    decided: Mapped[str | None] = mapped_column(sa.Text)


def create_server_tables(database: Database) -> None:
    """Make the tables of this module where they are missing.

    Raises:
        StoreError: the database refuses.
    """
    tables = [cast(sa.Table, table.__table__) for table in (TokenTable, SubmissionTable)]
    with translated(database.url):
        Base.metadata.create_all(database.engine, tables=tables)
