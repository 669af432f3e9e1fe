"""Who may do what: every endpoint, asked with every kind of token."""

from __future__ import annotations

import io
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.running_server import serving, small_bundle
from treegrpo.leaderboards.server.archive import pack_bundle
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tokens import new_token, revoke_token
from treegrpo.leaderboards.server.worker import work_once
from treegrpo.leaderboards.store import Store


class World(NamedTuple):
    """A server with one run that "owner" has submitted, and one token of each kind."""

    client: httpx.Client
    store: Store
    settings: ServerSettings
    tokens: dict[str, str]
    run: str
    submission: str
    archive: bytes

    def drain(self) -> str:
        """Return the digest of the last run that was verified, once nothing waits."""
        last = None
        while (done := work_once(self.store, self.settings, "test")) is not None:
            last = done if done.archive is not None else last
        assert last is not None and last.state == "verified" and last.run_digest
        return last.run_digest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    folder = tmp_path_factory.mktemp("server")
    stream = io.BytesIO()
    pack_bundle(small_bundle(folder / "bundle"), stream)
    rates = {"reads_per_minute": 1e9, "writes_per_minute": 1e9, "failures_per_minute": 1e9}
    with serving(folder, **rates) as (client, store, settings):
        tokens = {"wrong": "tg_" + "x" * 43}
        for owner, scope in (
            ("owner", "submit"),
            ("other", "submit"),
            ("reader", "read"),
            ("gone", "admin"),
            ("operator", "admin"),
        ):
            tokens[owner], token = new_token(store, owner, [scope])
            if owner == "gone":
                revoke_token(store, token.id)
        sent = post(client, "submissions", tokens["owner"], content=stream.getvalue())
        decided = work_once(store, settings, "test")
        assert decided is not None and decided.state == "verified" and decided.run_digest
        yield World(
            client,
            store,
            settings,
            tokens,
            decided.run_digest,
            sent.json()["id"],
            stream.getvalue(),
        )


def post(client: httpx.Client, path: str, token: str | None, **body: object) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.post(f"/api/v1/{path}", headers=headers, **body)  # type: ignore[arg-type]


def get(client: httpx.Client, path: str, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.get(path, headers=headers)


WHO = ("nobody", "wrong", "gone", "reader", "other", "owner", "operator")
OPEN_PATHS = (
    "/api/v1/health",
    "/api/v1/boards",
    "/api/v1/boards/{board}",
    "/api/v1/runs/{run}",
    "/api/v1/runs/{run}/bundle.tar",
    "/api/v1/runs/{run}/episodes/0/0",
    "/api/v1/environments",
    "/api/v1/ledger",
    "/openapi.json",
    "/index.html",
    "/api.html",
    "/boards/{board}.html",
    "/runs/{run}.html",
)


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_reading_is_open_but_a_token_that_is_sent_must_be_good(world: World, path: str) -> None:
    board = world.client.get("/api/v1/boards").json()[0]["id"]
    where = path.format(board=board, run=world.run)
    found = {who: get(world.client, where, world.tokens.get(who)).status_code for who in WHO}
    # The description of the API is the same for everybody, whatever is sent.
    bad = 200 if path == "/openapi.json" else 401
    assert found == dict.fromkeys(WHO, 200) | {"wrong": bad, "gone": bad}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/submissions", dict.fromkeys(("reader", "other", "owner", "operator"), 200)),
        (
            "/api/v1/submissions/{submission}",
            {"reader": 404, "other": 404, "owner": 200, "operator": 200},
        ),
    ],
)
def test_submissions_are_their_owners(world: World, path: str, expected: dict[str, int]) -> None:
    where = path.format(submission=world.submission)
    found = {who: get(world.client, where, world.tokens.get(who)).status_code for who in WHO}
    assert found == {"nobody": 401, "wrong": 401, "gone": 401} | expected


def test_a_list_of_submissions_holds_ones_own(world: World) -> None:
    def owners(who: str) -> set[str]:
        listed = get(world.client, "/api/v1/submissions", world.tokens[who]).json()
        return {one["owner"] for one in listed}

    assert owners("reader") == set()
    assert owners("owner") == {"owner"}
    assert "owner" in owners("operator")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("submissions", {"reader": 403, "other": 202, "owner": 202, "operator": 202}),
        ("registrations", {"reader": 403, "other": 422, "owner": 422, "operator": 422}),
        ("runs/{run}/removal", {"reader": 403, "other": 422, "owner": 422, "operator": 422}),
        ("runs/{run}/rescore", {"reader": 403, "other": 403, "owner": 403, "operator": 202}),
    ],
)
def test_writing_needs_the_scope(world: World, path: str, expected: dict[str, int]) -> None:
    """422 is what somebody gets who may, but sends an empty request."""
    where = path.format(run=world.run)
    body = {"content": world.archive} if path == "submissions" else {"json": {}}
    if path.endswith("removal"):
        body = {"json": {"reason": "no"}}
    found = {
        who: post(world.client, where, world.tokens.get(who), **body).status_code for who in WHO
    }
    assert found == {"nobody": 401, "wrong": 401, "gone": 401} | expected


@pytest.mark.parametrize(("who", "status"), [("owner", 200), ("operator", 200)])
def test_a_run_is_removed_by_its_owner_or_an_operator(
    world: World, who: str, status: int, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    pack_bundle(small_bundle(tmp_path / "bundle", seed=1 + len(who)), stream)
    post(world.client, "submissions", world.tokens["owner"], content=stream.getvalue())
    decided = world.drain()
    where, body = f"runs/{decided}/removal", {"json": {"reason": "the wrong price table"}}
    refused = post(world.client, where, world.tokens["other"], **body)
    assert refused.status_code == 403
    assert "which 'other' did not submit" in refused.json()["detail"]
    assert post(world.client, where, world.tokens[who], **body).status_code == status
    again = post(world.client, where, world.tokens[who], **body)
    assert again.status_code == 422 and "removed before" in again.json()["detail"]
    entry = world.client.get("/api/v1/ledger").json()[-1]
    assert (entry["kind"], entry["subject"], entry["who"]) == ("remove", decided, who)


def test_messages_say_what_to_do(world: World) -> None:
    answers = {
        who: post(world.client, "submissions", world.tokens.get(who)).json()["detail"]
        for who in ("nobody", "wrong", "gone", "reader")
    }
    assert answers["nobody"].startswith("This needs a token. Send it as: Authorization: Bearer")
    assert answers["wrong"].startswith("No such token.")
    assert "was revoked on" in answers["gone"]
    assert "needs the scope 'submit'" in answers["reader"]
    assert not any(secret in str(answers) for secret in world.tokens.values())


def test_secrets_are_not_stored(world: World) -> None:
    database = Path(world.settings.store.removeprefix("sqlite:///"))
    stored = b"".join(path.read_bytes() for path in database.parent.glob("board.sqlite*"))
    assert not any(secret.encode() in stored for secret in world.tokens.values())


@pytest.mark.parametrize("kind", ["Basic", "Token", "Bearer  "])
def test_other_kinds_of_authorisation_are_no_token(world: World, kind: str) -> None:
    headers = {"Authorization": f"{kind} {world.tokens['owner'][:-1]}"}
    assert world.client.get("/api/v1/boards", headers=headers).status_code == 401
