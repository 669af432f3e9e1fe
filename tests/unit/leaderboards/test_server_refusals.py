"""What a server keeps from strangers: environments, others' runs, its memory and its faults."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import event, exc

from tests.running_server import serving, small_bundle
from tests.unit.leaderboards.stored import claimed
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.server.app import AWAY
from treegrpo.leaderboards.server.archive import pack_bundle
from treegrpo.leaderboards.server.pages import PageCache
from treegrpo.leaderboards.server.queue import num_open
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tokens import new_token
from treegrpo.leaderboards.server.worker import work_once
from treegrpo.leaderboards.store import Store, request_like

ENVIRONMENTS = ("treegrpo/Notes-v0", "treegrpo/SQL-v0")


class World(NamedTuple):
    """A server whose operator has put one bundle into the store, and a stranger's token."""

    client: httpx.Client
    store: Store
    settings: ServerSettings
    bundle: Path
    run: str
    secrets: dict[str, str]

    def post(self, path: str, who: str = "mallory", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.secrets[who]}"}
        return self.client.post(f"/api/v1/{path}", headers=headers, **body)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    folder = tmp_path_factory.mktemp("server")
    bundle = small_bundle(folder / "bundle")
    rates = {"reads_per_minute": 1e9, "writes_per_minute": 1e9}
    with serving(folder, environments=ENVIRONMENTS, **rates) as (client, store, settings):
        run = store.add(bundle)
        store.new_epoch()
        secrets = {
            "mallory": new_token(store, "mallory", ["submit"])[0],
            "operator": new_token(store, "operator", ["admin"])[0],
        }
        yield World(client, store, settings, bundle, run, secrets)


def wanted(world: World, **changes: Any) -> dict[str, Any]:
    request = request_like(read_bundle(world.bundle).manifest, num_tasks=1, trials=1)
    return request.model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "this:Foo-v0"}, "'this:Foo-v0' asked for, which this server does not replay"),
        ({"env_id": "treegrpo/Dialogue-v0"}, "which this server does not replay"),
        ({"env_kwargs": {"path": "/etc/passwd"}}, "Field env_kwargs.path: '/etc/passwd' asked for"),
        ({"num_tasks": 10_001}, "A registration of 10001 tasks asked for; this server takes at"),
    ],
)
def test_a_registration_is_admitted_like_a_bundle(
    world: World, changes: dict[str, Any], message: str
) -> None:
    sys.modules.pop("this", None)
    answer = world.post("registrations", json=wanted(world, **changes))
    assert answer.status_code == 422 and message in answer.json()["detail"]
    assert "this" not in sys.modules


def test_other_registrations_are_made(world: World) -> None:
    answer = world.post("registrations", json=wanted(world))
    assert answer.status_code == 201 and answer.json()["manifest"]["env_id"] == ENVIRONMENTS[0]


def test_a_run_is_not_ones_own_for_having_sent_its_bundle_again(world: World) -> None:
    stream = io.BytesIO()
    pack_bundle(world.bundle, stream)
    assert world.post("submissions", content=stream.getvalue()).status_code == 202
    decided = work_once(world.store, world.settings, "test")
    assert decided is not None and (decided.state, decided.run_digest) == ("verified", world.run)
    refused = world.post(f"runs/{world.run}/removal", json={"reason": "not mine"})
    assert refused.status_code == 403 and "'mallory' did not submit" in refused.json()["detail"]
    assert world.store.run_detail(world.run).removed is None


def test_a_reason_holds_no_nul(world: World) -> None:
    answer = world.post(f"runs/{world.run}/removal", "operator", json={"reason": "a\0bcd"})
    assert answer.status_code == 422 and world.store.run_detail(world.run).removed is None


def test_numbers_without_a_bundle_are_not_verified_again(world: World) -> None:
    run = world.store.claim(claimed())
    answer = world.post(f"runs/{run}/rescore", "operator")
    assert answer.status_code == 422 and "only its numbers" in answer.json()["detail"]
    assert world.post(f"runs/{'0' * 64}/rescore", "operator").status_code == 404
    assert num_open(world.store, "operator") == 0


@pytest.mark.parametrize("cause", [exc.OperationalError("SELECT", None, OSError()), OSError("no")])
def test_a_fault_of_the_store_is_told_without_its_address(
    world: World,
    cause: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def boards(_: Store) -> list[Any]:
        raise StoreError("The results database 'postgresql://ada@db.internal/x'") from cause

    monkeypatch.setattr(Store, "boards", boards)
    answer = world.client.get("/api/v1/boards")
    assert (answer.status_code, answer.json()) == (503, {"detail": AWAY})
    assert "db.internal" in caplog.text


def test_the_cache_of_pages_has_a_size(world: World) -> None:
    page = "x" * 1_000
    size = sys.getsizeof(page)
    made: list[str] = []

    def make(name: str, text: str = page) -> str:
        made.append(name)
        return text

    cache = PageCache(world.store, max_bytes=2 * size)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert cache.page(name, lambda name=name: make(name)) == page
    assert made == ["a", "b", "c", "b"], "the third one pushed out what was not asked for since"
    made.clear()
    for _ in range(2):
        cache.page("large", lambda: make("large", page * 3))
    cache.page("a", lambda: make("a"))
    assert made == ["large", "large"], "one too large is not kept, and pushes out nothing"


def test_the_ledger_is_read_in_parts_by_the_database(world: World) -> None:
    whole = [entry.model_dump(mode="json") for entry in world.store.ledger()]
    queries: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        queries.append((statement, values))

    event.listen(world.store.engine, "before_cursor_execute", note)
    try:
        part = world.client.get("/api/v1/ledger", params={"after": 1, "limit": 2}).json()
    finally:
        event.remove(world.store.engine, "before_cursor_execute", note)
    assert part == whole[1:3] and len(part) == 2
    asked = [statement for statement, _ in queries if "FROM ledger" in statement]
    assert len(asked) == 1 and "LIMIT" in asked[0]
    assert world.client.get("/api/v1/ledger", params={"after": len(whole)}).json() == []
