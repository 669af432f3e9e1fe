"""A server that is killed in the middle of a load: nothing accepted is lost or half there."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks._board_load import make_bundles, run_load
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]  # fixtures


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_url")
    else:
        yield f"sqlite:///{tmp_path / 'load.sqlite'}"


def test_a_killed_server_loses_nothing(url: str, tmp_path: Path) -> None:
    bundles = make_bundles(tmp_path, 6)
    load = run_load(url, tmp_path, bundles, 100, kill_workers=False)
    assert (load.accepted, load.verified) == (6, 6)
    assert (load.lost, load.wrong_pages) == ([], [])
    assert len(load.read_ms) == 100
