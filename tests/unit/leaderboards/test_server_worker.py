"""Verifiers: what replays gets in, the rest is refused with its reason, faults decide nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from tests.running_server import small_bundle
from tests.unit.leaderboards.stored import only_board
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError, NotInStore, StoreError
from treegrpo.leaderboards.server import queue, worker
from treegrpo.leaderboards.server.admission import check_admission
from treegrpo.leaderboards.server.archive import pack_bundle
from treegrpo.leaderboards.server.inbox import archive_file, sweep
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tables import SubmissionTable, create_server_tables
from treegrpo.leaderboards.server.tokens import (
    SCOPES,
    find_token,
    list_tokens,
    new_token,
    revoke_token,
)
from treegrpo.leaderboards.store import Store

GOLDEN_BUNDLE = sorted((Path(__file__).parents[2] / "golden" / "bundles").iterdir())[0]


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> ServerSettings:
    create_server_tables(store)
    sweep(tmp_path / "inbox", lambda _: False)
    return ServerSettings(store=store.url.render_as_string(), inbox=tmp_path / "inbox")


def send(store: Store, settings: ServerSettings, data: bytes) -> queue.Submission:
    name = queue.new_id()
    archive_file(settings.inbox, name).write_bytes(data)
    return queue.enqueue(store, name, "ada", archive=name * 2)


def packed(bundle: Path) -> bytes:
    stream = io.BytesIO()
    pack_bundle(bundle, stream)
    return stream.getvalue()


def decided(store: Store, settings: ServerSettings) -> queue.Submission:
    one = worker.work_once(store, settings, "w")
    assert one is not None
    return one


def test_what_replays_gets_in(store: Store, settings: ServerSettings, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle", agent="random")
    send(store, settings, packed(bundle))
    done = decided(store, settings)
    assert (done.state, done.reason) == ("verified", None)
    assert done.run_digest == read_bundle(bundle).digest == only_board(store).rows[0].digest
    assert [entry.who for entry in store.ledger() if entry.kind == "submit"] == ["ada"]
    assert list(settings.inbox.iterdir()) == []
    assert worker.work_once(store, settings, "w") is None


def test_the_scripted_agents_are_pinned_here_too(
    store: Store, settings: ServerSettings, tmp_path: Path
) -> None:
    send(store, settings, packed(small_bundle(tmp_path / "bundle")))
    assert decided(store, settings).state == "verified"
    assert [row.pinned for row in only_board(store).rows] == ["oracle"]


def test_a_forged_bundle_is_refused_with_the_first_difference(
    store: Store, settings: ServerSettings, tmp_path: Path
) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    text = (bundle / "run.json").read_text()
    (bundle / "run.json").write_text(text.replace('"seed": 0', '"seed": 1', 1))
    send(store, settings, packed(bundle))
    done = decided(store, settings)
    assert done.state == "refused"
    assert done.reason is not None and "run.json" in done.reason
    assert store.boards() == [] and list(settings.inbox.iterdir()) == []


@pytest.mark.parametrize("data", [b"nonsense", b"\0" * 10_240], ids=["text", "empty tar"])
def test_what_is_no_bundle_is_refused(store: Store, settings: ServerSettings, data: bytes) -> None:
    send(store, settings, data)
    done = decided(store, settings)
    assert done.state == "refused"
    assert done.reason is not None and "asked for" in done.reason


def test_an_archive_that_vanished_is_told(store: Store, settings: ServerSettings) -> None:
    one = send(store, settings, b"x")
    archive_file(settings.inbox, one.id).unlink()
    done = decided(store, settings)
    assert done.state == "refused"
    assert done.reason is not None and "is no longer in the inbox" in done.reason


def caused(cause: Exception) -> StoreError:
    error = StoreError("its message")
    error.__cause__ = cause
    return error


ORIGINAL = Exception("psycopg's")


def failing(
    store: Store, settings: ServerSettings, fault: BaseException, patched: pytest.MonkeyPatch
) -> None:
    """Let one verification end with `fault`."""

    def fail(*_: Any, **__: Any) -> str:
        raise fault

    patched.setattr(Store, "add", fail)
    with pytest.raises(type(fault)):
        worker.work_once(store, settings, "w")


@pytest.mark.parametrize(
    "fault",
    [
        caused(exc.OperationalError("SELECT", None, ORIGINAL)),
        caused(exc.InterfaceError("SELECT", None, ORIGINAL)),
        SystemExit(0),
    ],
    ids=["away", "disconnected", "ending"],
)
def test_faults_of_the_server_are_no_verdict(
    store: Store,
    settings: ServerSettings,
    fault: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    one = send(store, settings, packed(small_bundle(tmp_path / "bundle")))
    for _ in range(2 * queue.MAX_ATTEMPTS):
        with monkeypatch.context() as patched:
            failing(store, settings, fault, patched)
    found = queue.get_submission(store, one.id)
    assert found is not None and found.state == "waiting"
    assert decided(store, settings).state == "verified"


@pytest.mark.parametrize(
    "fault",
    [
        caused(exc.DataError("INSERT", None, ORIGINAL)),
        caused(OSError("full")),
        OSError("full"),
        OverflowError("int too large"),
    ],
    ids=["row", "objects", "disk", "integer"],
)
def test_faults_that_may_be_its_own_doing_are_counted(
    store: Store,
    settings: ServerSettings,
    fault: Exception,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    first = send(store, settings, packed(small_bundle(tmp_path / "bundle")))
    second = send(store, settings, packed(GOLDEN_BUNDLE))
    with monkeypatch.context() as patched:
        failing(store, settings, fault, patched)
    done = decided(store, settings)
    assert done.id == second.id, "the others do not wait for it"
    for _ in range(queue.MAX_ATTEMPTS - 1):
        with monkeypatch.context() as patched:
            failing(store, settings, fault, patched)
    last = decided(store, settings)
    assert (last.id, last.state) == (first.id, "failed")


@pytest.mark.parametrize("error", [StoreError, NotInStore])
def test_what_the_store_says_of_the_bundle_is_a_verdict(
    store: Store, settings: ServerSettings, error: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, settings, packed(GOLDEN_BUNDLE))

    def fail(*_: Any, **__: Any) -> str:
        raise error("its reason")

    monkeypatch.setattr(Store, "add", fail)
    done = decided(store, settings)
    assert (done.state, done.reason) == ("refused", "its reason")


HANGS = """
import subprocess, sys, time
from treegrpo.leaderboards.server import worker

quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

def hang(*_):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
    print(child.pid, flush=True)
    time.sleep(600)

worker._verified = hang
worker.main()
"""


def test_a_submission_that_hangs_ends_its_verifier_and_is_counted(
    store: Store, settings: ServerSettings
) -> None:
    one = send(store, settings, b"x")
    short = settings.model_copy(update={"submission_seconds": 1})
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None and process.stderr
        process.stdin.write(short.model_dump_json() + "\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        assert process.wait(timeout=120) == worker.LATE
        assert f"Submission {one.id} took more than 1 s" in process.stderr.read()
    assert not running(child)
    with store.reading() as session:
        row = session.get_one(SubmissionTable, one.id)
        assert (row.state, row.attempts, row.worker) == ("waiting", 1, None)


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_a_run_is_verified_again(store: Store, settings: ServerSettings, tmp_path: Path) -> None:
    digest = store.add(small_bundle(tmp_path / "bundle"))
    queue.enqueue(store, queue.new_id(), "operator", run_digest=digest)
    assert decided(store, settings).state == "verified"
    last = store.ledger()[-1]
    assert (last.kind, last.subject, last.who) == ("rescore", digest, "operator")


@pytest.mark.parametrize(
    "options",
    [{}, {"max_turns": 3}, {"level": "hard-2"}, {"on": True, "off": None}, {"levels": [1, 2]}],
)
def test_plain_options_are_replayed(options: dict[str, Any]) -> None:
    check_admission("treegrpo/Notes-v0", options)


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "../data",
        ".ssh",
        "http://169.254.169.254",
        "a:b",
        "a b",
        "x" * 65,
        ["ok", "/no"],
        {"path": "x"},
        "",
        "a\n",
    ],
)
def test_options_that_could_name_something_are_not(value: Any) -> None:
    with pytest.raises(BundleError, match=r"Field env_kwargs\.path: .* numbers, flags"):
        check_admission("treegrpo/Notes-v0", {"path": value})


@pytest.mark.parametrize(
    ("env_id", "accepted"),
    [("os:Env-v0", ()), ("treegrpo/NoSuch-v0", ()), ("treegrpo/SQL-v0", ("treegrpo/Notes-v0",))],
)
def test_other_environments_are_not(env_id: str, accepted: tuple[str, ...]) -> None:
    with pytest.raises(BundleError, match="which this server does not replay"):
        check_admission(env_id, {}, accepted)


def test_a_token_is_known_by_its_digest_alone(store: Store) -> None:
    create_server_tables(store)
    secret, token = new_token(store, "ada", ["submit"])
    assert secret.startswith("tg_") and len(secret) == 46
    assert token.id not in secret and find_token(store, secret) == token
    assert find_token(store, secret[:-1]) is None
    revoked = revoke_token(store, token.id)
    assert revoked.revoked is not None
    assert list_tokens(store) == [revoked] == [find_token(store, secret)]


@pytest.mark.parametrize("held", SCOPES)
def test_a_wider_scope_includes_the_narrower(store: Store, held: str) -> None:
    create_server_tables(store)
    _, token = new_token(store, "ada", [held])
    assert [token.may(scope) for scope in SCOPES] == [
        SCOPES.index(scope) <= SCOPES.index(token.scopes[0]) for scope in SCOPES
    ]


@pytest.mark.parametrize(
    ("owner", "scopes", "message"),
    [
        ("ada", ["write"], "give one or more of read, submit, admin"),
        ("ada", [], "give one or more of read, submit, admin"),
        ("a b", ["read"], "Give a name of at most 64 letters"),
        ("", ["read"], "Give a name of at most 64 letters"),
        ("\u202eada", ["read"], "Give a name of at most 64 letters"),
        ("local", ["read"], "in the ledger that is the operator on the store's own machine"),
    ],
)
def test_bad_tokens_are_not_made(store: Store, owner: str, scopes: list[str], message: str) -> None:
    create_server_tables(store)
    with pytest.raises(TreegrpoError, match=message):
        new_token(store, owner, scopes)
    assert list_tokens(store) == []


@pytest.mark.parametrize("token_id", ["", "%", "0123"])
def test_revoking_needs_an_id(store: Store, token_id: str) -> None:
    create_server_tables(store)
    new_token(store, "ada", ["read"])
    with pytest.raises(
        TreegrpoError, match=r"Revoking the token '.*' asked for, found (none|several)"
    ):
        revoke_token(store, token_id)


def test_what_killed_servers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    names = ("old.part", "new.part", "orphan.tar", "open.tar", "new.tar")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    for name in ("old.part", "orphan.tar", "open.tar"):
        os.utime(tmp_path / name, (1, 1))
    sweep(tmp_path, lambda name: name == "open")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["new.part", "new.tar", "open.tar"]
