"""Sending bundles: once, with patience, and every refusal in the server's own words."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.running_server import serving, small_bundle
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.server.client import Client
from treegrpo.leaderboards.server.tokens import list_tokens, new_token
from treegrpo.leaderboards.server.worker import work_once

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "bundles").iterdir())[0]
RECEIPT = {"id": "a" * 32, "state": "waiting", "run_digest": None, "reason": None, "owner": "ada"}
Answer = httpx.Response | Exception


class Script:
    """A server that gives prepared answers, and a clock that only notes its pauses."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> Client:
        transport = httpx.MockTransport(self)
        return Client("https://board.test/", "tg_secret", transport=transport, sleep=self.pause)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def busy(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, json={"detail": "later"})


def accepted(**changes: object) -> httpx.Response:
    return httpx.Response(202, json=RECEIPT | changes)


def test_a_bundle_is_sent_as_a_tar_with_the_token() -> None:
    script = Script(accepted())
    with script.client() as client:
        assert client.submit(GOLDEN).id == RECEIPT["id"]
    [request] = script.requests
    assert request.url == "https://board.test/api/v1/submissions"
    assert request.headers["authorization"] == "Bearer tg_secret"
    assert request.content.startswith(b"episodes.jsonl\0") and len(request.content) % 512 == 0


def test_it_asks_again_with_the_same_bytes_while_the_server_is_busy_or_away() -> None:
    script = Script(
        httpx.ConnectError("refused"),
        busy(503, **{"Retry-After": "7"}),
        busy(429, **{"Retry-After": "100000"}),
        busy(502, **{"Retry-After": "soon"}),
        accepted(),
    )
    with script.client() as client:
        client.submit(GOLDEN)
    assert script.pauses == [1.0, 7.0, 60.0, 8.0]
    assert len({request.content for request in script.requests}) == 1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([httpx.Response(401, json={"detail": "No such token."})], "it says 401: No such token."),
        ([httpx.Response(404, text="<html>nothing")], "it says 404: Not Found"),
        ([httpx.ConnectError("refused")] * 5, "it says ConnectError: refused"),
        ([httpx.Response(200, text="hello")], "its answer is another's"),
        ([httpx.Response(200, json={"id": 1})], "its answer is another's: field id"),
    ],
)
def test_a_refusal_is_one_message(answers: list[Answer], message: str) -> None:
    script = Script(*answers)
    with script.client() as client, pytest.raises(TreegrpoError) as error:
        client.submit(GOLDEN)
    assert message in str(error.value) and "tg_secret" not in str(error.value)
    assert script.answers == []


@pytest.mark.parametrize("url", ["http://board.test", "HTTP://board.test:80/", "http://10.0.0.1"])
def test_a_token_is_not_shown_on_the_way(url: str) -> None:
    with pytest.raises(TreegrpoError, match="http:// shows the token to everybody on the way"):
        Client(url, "tg_secret")
    code, output = run("submit", str(GOLDEN), "--to", url, TREEGRPO_TOKEN="tg_secret")
    assert code != 0 and "or --insecure" in output and "tg_secret" not in output


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9", "http://localhost"])
def test_on_one_machine_http_will_do(url: str) -> None:
    Client(url, "tg_secret").__exit__()


def test_whoever_insists_may_use_http() -> None:
    script = Script(accepted())
    transport = httpx.MockTransport(script)
    with Client("http://board.test", "tg_x", insecure=True, transport=transport) as client:
        assert client.result("a" * 32).state == "waiting"


def test_what_is_no_address_is_told() -> None:
    with pytest.raises(TreegrpoError, match=r"http://\[ asked for, which is no address"):
        Client("http://[", "tg_secret")


def test_a_damaged_bundle_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    script = Script()
    with script.client() as client, pytest.raises(BundleError):
        client.submit(tmp_path)
    assert script.requests == []


def test_waiting_ends_with_the_verdict_or_the_time() -> None:
    script = Script(accepted(), accepted(state="verifying"), accepted(state="verified"))
    with script.client() as client:
        assert client.wait("a" * 32, 60).state == "verified"
    script = Script(accepted(), accepted())
    with script.client() as client:
        assert client.wait("a" * 32, 0).state == "waiting"


@pytest.mark.parametrize("body", [b"null", b"[]", b'{"detail": []}', b"\xff"])
def test_odd_errors_are_told(body: bytes) -> None:
    script = Script(httpx.Response(422, content=body))
    with script.client() as client, pytest.raises(TreegrpoError, match="it says 422"):
        client.result("x")


