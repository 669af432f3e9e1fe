"""treegrpo.checkpoint: whole or not at all, and verified."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from treegrpo.checkpoint import (
    MAY_DIFFER,
    CheckpointError,
    Position,
    has_checkpoint,
    load_checkpoint,
    require_same_run,
    save_checkpoint,
)
from treegrpo.config import TrainConfig

TENSORS = {"model": {"w": torch.arange(6.0)}, "optimiser": {"state": {0: {"step": 1}}}}


def at(step: int) -> Position:
    return Position(next_step=step, updates=2 * step, settings={"lr": 0.1, "betas": [0.9, 0.999]})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, at(7), TENSORS)
    position, tensors = load_checkpoint(tmp_path)
    assert position.model_copy(update={"tensors_sha256": ""}) == at(7)
    assert torch.equal(tensors["model"]["w"], torch.arange(6.0))
    assert tensors["optimiser"] == TENSORS["optimiser"]


def test_only_the_newest_is_kept_also_past_a_million_steps(tmp_path: Path) -> None:
    for step in (9, 10, 999_999, 1_000_000):
        save_checkpoint(tmp_path, at(step), TENSORS)
        assert load_checkpoint(tmp_path)[0].next_step == step
    assert [path.name for path in tmp_path.iterdir()] == ["step-1000000"]
    save_checkpoint(tmp_path / "two", at(999_999), TENSORS)
    shutil.copytree(tmp_path / "step-1000000", tmp_path / "two" / "step-1000000")
    assert load_checkpoint(tmp_path / "two")[0].next_step == 1_000_000


def test_what_a_kill_left_half_written_is_ignored_and_removed(tmp_path: Path) -> None:
    half = tmp_path / ".step-000004.part"
    half.mkdir()
    (half / "tensors.pt").write_bytes(b"half")
    assert not has_checkpoint(tmp_path)
    save_checkpoint(tmp_path, at(2), TENSORS)
    assert not half.exists() and load_checkpoint(tmp_path)[0].next_step == 2


@pytest.mark.parametrize("name", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_checkpoint(tmp_path, at(1), TENSORS)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(
            CheckpointError, match=r"No space left.*Free some space.* step-000001, is intact\.$"
        ):
            save_checkpoint(tmp_path, at(2), TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert load_checkpoint(tmp_path)[0].next_step == 1


def test_torchs_own_complaint_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        CheckpointError, match=r"write failed\. Free some space, .* None was before it\.$"
    ):
        save_checkpoint(tmp_path, at(2), TENSORS)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, at(3), TENSORS)
    with pytest.raises(CheckpointError, match="step-000003"):
        save_checkpoint(tmp_path, at(3), {"model": {}})
    assert load_checkpoint(tmp_path)[1]["model"].keys() == {"w"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["tensors.pt", "state.json"])
@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
def test_a_damaged_checkpoint_is_one_message(tmp_path: Path, name: str, damage: Any) -> None:
    save_checkpoint(tmp_path, at(3), TENSORS)
    if (damage, name) == (flip, "state.json"):
        state = tmp_path / "step-000003" / name
        state.write_text(state.read_text().replace('"updates": 6', '"updates": "6"'))
    else:
        damage(tmp_path / "step-000003" / name)
    with pytest.raises(CheckpointError, match=r"step-000003' cannot be read: .+") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_none_is_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "missing")


def test_other_settings_are_named(tmp_path: Path) -> None:
    config = TrainConfig(model="m", env="e", lr=0.1, betas=(0.5, 0.9))
    then = json.loads(json.dumps(config.model_dump(mode="json")))
    require_same_run(then, config, tmp_path)
    with pytest.raises(CheckpointError, match=r"lr was 0\.1, now 0\.2; seed was 0, now 4"):
        require_same_run(then, config.model_copy(update={"lr": 0.2, "seed": 4}), tmp_path)
    elsewhere = config.model_copy(
        update={"out": "x", "threads": 1, "device": "cpu", "micro_batch_tokens": 9,
                "checkpoint_every": 3, "save_trees": 0}
    )  # fmt: skip
    require_same_run(then, elsewhere, tmp_path)
    assert set(TrainConfig.model_fields) >= MAY_DIFFER


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="needs to mount a disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True
    )
    if size.returncode:
        pytest.skip(f"cannot mount: {size.stderr.decode().strip()}")
    try:
        save_checkpoint(disk, at(1), TENSORS)
        with pytest.raises(CheckpointError, match="before it, step-000001, is intact"):
            save_checkpoint(disk, at(2), {"model": {"w": torch.zeros(200_000)}})
        assert [path.name for path in disk.iterdir()] == ["step-000001"]
        assert load_checkpoint(disk)[0].next_step == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)
