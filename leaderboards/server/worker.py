"""One verifier: it takes a submission, replays it, and adds to the store what verifies.

    python -m treegrpo.leaderboards.server.worker      settings as JSON in the first line of stdin

It ends when its standard input does, so it never outlives the server that started it; what it
had taken then waits again. An environment that hangs or dies takes the replaying process with
it (guarded.py), not this one. This one makes environments, too, to see what they are and what
the scripted agents do there: a submission that takes longer than `submission_seconds` ends it
with all its children, and that is counted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

from sqlalchemy import exc

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError, StoreError
from treegrpo.leaderboards.server import queue
from treegrpo.leaderboards.server.admission import check_admission
from treegrpo.leaderboards.server.archive import unpack_bundle
from treegrpo.leaderboards.server.inbox import archive_file
from treegrpo.leaderboards.server.queue import Submission
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.store import Store, open_store
from treegrpo.leaderboards.verify import Options

LEASE_S = 60.0
IDLE_S, AFTER_FAULT_S = 0.5, 5.0
LATE = 3
"""Exit status of a verifier whose submission took too long."""


def work_once(store: Store, settings: ServerSettings, worker: str) -> Submission | None:
    """Return the submission that was decided; None when nothing waits."""
    taken = queue.take(store, worker, LEASE_S)
    if taken is None or taken.state != "verifying":
        return taken
    state, reason, run_digest = "verified", None, taken.run_digest
    try:
        with _kept(store, taken, worker, settings.submission_seconds):
            run_digest = _verified(store, settings, taken)
    except SystemExit:
        queue.give_back(store, taken.id, worker, counted=False)
        raise
    except (TreegrpoError, OSError, OverflowError) as error:
        if _is_fault(error):
            # Only a database that is away is surely no fault of the submission. A disk that is
            # full or a row that is refused may be its doing, so that is one of its attempts.
            queue.give_back(store, taken.id, worker, counted=not _is_away(error))
            raise
        state, reason = "refused", str(error)
    decided = queue.decide(store, taken.id, worker, state, run_digest=run_digest, reason=reason)
    if decided and taken.archive is not None:
        archive_file(settings.inbox, taken.id).unlink(missing_ok=True)
    return queue.get_submission(store, taken.id)


def _verified(store: Store, settings: ServerSettings, taken: Submission) -> str:
    """Return the digest of the submitted run, which is in the store from now on."""
    options = Options(limits=settings.limits)
    if taken.archive is None:
        assert taken.run_digest is not None, "a submission without an archive names a run"
        store.rescore(taken.run_digest, who=taken.owner, options=options)
        return taken.run_digest
    with tempfile.TemporaryDirectory(prefix="treegrpo-submission-") as folder:
        bundle = Path(folder) / "bundle"
        bundle.mkdir()
        path = archive_file(settings.inbox, taken.id)
        if not path.exists():
            raise BundleError(
                f"The tar file {path.name} is no longer in the inbox. Submit it again."
            )
        with path.open("rb") as archive:
            unpack_bundle(archive, bundle)
        manifest = read_bundle(bundle).manifest
        check_admission(manifest.env_id, manifest.env_kwargs, settings.environments)
        return store.add(bundle, who=taken.owner, options=options)


def _is_fault(error: Exception) -> bool:
    """Return whether an error of a verification is no verdict on the submission."""
    if not isinstance(error, TreegrpoError):
        return True
    machine = exc.SQLAlchemyError, sqlite3.Error, OSError
    return isinstance(error, StoreError) and isinstance(error.__cause__, machine)


def _is_away(error: Exception) -> bool:
    """Return whether it is the database that cannot be reached."""
    away = exc.OperationalError, exc.InterfaceError, sqlite3.OperationalError
    return isinstance(error.__cause__, away)


@contextlib.contextmanager
def _kept(store: Store, taken: Submission, worker: str, most_s: float) -> Generator[None]:
    """Renew the lease while the submission is worked on, at most `most_s` seconds."""
    done, end = threading.Event(), time.monotonic() + most_s

    def renew() -> None:
        while not done.wait(max(0.0, min(LEASE_S / 3, end - time.monotonic()))):
            if time.monotonic() >= end:
                # Given back first: what the killed children make the other thread decide is void.
                with contextlib.suppress(Exception):
                    queue.give_back(store, taken.id, worker, counted=True)
                _end_late(taken, most_s)
            with contextlib.suppress(Exception):
                queue.renew(store, taken.id, worker, LEASE_S)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _end_late(taken: Submission, most_s: float) -> NoReturn:
    """End this process and what it has started: a thread that hangs cannot be ended otherwise."""
    sys.stderr.write(f"Submission {taken.id} took more than {most_s:g} s; its verifier ends.\n")
    sys.stderr.flush()
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    os._exit(LATE)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have; needs /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found[1:]


def main() -> None:
    """Work until standard input ends."""
    settings = ServerSettings.model_validate_json(sys.stdin.readline())
    worker = f"{os.getpid()}-{secrets.token_hex(4)}"
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_server, daemon=True).start()
    with open_store(settings.store, objects=settings.objects) as store:
        while True:
            try:
                busy = work_once(store, settings, worker) is not None
            except Exception:  # noqa: BLE001 - the boundary: a verifier goes on, the log says why
                traceback.print_exc()
                time.sleep(AFTER_FAULT_S)
                continue
            if not busy:
                time.sleep(IDLE_S)


def _end(*_: object) -> None:
    sys.exit(0)


def _end_with_server() -> None:
    sys.stdin.read()
    # In the main thread, so that what it has taken is given back and its files go.
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
