"""Law: no byte of a bundle can change unnoticed, whichever file and whichever way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leaderboards.cheats import copied
from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate

KINDS = ("flip a bit", "set a byte", "insert", "delete", "cut off", "append", "swap lines")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "original"
    evaluate(ToyAgent(half_right), TOY, split="test", num_tasks=3, trials=1, seed=0, out=out)
    return out


def changed(data: bytes, kind: str, at: int, byte: int) -> bytes:
    """Return the bytes after one change at a position."""
    at %= len(data)
    lines = data.splitlines(keepends=True)
    line = at % len(lines)
    if kind == "swap lines":
        lines[line], lines[line - 1] = lines[line - 1], lines[line]
    return {
        "flip a bit": data[:at] + bytes([data[at] ^ (1 << byte % 8)]) + data[at + 1 :],
        "set a byte": data[:at] + bytes([byte]) + data[at + 1 :],
        "insert": data[:at] + bytes([byte]) + data[at:],
        "delete": data[:at] + data[at + 1 :],
        "cut off": data[:at],
        "append": data + bytes([byte]),
        "swap lines": b"".join(lines),
    }[kind]


@given(
    file=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
)
def test_any_change_of_any_byte_is_found_by_both_readers(
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    file: int,
    kind: str,
    at: int,
    byte: int,
) -> None:
    files = sorted(path for path in original.rglob("*") if path.is_file())
    assert len(files) == 5
    chosen = files[file % len(files)]
    data = chosen.read_bytes()
    after = changed(data, kind, at, byte)
    folder = tmp_path_factory.mktemp("tampered")
    try:
        copied(original, folder / "b")
        (folder / "b" / chosen.relative_to(original)).write_bytes(after)
        if after == data:  # a byte set to what it was, two equal lines swapped
            assert read_bundle(folder / "b").digest == standalone_verify.check(folder / "b")
            return
        with pytest.raises(BundleError):
            read_bundle(folder / "b")
        with pytest.raises(standalone_verify.Refused):
            standalone_verify.check(folder / "b")
    finally:
        shutil.rmtree(folder)


def test_every_single_byte_of_the_manifest_and_of_a_log_is_guarded(
    original: Path, tmp_path: Path
) -> None:
    """Not drawn but all of them, a flipped bit each."""
    copied(original, tmp_path / "b")
    log = min((tmp_path / "b" / "trajectories").iterdir())
    for path in (tmp_path / "b" / "run.json", tmp_path / "b" / "episodes.jsonl", log):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(changed(data, "flip a bit", at, at % 8))
            with pytest.raises(standalone_verify.Refused):
                standalone_verify.check(tmp_path / "b")
        path.write_bytes(data)
    assert standalone_verify.check(tmp_path / "b") == read_bundle(original).digest
