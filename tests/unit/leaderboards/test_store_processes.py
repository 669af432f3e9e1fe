"""Several processes at one store: nothing is lost, nothing is half there after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.leaderboards.stored import every_board, run
from tests.unit.leaderboards.toy import ToyAgent, half_right
from treegrpo.leaderboards.store import open_store

ROOT = Path(__file__).resolve().parents[3]

ADD = """
import sys
from pathlib import Path
import tests.unit.leaderboards.toy
from treegrpo.leaderboards.store import open_store
url, objects, *bundles = sys.argv[1:]
with open_store(url, create=True, objects=Path(objects)) as store:
    for bundle in bundles:
        store.add(Path(bundle))
"""
KILLED = """
import os, signal, sys
from pathlib import Path
import tests.unit.leaderboards.toy
from treegrpo.leaderboards.store import open_store, objects, submissions
url, folder, bundle, place = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if place == "object":
    write = objects.write_file
    def half(path, data):
        write(path, data[: len(data) // 2])
        die()
    objects.write_file = half
elif place == "rows":
    submissions.rerank = die          # every row is written, nothing is committed
else:
    submissions.episode_columns = die
with open_store(url, create=True, objects=Path(folder)) as store:
    store.add(Path(bundle))
"""


def start(code: str, *words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_add_at_once(tmp_path: Path, any_url: str) -> None:
    """Even the tables are made by whoever comes first."""
    bundles = [run(tmp_path / f"b{n}", ToyAgent(half_right, name=f"a{n}")) for n in range(6)]
    shared = run(tmp_path / "shared")
    objects = tmp_path / "objects"
    working = [
        start(ADD, any_url, objects, *bundles[:3], shared),
        start(ADD, any_url, objects, shared, *bundles[3:]),
    ]
    for process in working:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
    with open_store(any_url, objects=objects) as store:
        [board] = every_board(store)
        assert {row.agent for row in board.rows} == {"toy", *(f"a{n}" for n in range(6))}
        assert {row.rank for row in board.rows} == {1}
        [mark] = store.check_ledger()
        assert mark.size == 14


@pytest.mark.parametrize("place", ["object", "rows", "episodes"])
def test_killed_in_the_middle_nothing_is_half_there(
    tmp_path: Path, any_url: str, place: str
) -> None:
    objects = tmp_path / "objects"
    first, second = run(tmp_path / "first"), run(tmp_path / "second", seed=5)
    with open_store(any_url, create=True, objects=objects) as store:
        store.add(first)
        before = every_board(store), store.ledger()
    process = start(KILLED, any_url, objects, second, place)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    with open_store(any_url, objects=objects) as store:
        assert (every_board(store), store.ledger()) == before
        for file in objects.glob("??/*"):
            name = file.parent.name + file.name
            assert store.objects.get(name, 2**20)  # its bytes have its digest
        store.add(second)
        store.get(store.add(second), tmp_path / "out")
        store.check_ledger()
        assert len(every_board(store)[0].rows) == 2