def run(*words: str, **env: str) -> tuple[int, str]:
    result = CliRunner(env=env).invoke(leaderboard_app, list(words))
    return result.exit_code, result.output + str(result.exception or "")


def test_tokens_on_the_command_line(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'board.sqlite'}"
    code, output = run("token", "new", "ada", "--scope", "submit", "--store", store)
    assert code == 0 and "tg_" in output
    secret = output.split()[-1]
    code, output = run("token", "list", "--store", store)
    assert code == 0 and "ada" in output and secret not in output
    code, output = run("token", "revoke", "zzz", "--store", store)
    assert code != 0 and "found none of that id" in output


def test_serving_at_a_taken_port_is_one_message_and_makes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, store = str(taken.getsockname()[1]), f"sqlite:///{tmp_path / 'board.sqlite'}"
        code, output = run("serve", "--port", port, "--store", store)
    assert code != 0
    assert f"Serving at 127.0.0.1, port {port} asked for, but: Address already in use" in output
    assert list(tmp_path.iterdir()) == []


def test_submit_needs_its_token(tmp_path: Path) -> None:
    code, output = run("submit", str(GOLDEN), "--to", "http://127.0.0.1:9", TREEGRPO_TOKEN="")
    assert code != 0 and "environment variable TREEGRPO_TOKEN asked for, found none" in output


def test_a_refused_submission_leaves_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    with serving(tmp_path, environments=("treegrpo/SQL-v0",)) as (http, store, settings):
        secret, token = new_token(store, "ada", ["submit"])
        assert list_tokens(store) == [token]
        decide = _deciding(lambda: work_once(store, settings, "w"))
        monkeypatch.setattr(Client, "wait", decide(Client.wait))
        code, output = run("submit", str(bundle), "--to", str(http.base_url), TREEGRPO_TOKEN=secret)
    assert code != 0
    assert "it was refused" in output and "which this server does not replay" in output


def _deciding(
    work: Callable[[], object],
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return a change to `wait` that lets one verifier work first."""

    def changed(wait: Callable[..., object]) -> Callable[..., object]:
        def inner(*args: object) -> object:
            work()
            return wait(*args)

        return inner

    return changed


def test_the_receipt_of_the_api_is_what_the_client_reads(tmp_path: Path) -> None:
    """One real exchange, so that the prepared answers above are true to the server."""
    with serving(tmp_path) as (http, store, _):
        secret, _ = new_token(store, "ada", ["submit"])
        with Client(str(http.base_url), secret) as client:
            receipt = client.submit(GOLDEN)
            again = client.submit(GOLDEN)
            assert receipt.state == "waiting" and again == receipt
            assert client.result(receipt.id) == receipt
        listed = http.get("/api/v1/submissions", headers={"Authorization": f"Bearer {secret}"})
        assert set(RECEIPT) <= set(json.loads(listed.content)[0])


def test_limits_of_size_and_number(tmp_path: Path) -> None:
    with serving(tmp_path, max_archive_bytes=100, max_waiting_per_owner=1) as (http, store, cfg):
        secret, _ = new_token(store, "ada", ["submit"])
        headers = {"Authorization": f"Bearer {secret}"}

        def send(data: bytes | object) -> httpx.Response:
            return http.post("/api/v1/submissions", headers=headers, content=data)  # type: ignore[arg-type]

        told = send(b"x" * 101)
        assert told.status_code == 413 and "at most 100 bytes" in told.json()["detail"]
        assert send(iter([b"x" * 60, b"x" * 60])).status_code == 413, "without a length, too"
        assert send(b"").status_code == 422
        assert list(cfg.inbox.iterdir()) == []
        assert send(b"x" * 100).status_code == 202
        full = send(b"y" * 100)
        assert (full.status_code, full.headers["retry-after"]) == (429, "60")


def test_limits_of_rate(tmp_path: Path) -> None:
    rates = {"reads_per_minute": 40, "failures_per_minute": 20}
    with serving(tmp_path, **rates) as (http, _, _):
        wrong = {"Authorization": "Bearer tg_wrong"}
        assert [http.get("/api/v1/boards", headers=wrong).status_code for _ in range(3)] == [
            401, 401, 429,
        ]  # fmt: skip
        answers = [http.get("/api/v1/boards") for _ in range(4)]
        assert answers[0].status_code == 200 and answers[-1].status_code == 429
        assert float(answers[-1].headers["retry-after"]) >= 1
