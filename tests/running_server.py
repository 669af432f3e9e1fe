"""A leaderboard's server on loopback, in a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.server.app import build_app
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.store import Store, open_store

START_S = 60


@contextlib.contextmanager
def running(app: FastAPI) -> Generator[str]:
    """Yield the address of an application that answers on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + START_S
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server does not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START_S)


@contextlib.contextmanager
def serving(folder: Path, **changes: Any) -> Generator[tuple[httpx.Client, Store, ServerSettings]]:
    """Yield a client of a server over a new store in `folder`; no verifier runs by itself."""
    url = f"sqlite:///{folder / 'board.sqlite'}"
    values: dict[str, Any] = {"store": url, "inbox": folder / "inbox", "workers": 0}
    settings = ServerSettings(**values | changes)
    with (
        open_store(url, create=True) as store,
        running(build_app(store, settings)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client, store, settings


def small_bundle(out: Path, *, seed: int = 0, agent: str = "oracle", tasks: int = 1) -> Path:
    """Return a bundle of a cheap environment of the suite."""
    evaluate(
        scripted_agent(agent),
        "treegrpo/Notes-v0",
        split="test",
        num_tasks=tasks,
        trials=1,
        seed=seed,
        out=out,
    )
    return out
