"""Checkpoints: atomic, verified on reading, complete enough for a bit-exact resume on CPU.

A checkpoint is a folder `step-000040` with state.json (position, counters, config digest,
the tensors' sha256) and tensors.pt (weights, optimiser). It is written under another name,
synced, and renamed into place; only then are older ones removed. Every random draw of the
trainer is named by the seed and the step, so there is no random state to keep.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import TreegrpoError

_PREFIX = "step-"


class CheckpointError(TreegrpoError):
    """A checkpoint is missing, damaged, or of another run."""


class Position(BaseModel):
    """Where a run stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    next_step: int
    """The first step that is not done yet."""
    updates: int
    sampled_tokens: int
    tool_calls: int
    config_digest: str
    tensors_sha256: str = ""


def save_checkpoint(folder: Path, position: Position, tensors: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one.

    Raises:
        TreegrpoError: no room, or no right to write; nothing half-written stays behind.
    """
    final = folder / f"{_PREFIX}{position.next_step:06d}"
    part = folder / f".{final.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        torch.save(dict(tensors), part / "tensors.pt")
        data = (part / "tensors.pt").read_bytes()
        state = position.model_copy(update={"tensors_sha256": digest_bytes(data)})
        (part / "state.json").write_text(state.model_dump_json(indent=1) + "\n")
        for file in part.iterdir():
            sync(file)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        sync(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"Writing checkpoint '{final}' failed: {error}. Free some space or choose another "
            "folder; the checkpoint before it is intact."
        ) from error
    for older in _checkpoints(folder):
        if older != final:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(folder: Path, config_digest: str) -> tuple[Position, dict[str, Any]]:
    """Return the newest checkpoint's position and tensors.

    Raises:
        CheckpointError: none there, damaged, or written under another configuration.
    """
    found = _checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"A resume from '{folder}' was asked for, but there is no checkpoint. Check the "
            "folder, or start the run without resume."
        )
    newest = found[-1]
    try:
        position = Position.model_validate_json((newest / "state.json").read_text())
        data = (newest / "tensors.pt").read_bytes()
        if digest_bytes(data) != position.tensors_sha256:
            raise ValueError("the tensors' sha256 differs from state.json")
        tensors = torch.load(newest / "tensors.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, ValidationError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"Checkpoint '{newest}' cannot be read: {error}. Remove that folder to resume from "
            "an older one, or start the run anew in another folder."
        ) from error
    if position.config_digest != config_digest:
        raise CheckpointError(
            f"Checkpoint '{newest}' was written under another configuration. Resume with the "
            "settings in the run folder's config.json, or choose another out folder."
        )
    return position, tensors


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is a checkpoint to resume from."""
    return bool(_checkpoints(folder))


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []
