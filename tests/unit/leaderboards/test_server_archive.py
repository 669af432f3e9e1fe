"""Bundles as tar files: the same bytes both ways, and nothing of a stranger's tar is trusted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.server import archive
from treegrpo.leaderboards.server.archive import pack_bundle, unpack_bundle

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "bundles").iterdir())[0]
CHAIN = "trajectories/" + "a" * 64 + ".jsonl.gz"


def packed(bundle: Path) -> bytes:
    stream = io.BytesIO()
    pack_bundle(bundle, stream)
    return stream.getvalue()


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def file(name: str, data: bytes = b"{}") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def refusal(stream: io.BytesIO, folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        unpack_bundle(stream, folder)
    return str(error.value)


def test_a_bundle_arrives_as_it_was_sent(tmp_path: Path) -> None:
    data = packed(GOLDEN)
    unpack_bundle(io.BytesIO(data), tmp_path)
    assert read_bundle(tmp_path).digest == read_bundle(GOLDEN).digest
    assert packed(tmp_path) == data


def test_packing_refuses_what_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"'notes\.txt' in it, which is no file of a bundle"):
        packed(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "episodes.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match=r"'episodes\.jsonl' in it, which is no file"):
        packed(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../run.json",
        "/run.json",
        "trajectories/../run.json",
        "./run.json",
        "trajectories/aa.jsonl.gz",
        "run.json\n",
        "RUN.JSON",
        "notes.txt",
    ],
)
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    assert f"found a member named {name!r}" in refusal(tar_of(file(name)), inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert [path.name for path in inside.rglob("*")] == ["trajectories"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "run.json"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.DIRTYPE, ""),
    ],
    ids=["symlink", "hard link", "pipe", "device", "folder"],
)
def test_only_regular_files(kind: bytes, target: str, tmp_path: Path) -> None:
    found = refusal(tar_of(special("episodes.jsonl", kind, target)), tmp_path)
    assert "'episodes.jsonl', which is no regular file" in found


def test_a_member_twice(tmp_path: Path) -> None:
    found = refusal(tar_of(file("run.json"), file("run.json", b"[]")), tmp_path)
    assert "found 'run.json' twice" in found
    assert (tmp_path / "run.json").read_bytes() == b"{}"


def test_a_member_that_is_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 3)
    found = refusal(tar_of(file(CHAIN, b"four")), tmp_path)
    assert f"'{CHAIN}' of 4 bytes, more than 3" in found
    unpack_bundle(tar_of(file("run.json", b"two")), _folder(tmp_path / "other"))


def test_too_many_members(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "MAX_EPISODES", 0)
    members = [file(f"trajectories/{n:064x}.jsonl.gz") for n in range(5)]
    assert "found more than 4 members" in refusal(tar_of(*members), tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"\0" * 100, b"\x1f\x8b" + b"x" * 600, packed(GOLDEN)[:700]],
    ids=["empty", "text", "short", "gzip", "cut"],
)
def test_no_tar_file(data: bytes, tmp_path: Path) -> None:
    assert "no readable tar file" in refusal(io.BytesIO(data), tmp_path)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
