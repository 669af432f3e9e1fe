"""Several processes at one store: nothing is lost, nothing is half there after a kill.

The children are forked from one fresh process, which has imported everything and opened nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.leaderboards.stored import every_board, run
from tests.unit.leaderboards.toy import ToyAgent, half_right
from treegrpo.leaderboards.store import open_store

ROOT = Path(__file__).resolve().parents[3]

BEGIN = """
import os, signal, sys
from pathlib import Path
import tests.unit.leaderboards.toy
from treegrpo.leaderboards.store import objects, open_store, submissions
url, folder, *words = sys.argv[1:]

def fork(work, *arguments):
    child = os.fork()
    if child == 0:
        with open_store(url, create=True, objects=Path(folder)) as store:
            work(store, *arguments)
        os._exit(0)
    return child
"""
ADD = """
def add(store, *bundles):
    for bundle in bundles:
        store.add(Path(bundle))

half = len(words) // 2
children = [fork(add, *words[:half]), fork(add, *words[half:])]
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""
KILL = """
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write_half(path, data):
    path.write_bytes(data[: len(data) // 2])
    die()

def in_an_object(store, bundle):
    objects.write_file = write_half
    store.add(Path(bundle))

def between_the_rows(store, bundle):
    submissions.episode_columns = die
    store.add(Path(bundle))

def before_the_commit(store, bundle):
    submissions.rerank = die
    store.add(Path(bundle))

for work in (in_an_object, between_the_rows, before_the_commit):
    _, status = os.waitpid(fork(work, words[0]), 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (work, status)
"""


def python(code: str, *words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + code, *map(str, words)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_two_processes_add_at_once(tmp_path: Path, any_url: str) -> None:
    """Even the tables are made by whoever comes first."""
    bundles = [run(tmp_path / f"b{n}", ToyAgent(half_right, name=f"a{n}")) for n in range(6)]
    shared, objects = run(tmp_path / "shared"), tmp_path / "objects"
    python(ADD, any_url, objects, *bundles[:3], shared, shared, *bundles[3:])
    with open_store(any_url, objects=objects) as store:
        [board] = every_board(store)
        assert {row.agent for row in board.rows} == {"toy", *(f"a{n}" for n in range(6))}
        assert {row.rank for row in board.rows} == {1}
        [mark] = store.check_ledger()
        assert mark.size == 14


def test_killed_in_the_middle_nothing_is_half_there(tmp_path: Path, any_url: str) -> None:
    objects = tmp_path / "objects"
    first, second = run(tmp_path / "first"), run(tmp_path / "second", seed=5)
    with open_store(any_url, create=True, objects=objects) as store:
        store.add(first)
        before = every_board(store), store.ledger()
    python(KILL, any_url, objects, second)
    with open_store(any_url, objects=objects) as store:
        assert (every_board(store), store.ledger()) == before
        assert [file.stat().st_size > 0 for file in (objects / "part").iterdir()] == [True]
        for file in objects.glob("??/*"):
            name = file.parent.name + file.name
            assert store.objects.get(name, 2**20)  # its bytes have its digest
        store.get(store.add(second), tmp_path / "out")
        store.check_ledger()
        assert len(every_board(store)[0].rows) == 2
