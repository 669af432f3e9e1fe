"""Cassettes: written once, shared by threads and processes, and clear about what they lack."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from treegrpo.envs.errors import DataFileError, SandboxFailed
from treegrpo.envs.retrieval import Cassette, Hit, PageFailed, Recorded, RetrievalFailed
from treegrpo.envs.retrieval.cassette import MAX_REPLY_CHARS

ASKED = {"query": "a", "top_k": 2}


class Changing:
    """A web that says something else each time it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, query: str, top_k: int) -> list[Hit]:
        self.asked.append(query)
        if query == "down":
            raise RetrievalFailed("the engine is down")
        return [Hit(f"{query} {len(self.asked)}", "http://a.example/", "text")][:top_k]

    def open(self, hit: Hit) -> str:
        self.asked.append(hit.address)
        if "gone" in hit.address:
            raise PageFailed(f"it is gone ({len(self.asked)})")
        return f"page {len(self.asked)}"


def test_the_first_reply_to_a_request_is_kept_for_ever(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path / "c.sqlite")
    assert cassette.find(ASKED) is None
    assert cassette.keep(ASKED, "one") == "one"
    assert cassette.keep(ASKED, "two") == "one"
    assert cassette.find({"top_k": 2, "query": "a"}) == "one"
    assert cassette.find({"top_k": 3, "query": "a"}) is None
    assert len(cassette) == len(Cassette(tmp_path / "c.sqlite", writes=False)) == 1


def test_many_threads_agree_on_one_reply(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"

    def keep(number: int) -> str:
        return Cassette(path).keep({"query": str(number % 3)}, str(number))

    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(keep, range(48)))
    assert len(set(kept)) == 3 == len(Cassette(path))
    for rest in range(3):
        assert len(set(kept[rest::3])) == 1


KEEP = """
import sys
from pathlib import Path
from treegrpo.envs.retrieval.cassette import Cassette
for number in range(40):
    print(Cassette(Path(sys.argv[1])).keep({"query": number}, f"{sys.argv[2]} {number}"))
"""


def test_processes_agree_on_one_reply(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KEEP, str(tmp_path / "c.sqlite")]
    running = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    said = [process.communicate()[0].splitlines() for process in running]
    assert said[0] == said[1]
    assert len(said[0]) == 40 == len(Cassette(tmp_path / "c.sqlite"))


def test_a_cassette_holds_nothing_open_and_travels(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path / "c.sqlite")
    before = len(os.listdir("/proc/self/fd"))
    cassette.keep(ASKED, "one")
    assert len(os.listdir("/proc/self/fd")) == before
    assert pickle.loads(pickle.dumps(cassette)).find(ASKED) == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["c.sqlite"]


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    connection.close()


def newer_cassette(path: Path) -> None:
    Cassette(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()


def test_files_that_are_no_cassettes_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    for make, says in (
        (lambda path: path.write_text("no database, but long enough" * 9), "no cassette"),
        (other_database, "a database of something else"),
        (newer_cassette, "a cassette of format 9; this is 1"),
        (lambda path: path.mkdir(), "cannot be used"),
    ):
        make(path)
        before = path.read_bytes() if path.is_file() else b""
        for writes in (True, False):
            with pytest.raises(DataFileError, match=r"c\.sqlite' asked for, but ") as caught:
                Cassette(path, writes=writes)
            assert says in str(caught.value) or "no such file" in str(caught.value)
        if path.is_file():
            assert path.read_bytes() == before
            path.unlink()


def test_a_missing_file_is_named_with_what_is_near(tmp_path: Path) -> None:
    Cassette(tmp_path / "web.sqlite")
    with pytest.raises(DataFileError, match=r"no such file\. Did you mean 'web\.sqlite'\? Record"):
        Cassette(tmp_path / "wep.sqlite", writes=False)
    with pytest.raises(DataFileError, match=r"there is no folder '.*none'\. Make it first"):
        Cassette(tmp_path / "none" / "web.sqlite")


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    cassette = Cassette(path)
    with pytest.raises(RetrievalFailed, match="Ask for fewer or shorter documents"):
        cassette.keep(ASKED, "x" * (MAX_REPLY_CHARS + 1))
    with pytest.raises(RetrievalFailed, match="open for replay"):
        Cassette(path, writes=False).keep(ASKED, "x")
    path.write_bytes(b"overwritten by somebody" * 300)
    with pytest.raises(RetrievalFailed, match="cannot be used any more"):
        cassette.find(ASKED)


def test_siblings_see_what_the_first_one_saw(tmp_path: Path) -> None:
    web = Changing()
    cassette = Cassette(tmp_path / "c.sqlite")
    one, other = (Recorded(lambda: web, cassette, "test") for _ in range(2))
    hits = one.search("lamp", 2)
    assert other.search("  lamp ", 2) == hits == [Hit("lamp 1", "http://a.example/", "text")]
    assert one.open(hits[0]) == other.open(hits[0]) == "page 2"
    assert web.asked == ["lamp", "http://a.example/"]
    assert other.search("lamp", 1) != hits, "another number of hits is another request"
    assert Recorded(lambda: web, cassette, "else").search("lamp", 2) != hits


def test_a_closed_door_is_closed_for_everybody(tmp_path: Path) -> None:
    recorded = Recorded(Changing, Cassette(tmp_path / "c.sqlite"), "test")
    for _ in range(2):
        with pytest.raises(PageFailed, match=r"it is gone \(1\)"):
            recorded.open(Hit("", "http://a.example/gone", ""))


def test_an_engine_that_is_down_is_asked_again_later(tmp_path: Path) -> None:
    web = Changing()
    recorded = Recorded(lambda: web, Cassette(tmp_path / "c.sqlite"), "test")
    for _ in range(2):
        with pytest.raises(RetrievalFailed, match="the engine is down"):
            recorded.search("down", 2)
    assert web.asked == ["down", "down"]
    assert len(recorded.cassette) == 0


def test_a_replay_gives_what_it_holds_and_names_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    hits = Recorded(Changing, Cassette(path), "test").search("lamp", 2)
    replay = Recorded(None, Cassette(path, writes=False), "test")
    assert replay.search("lamp", 2) == hits
    with pytest.raises(RetrievalFailed) as caught:
        replay.search("light", 2)
    assert str(caught.value) == (
        f"Replay of source 'test', query 'light', top_k 2 asked for; cassette '{path}' holds 1 "
        "replies, and none to this request. Record it with cassette_mode='auto', or check that "
        "the cassette and the options (provider, url, top_k) are those of the recording."
    )
    assert isinstance(caught.value, SandboxFailed), "it must not pass for the agent's mistake"


@pytest.mark.parametrize(
    "reply",
    [
        *("", "not json", "[" * 100_000, "[]", "{}"),
        *('{"hits": 3}', '{"hits": [["a", "b"]]}', '{"hits": [[1, 2, 3]]}'),
    ],
)
def test_a_changed_cassette_is_found_out(tmp_path: Path, reply: str) -> None:
    cassette = Cassette(tmp_path / "c.sqlite")
    cassette.keep({"source": "test", "query": "lamp", "top_k": 2}, reply)
    with pytest.raises(RetrievalFailed, match="is malformed: the file was changed"):
        Recorded(None, cassette, "test").search("lamp", 2)


def test_a_changed_page_is_found_out(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path / "c.sqlite")
    cassette.keep({"source": "test", "page": "x"}, json.dumps({"page": 3}))
    with pytest.raises(RetrievalFailed, match="is malformed"):
        Recorded(None, cassette, "test").open(Hit("", "x", ""))
