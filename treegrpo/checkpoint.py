"""Checkpoints: atomic, verified on reading, complete enough for a bit-exact resume on CPU.

A checkpoint is a folder `step-000040` with state.json (position, counters, the run's settings,
the tensors' sha256) and tensors.pt (weights, optimiser). It is written under another name,
synced, and renamed into place; only then are older ones removed. Every random draw of the
trainer is named by the seed and the step, so there is no random state to keep.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from treegrpo.config import TrainConfig
from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import TreegrpoError
from treegrpo.runfolder import sync, to_do

_PREFIX = "step-"

MAY_DIFFER = frozenset(
    {
        "out",
        "device",
        "threads",
        "micro_batch_tokens",
        "attention",
        "checkpoint_every",
        "save_trees",
    }
)
"""Settings that a resumed run may change: where it is written and what it runs on.

None of them changes the mathematics. The bits are those of the uninterrupted run only if
device, threads, micro_batch_tokens and attention stay: they change the order in which floats
are summed.
"""


class CheckpointError(TreegrpoError):
    """A checkpoint is missing, damaged, cannot be written, or is of another run."""


class Position(BaseModel):
    """Where a run stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    next_step: int = Field(default=0, ge=0)
    """The first step that is not done yet."""
    updates: int = 0
    """Optimiser updates made: the version of the weights."""
    sampled_tokens: int = 0
    tool_calls: int = 0
    importance: dict[str, list[float]] = Field(default_factory=dict[str, list[float]])
    """What the step importance has learned."""
    start: JsonValue = None
    """What the start state has learned."""
    settings: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """The configuration of the run, as JSON."""
    tensors_sha256: str = ""


def save_checkpoint(folder: Path, position: Position, tensors: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one.

    Raises:
        CheckpointError: no room, no right to write, or a checkpoint of that step is there (a
            run has one); nothing half-written stays behind.
    """
    final = folder / f"{_PREFIX}{position.next_step:06d}"
    part = folder / f".{final.name}.part"
    try:
        _remove_parts(folder)
        part.mkdir(parents=True)
        torch.save(dict(tensors), part / "tensors.pt")
        state = position.model_copy(update={"tensors_sha256": _sha256(part / "tensors.pt")})
        (part / "state.json").write_text(state.model_dump_json(indent=1) + "\n", encoding="ascii")
        for file in part.iterdir():
            sync(file)
        os.rename(part, final)  # fails if it is there: a folder with files is never replaced
        sync(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        before = [path.name for path in _checkpoints(folder) if path != final]
        kept = f"The one before it, {before[-1]}, is intact." if before else "None was before it."
        raise CheckpointError(
            f"Writing checkpoint '{final}' failed: {_first_line(error)}. {to_do(error)} {kept}"
        ) from error
    for older in _checkpoints(folder):
        if older != final:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[Position, dict[str, Any]]:
    """Return the newest checkpoint's position and tensors, the tensors on the CPU.

    Raises:
        CheckpointError: none there, or damaged.
    """
    found = _checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"A resume from '{folder}' was asked for, but there is no checkpoint. Check the "
            "folder, or start the run without resume."
        )
    newest = found[-1]
    try:
        position = Position.model_validate_json((newest / "state.json").read_bytes())
        if _sha256(newest / "tensors.pt") != position.tensors_sha256:
            raise ValueError("the sha256 of tensors.pt differs from state.json")
        tensors = torch.load(newest / "tensors.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError) as error:  # pydantic's is a ValueError
        raise CheckpointError(
            f"Checkpoint '{newest}' cannot be read: {_first_line(error)}. Put back an intact "
            "copy of that folder, or start the run anew in another out folder."
        ) from error
    return position, tensors


def require_same_run(then: Mapping[str, Any], config: TrainConfig, where: Path) -> None:
    """Pass if a run with settings `then` may go on under `config`.

    Raises:
        CheckpointError: names each setting that differs and must not (all but `MAY_DIFFER`).
    """
    now = config.model_dump(mode="json")
    names = sorted({*then, *now} - MAY_DIFFER)
    changed = [
        f"{name} was {then.get(name)!r}, now {now.get(name)!r}"
        for name in names
        if then.get(name) != now.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"A resume of the run in '{where}' was asked for with other settings: "
            f"{'; '.join(changed)}. Resume with the settings in its config.json, or choose "
            "another out folder."
        )


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is a checkpoint to resume from."""
    return bool(_checkpoints(folder))


def _checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len(_PREFIX) :]))


def _remove_parts(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for part in folder.glob(f".{_PREFIX}*.part"):
        shutil.rmtree(part)


def _sha256(path: Path) -> str:
    """Return the digest of a file that may be larger than memory; it must not be empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return digest_bytes(cast(bytes, data))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or repr(error)
