"""Bundles on disk: whole or absent, and any change of any byte is found."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, forge
from treegrpo.envs.digest import digest_bytes
from treegrpo.leaderboards import bundle as bundles
from treegrpo.leaderboards import trajectories
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle, sealed_manifest
from treegrpo.leaderboards.chain import leaf_hash, root_of, spelled
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.files import packed
from treegrpo.leaderboards.staging import check_place, staging
from treegrpo.leaderboards.trajectories import file_name

FILES = ("run.json", "episodes.jsonl")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "original"
    evaluate(scripted_agent("oracle"), TOY, split="test", num_tasks=2, trials=2, seed=0, out=out)
    return out


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def first_log(folder: Path) -> Path:
    """Return the file of the first episode's log."""
    return folder / file_name(str(read_bundle(folder).episodes[0].chain))


def resealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Make root and digest of a changed bundle right again, as any forger can."""
    fields = json.loads((folder / "run.json").read_text())
    rows = (folder / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    fields["root"] = root_of([leaf_hash(row) for row in rows])
    change(fields)
    fields.pop("digest", None)
    manifest = sealed_manifest(fields).model_dump(mode="json")
    (folder / "run.json").write_bytes(spelled(manifest, indent=2))


def test_the_folder_of_a_suite_is_told_from_a_bundle(copy: Path) -> None:
    with pytest.raises(BundleError, match=r"found a folder of 1 bundles, .*Give them one by one: "):
        read_bundle(copy.parent)


def test_a_bundle_reads_back(original: Path) -> None:
    bundle = read_bundle(original)
    assert (bundle.manifest.format_version, bundle.manifest.num_tasks) == (2, 2)
    assert [len(bundle.events(episode)) for episode in bundle.episodes] == [3] * 4
    assert bundle.digest == bundle.manifest.digest
    assert {path.name for path in original.iterdir()} == {*FILES, "trajectories"}
    logs = {f"{episode.chain}.jsonl.gz" for episode in bundle.episodes}
    assert {path.name for path in (original / "trajectories").iterdir()} == logs


def test_the_root_is_the_merkle_root_over_the_lines(original: Path) -> None:
    lines = (original / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    leaves = [hashlib.sha256(b"\0treegrpo episode 2" + line).digest() for line in lines]
    left, right = (hashlib.sha256(b"\1" + leaves[at] + leaves[at + 1]).digest() for at in (0, 2))
    root = hashlib.sha256(b"\1" + left + right).hexdigest()
    assert read_bundle(original).manifest.root == root
    assert root_of(leaves[:1]) == leaves[0].hex()
    odd = hashlib.sha256(b"\1" + left + leaves[2]).hexdigest()
    assert root_of(leaves[:3]) == odd


def test_a_log_packs_to_the_same_bytes_and_says_nothing_of_when(original: Path) -> None:
    data = first_log(original).read_bytes()
    assert packed(gzip.decompress(data)) == data
    assert data[4:8] == bytes(4)  # the time of a gzip file


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", '"trials": 2', '"trials": "2"', r"run\.json, field trials: .*integer"),
        ("run.json", '"trials": 2', '"trials": -1', r"run\.json, field trials"),
        ("run.json", '"trials": 2', '"trials": 3', r"run\.json .* was altered"),
        ("run.json", '"trials": 2', '"trials":  2', r"run\.json, character \d+: .* one spelling"),
        ("run.json", '"format_version": 2', '"format_version": 1', "format 1 found, .* again"),
        ("run.json", '"format_version": 2', '"format_version": "x"', "format 'x' found"),
        ("run.json", '"treegrpo-bundle"', '"tar"', r"run\.json, field format: "),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":1.1', "line 1, field reward: .*string"),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":"nan"', "line 1, field reward"),
        ("episodes.jsonl", '"reward":"1.1"', '"reward":"1e999"', "line 1, field reward: .*finite"),
        (
            "episodes.jsonl",
            '"reward":"1.1"',
            '"reward":"1.10"',
            "field reward: .*spelling .* is 1.1",
        ),
        ("episodes.jsonl", '"turns":2', '"turns":true', "line 1, field turns"),
        ("episodes.jsonl", '"turns":2', '"turns":null', "line 1, field turns"),
        ("episodes.jsonl", '"turns":2', '"turns":NaN', r"line 1, .*NaN is no number"),
        ("episodes.jsonl", '"turns":2', '"turns":1e99999', "line 1, field .whole"),
        ("episodes.jsonl", '"turns":2', '"turns":2,"u\\u001b[31m":0', r"field u\\x1b\[31m"),
        ("episodes.jsonl", '"turns":2', '"turns":2,"turns":2', "line 1, character .*none doubled"),
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"kind":"reset"', '"kind":"exec"', r"line 1, field \(whole\): .*'exec'"),
        ('"step":1', '"step":0', r"line 2, field step\.step"),
        ('"terminated":false', '"terminated":0', r"line 2, field step\.terminated"),
    ],
)
def test_a_wrong_value_of_an_event_is_named(
    original: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    shutil.copytree(original, tmp_path / "copy")
    rewrite_log(tmp_path / "copy", lambda text: text.replace(old, new, 1))
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path / "copy")


def rewrite_log(folder: Path, change: Callable[[str], str]) -> None:
    """Change the text of the first log; the digests above it are made right again."""
    log = first_log(folder)
    before = log.read_bytes()
    text = gzip.decompress(before).decode()
    assert change(text) != text
    log.write_bytes(packed(change(text).encode()))
    rows = (folder / "episodes.jsonl").read_text()
    rows = rows.replace(digest_bytes(before), digest_bytes(log.read_bytes()))
    (folder / "episodes.jsonl").write_text(rows)
    resealed(folder)


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


@pytest.mark.parametrize("name", [*FILES, "trajectories"])
def test_a_file_must_be_there_and_no_link(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"found nothing|no such folder"):
        read_bundle(copy)
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"found a link|no such folder"):
        read_bundle(copy)


def test_what_is_no_folder_is_named(tmp_path: Path, original: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to(original)
    for name, found in (("file", "a file"), ("link", "a file or a link"), ("missing", "nothing")):
        with pytest.raises(BundleError, match=f"found {found}"):
            read_bundle(tmp_path / name)


def test_another_name_of_the_same_file_is_no_fault(copy: Path, tmp_path: Path) -> None:
    os.link(copy / "episodes.jsonl", tmp_path / "elsewhere")
    assert len(read_bundle(copy).episodes) == 4


def test_sizes_are_capped(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(gzip.decompress(first_log(copy).read_bytes()))
    for module, cap, value, message in (
        (trajectories, "MAX_LINE_BYTES", 100, r"jsonl\.gz, line 1 is longer than 100"),
        (trajectories, "MAX_UNPACKED_BYTES", size - 1, rf"unpacks to more than {size - 1} bytes"),
        (trajectories, "MAX_PACKED_BYTES", 10, "at most 10 are read"),
        (bundles, "MAX_LINE_BYTES", 100, r"episodes\.jsonl, line 1 is longer than 100"),
        (bundles, "MAX_FILE_BYTES", 100, "at most 100 are read"),
        (bundles, "MAX_MANIFEST_BYTES", 10, "at most 10 are read"),
    ):
        monkeypatch.setattr(module, cap, value)
        with pytest.raises(BundleError, match=message):
            read_bundle(copy)


def test_an_old_bundle_is_told_to_be_evaluated_again(copy: Path) -> None:
    (copy / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(BundleError, match=r"is of format 1 .* Evaluate again"):
        read_bundle(copy)


def test_a_dropped_episode_is_found_under_right_digests(copy: Path) -> None:
    lines = (copy / "episodes.jsonl").read_text().splitlines(keepends=True)
    (copy / "episodes.jsonl").write_text("".join(lines[:1] + lines[2:]))
    resealed(copy)
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 2, .*\(0, 1\) was expected"):
        read_bundle(copy)


def test_a_doubled_episode_is_found_under_right_digests(copy: Path) -> None:
    path = copy / "episodes.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])
    resealed(copy)
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 5, .*no further line"):
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
    def fail() -> None:
        with staging(tmp_path / "out", {}) as stage:
            (stage.bundle / "a").write_text("half")
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with staging(tmp_path / "new" / "out", {}) as stage:
        (stage.bundle / "a").write_text("whole")
        assert not (tmp_path / "new" / "out").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out" / "a").read_text() == "whole"


def test_trying_a_place_leaves_it_as_it_was(tmp_path: Path) -> None:
    check_place(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.part").mkdir()
    check_place(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]
    (tmp_path / "file").write_text("")
    for place, says in (("file", "exists already"), ("file/out", "cannot be written")):
        with pytest.raises(BundleError, match=says):
            check_place(tmp_path / place)


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="exists already"), staging(tmp_path / "out", {}):
        pass


def test_a_pipe_is_no_file_and_is_not_waited_for(copy: Path) -> None:
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
    thread.join(timeout=30)
    assert len(errors) == 1
