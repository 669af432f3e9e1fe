"""Bundles on disk: whole or absent, and any change of any byte is found."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leaderboards.toy import TOY, forge
from treegrpo.envs.digest import digest_bytes
from treegrpo.leaderboards import bundle as bundles
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import check_place, read_bundle, sealed_manifest, staging
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate

FILES = ("run.json", "episodes.jsonl", "trajectories.jsonl")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "original"
    evaluate(scripted_agent("oracle"), TOY, split="test", num_tasks=2, trials=2, seed=0, out=out)
    return out


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def resealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Make the digests of a changed bundle right again, as any forger can."""
    fields = json.loads((folder / "run.json").read_text())
    for name in fields["files"]:
        fields["files"][name] = digest_bytes((folder / name).read_bytes())
    change(fields)
    fields.pop("digest", None)
    text = sealed_manifest(fields).model_dump_json(indent=2) + "\n"
    (folder / "run.json").write_text(text)


def test_a_bundle_reads_back(original: Path) -> None:
    bundle = read_bundle(original)
    assert bundle.manifest.num_tasks == 2
    assert len(bundle.episodes) == len(bundle.trajectories) == 4
    assert bundle.digest == bundle.manifest.digest
    assert sorted(path.name for path in original.iterdir()) == sorted(FILES)


@given(st.data())
def test_any_changed_byte_is_found(
    original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = (original / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["change", "delete", "insert"]))
    byte = bytes([data.draw(st.integers(0, 255).filter(lambda b: b != content[at]))])
    rest = content[at:] if kind == "insert" else content[at + 1 :]
    folder = tmp_path_factory.mktemp("tampered")
    for other in FILES:
        shutil.copy(original / other, folder)
    (folder / name).write_bytes(content[:at] + (b"" if kind == "delete" else byte) + rest)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", '"trials": 2', '"trials": "2"', r"run\.json, field trials: .*integer"),
        ("run.json", '"trials": 2', '"trials": 2, "x": 1', r"run\.json, field x: .*not permitted"),
        ("run.json", '"trials": 2', '"trials": -1', r"run\.json, field trials"),
        ("run.json", '"trials": 2', '"trials": 3', r"run\.json .* was altered"),
        ("run.json", '"trials": 2', '"trials":  2', r"run\.json .* was altered"),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":1.1', "line 1, field reward: .*string"),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":"nan"', "line 1, field reward"),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":"1e999"', "line 1, field reward: .*finite"),
        ("episodes.jsonl", '"turns":2', '"turns":true', "line 1, field turns"),
        ("episodes.jsonl", '"turns":2', '"turns":1e99999', "line 1, field turns"),
        ("episodes.jsonl", '"turns":2', '"turns":2,"evil\\u001b[31m":0', r"field evil\\x1b\[31m"),
        ("episodes.jsonl", '"turns":2', '"turns":null', "line 1, field turns"),
        ("trajectories.jsonl", '"kind":"reset"', '"kind":"exec"', r"line 1, field events\.0"),
        ("trajectories.jsonl", '"step":1', '"step":0', r"line 1, field events\.1\.step\.step"),
    ],
)
def test_a_wrong_value_is_named_by_file_line_and_field(
    copy: Path, name: str, old: str, new: str, message: str
) -> None:
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"[" * 200_000,
        b'{"index":' * 100_000,
        b"null\n",
        b"\x00\xff\xfe",
        b"9" * 100_000,
        b"{}\n{}\n",
    ],
    ids=["empty", "blank", "nested", "nested-objects", "null", "binary", "number", "objects"],
)
def test_hostile_content_is_one_error(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_bundle(copy)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", FILES)
def test_a_file_must_be_there_and_regular(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="no such regular file"):
        read_bundle(copy)
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="no such regular file"):
        read_bundle(copy)


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(BundleError, match="found a file"):
        read_bundle(tmp_path / "file")
    with pytest.raises(BundleError, match="found nothing"):
        read_bundle(tmp_path / "missing")


def test_sizes_are_capped(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(len(line) for line in (copy / "trajectories.jsonl").read_bytes().split(b"\n"))
    monkeypatch.setattr(bundles, "MAX_LINE_BYTES", longest)
    with pytest.raises(BundleError, match=r"trajectories\.jsonl, line \d is longer than"):
        read_bundle(copy)
    monkeypatch.setattr(bundles, "MAX_FILE_BYTES", 100)
    with pytest.raises(BundleError, match="at most 100 are read"):
        read_bundle(copy)
    monkeypatch.setattr(bundles, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(BundleError, match="at most 10 are read"):
        read_bundle(copy)


def test_a_dropped_episode_is_found_under_right_digests(copy: Path) -> None:
    for name in ("episodes.jsonl", "trajectories.jsonl"):
        lines = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(lines[:1] + lines[2:]))
    resealed(copy)
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 2, .*\(0, 1\) was expected"):
        read_bundle(copy)


def test_a_doubled_episode_is_found_under_right_digests(copy: Path) -> None:
    path = copy / "trajectories.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])
    resealed(copy)
    with pytest.raises(BundleError, match=r"trajectories\.jsonl, line 5, .*too many lines"):
        read_bundle(copy)


def test_picked_seeds_are_found_under_right_digests(original: Path, tmp_path: Path) -> None:
    forged = forge(original, tmp_path / "forged", episode=lambda e: {"seed": e.seed // 2})
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 1, field seed"):
        read_bundle(forged)


def test_other_tasks_than_asked_for_are_found(copy: Path) -> None:
    resealed(copy, lambda fields: fields["tasks"].pop())
    with pytest.raises(BundleError, match=r"run\.json, field tasks"):
        read_bundle(copy)


def test_staging_is_all_or_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"), staging(tmp_path / "out") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []
    with staging(tmp_path / "new" / "out") as folder:
        (folder / "a").write_text("whole")
        assert not (tmp_path / "new" / "out").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out" / "a").read_text() == "whole"


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "old").write_text("half")
    with staging(tmp_path / "out") as folder:
        assert folder == tmp_path / ".out.part"
        (folder / "a").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_trying_a_place_leaves_nothing_and_refuses_what_staging_refuses(tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    check_place(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place, says in (("file", "exists already"), ("file/out", "cannot be written")):
        with pytest.raises(BundleError, match=says):
            check_place(tmp_path / place)


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="exists already"), staging(tmp_path / "out"):
        pass


def test_reading_does_not_hang_on_a_pipe(copy: Path) -> None:
    import os

    (copy / "episodes.jsonl").unlink()
    os.mkfifo(copy / "episodes.jsonl")
    errors: list[Exception] = []

    def read() -> None:
        try:
            read_bundle(copy)
        except BundleError as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert len(errors) == 1
