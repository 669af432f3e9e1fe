"""The stores that the tests of this folder run against: SQLite, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import postgres_server, postgres_url
from treegrpo.leaderboards.store import Store, open_store

__all__ = ["postgres_server", "postgres_url"]  # fixtures


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database of either kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'any.sqlite'}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Yield an empty SQLite store."""
    with open_store(f"sqlite:///{tmp_path / 'board.sqlite'}", create=True) as opened:
        yield opened


@pytest.fixture
def any_store(any_url: str, tmp_path: Path) -> Iterator[Store]:
    """Yield an empty store of either kind."""
    with open_store(any_url, create=True, objects=tmp_path / "objects") as opened:
        yield opened
