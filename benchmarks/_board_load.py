"""Many submit and read at once, and the server is killed in the middle: what is left is checked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.server.client import Client
from treegrpo.leaderboards.server.queue import get_submission
from treegrpo.leaderboards.server.tables import create_server_tables
from treegrpo.leaderboards.server.tokens import new_token
from treegrpo.leaderboards.store import Store, open_store

ENV = "treegrpo/Notes-v0"
OWNERS = 20
READERS = 8
PATIENCE_S = 300.0
_COMMAND = "from treegrpo.cli.main import main; main()"


@dataclass
class Load:
    """What was asked of one server, what it answered, and what is left of it."""

    database: str
    submissions: int
    reads: int
    kill_workers: bool
    accepted: int = 0
    verified: int = 0
    lost: list[str] = field(default_factory=list[str])
    """Accepted runs that the store has not, or not whole."""
    wrong_pages: list[str] = field(default_factory=list[str])
    """Pages that came, but not as they should."""
    unanswered_reads: int = 0
    """Asked while no server was there, then asked again."""
    read_ms: list[float] = field(default_factory=list[float])
    submit_ms: list[float] = field(default_factory=list[float])
    drained_s: float = 0.0
    """From the first submission to the last verdict."""


def make_bundles(folder: Path, count: int) -> list[Path]:
    """Return so many different bundles of one episode each."""
    paths = [folder / f"bundle-{seed}" for seed in range(count)]
    for seed, path in enumerate(paths):
        evaluate(
            scripted_agent("random"), ENV, split="test", num_tasks=1, trials=1, seed=seed, out=path
        )
    return paths


def run_load(
    url: str, folder: Path, bundles: Sequence[Path], reads: int, *, kill_workers: bool
) -> Load:
    """Return what became of a load on a server whose store is at `url`.

    Args:
        url: of an empty database.
        folder: for inbox and objects.
        bundles: all are submitted at once.
        reads: pages that are read meanwhile.
        kill_workers: kill the verifiers together with the server, by which their leases must run
            out (a minute); else only the server.
    """
    load = Load(url.partition(":")[0].partition("+")[0], len(bundles), reads, kill_workers)
    objects = folder / "objects"
    with open_store(url, create=True, objects=objects) as store:
        store.add(bundles[0])
        create_server_tables(store)
        tokens = [new_token(store, f"owner-{n}", ["submit"])[0] for n in range(OWNERS)]
        words = ["--store", url, "--objects", str(objects), "--inbox", str(folder / "inbox")]
        with _Server(words, folder / "server.log") as server:
            _run(server, load, bundles, tokens, store)
        _check(store, folder, bundles, load)
    return load


class _Server:
    """`treegrpo leaderboard serve`, which can be killed and started again on its port."""

    def __init__(self, words: list[str], log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        limits = ["--reads-per-minute", "1e9", "--writes-per-minute", "1e9", "--workers", "2"]
        self._words = [*words, "--port", str(self.port), *limits]
        self._log = log

    def __enter__(self) -> _Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, "leaderboard", "serve", *self._words],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _until(lambda: self._answers(), "the server starts")

    def kill(self, *, workers: bool) -> None:
        if workers:
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait(60)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/api/v1/health", timeout=30).is_success
        return False


def _run(
    server: _Server, load: Load, bundles: Sequence[Path], tokens: Sequence[str], store: Store
) -> None:
    paths = [f"/boards/{key.id}.{kind}" for key in store.boards() for kind in ("html", "json")]
    paths += ["/index.html", "/api/v1/boards", "/api/v1/ledger", "/static/site.css"]
    started = time.monotonic()
    with _reading(server.url, paths, load), ThreadPoolExecutor(len(bundles)) as pool:
        jobs = [
            pool.submit(_submit, server.url, tokens[n % OWNERS], bundle, load)
            for n, bundle in enumerate(bundles)
        ]
        half = len(bundles) // 2
        _until(lambda: sum(job.done() for job in jobs) >= half, "half of the submissions")
        server.kill(workers=load.kill_workers)
        server.start()
        states = [_decided(server.url, *job.result()) for job in jobs]
    load.drained_s = time.monotonic() - started
    load.accepted, load.verified = len(states), Counter(states)["verified"]


def _submit(url: str, token: str, bundle: Path, load: Load) -> tuple[str, str]:
    began = time.monotonic()
    with Client(url, token) as client:
        while True:
            try:
                receipt = client.submit(bundle)
                load.submit_ms.append(1000 * (time.monotonic() - began))
                return token, receipt.id
            except TreegrpoError:
                # No receipt, so nothing was promised: ask again, as a person would.
                if time.monotonic() - began > PATIENCE_S:
                    raise


def _decided(url: str, token: str, submission: str) -> str:
    with Client(url, token) as client:
        return client.wait(submission, PATIENCE_S).state


@contextlib.contextmanager
def _reading(url: str, paths: Sequence[str], load: Load) -> Generator[None]:
    """Read pages meanwhile, and the rest of them at the end."""
    left = iter(range(load.reads))
    lock = threading.Lock()

    def read() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                _read(client, paths[number % len(paths)], load)

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _read(client: httpx.Client, path: str, load: Load) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            answer = client.get(path)
        except httpx.TransportError:
            load.unanswered_reads += 1
            time.sleep(0.2)
            continue
        load.read_ms.append(1000 * (time.monotonic() - began))
        whole = not path.endswith(".html") or answer.text.rstrip().endswith("</html>")
        if answer.status_code != 200 or not whole:
            load.wrong_pages.append(f"{path}: {answer.status_code}, {len(answer.content)} bytes")
        return
    load.wrong_pages.append(f"{path}: no answer")


def _check(store: Store, folder: Path, bundles: Sequence[Path], load: Load) -> None:
    """Compare what the store gives back with what was sent, byte by byte."""
    store.check_ledger()
    for number, bundle in enumerate(bundles):
        digest = read_bundle(bundle).digest
        try:
            kept = store.get(digest, folder / "restored" / str(number))
        except TreegrpoError as error:
            load.lost.append(f"{digest[:12]}: {error}")
            continue
        if _files(kept) != _files(bundle):
            load.lost.append(f"{digest[:12]}: other bytes")
    # A kill between a file's arrival and its acceptance leaves the file: nobody was promised it.
    left = [path for path in (folder / "inbox").iterdir() if get_submission(store, path.stem)]
    load.lost += [f"still in the inbox: {path.name}" for path in left]


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE_S} s until {what}")
        time.sleep(0.05)
