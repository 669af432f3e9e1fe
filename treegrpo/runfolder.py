"""The files of a run: what was asked, what happened at each step, what came out.

metrics.jsonl holds only what the seed decides, so that two runs of one seed are equal byte by
byte; seconds go to timings.jsonl.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from treegrpo.config import TrainConfig, digest
from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Tree

_LOGS = ("metrics.jsonl", "timings.jsonl", "trees.jsonl", "failures.jsonl")

MAX_BAD_BATCHES = 20
"""Batches kept of those that made an update impossible; a run may meet thousands."""

_TO_DO = {
    "Free some space": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "Get the right to write there": (errno.EACCES, errno.EPERM, errno.EROFS),
    "Move what stands in the way": (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
    "Make the folder above it": (errno.ENOENT,),
}
"""What to do about a file that cannot be written, by the system's reason."""


class RunFolderError(TreegrpoError):
    """The run folder cannot be used or written."""


class RunFolder:
    """Writes the files of one run; rows of steps that are done again are dropped first."""

    def __init__(self, path: Path, config: TrainConfig, *, resume_at: int | None) -> None:
        """Open the folder: a new run needs it free of another run, a resume trims it.

        Args:
            path: created if need be.
            config: written to config.json.
            resume_at: first step to be done again; None for a new run.

        Raises:
            RunFolderError: another run is there, or the folder cannot be written.
        """
        self.path = path
        if resume_at is None:
            require_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.record(config)
            for name in _LOGS:
                _keep_steps_before(path / name, resume_at or 0)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._board = _tensorboard(path, resume_at or 0)
        self._left_out = 0

    def record(self, config: TrainConfig) -> None:
        """Write config.json: every setting, and the digest over them."""
        settings = {"config": config.model_dump(mode="json"), "digest": digest(config)}
        write_text(self.path / "config.json", json.dumps(settings, indent=1) + "\n")

    def metrics(self, step: int, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl, and to TensorBoard where it is installed."""
        self._append("metrics.jsonl", [json.dumps({"step": step, **row}, allow_nan=False)])
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    self._board.add_scalar(name, value, step)

    def timings(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row of seconds to timings.jsonl."""
        self._append("timings.jsonl", [json.dumps({"step": step, **row})])

    def trees(self, trees: Iterable[Tree]) -> None:
        """Append trees to trees.jsonl."""
        self._append("trees.jsonl", [tree.to_json() for tree in trees])

    def failures(self, step: int, faults: Mapping[tuple[str, str], int]) -> None:
        """Append to failures.jsonl who failed, what it said and how often."""
        rows = [
            {"step": step, "who": who, "message": message, "count": count}
            for (who, message), count in faults.items()
        ]
        self._append("failures.jsonl", [json.dumps(row) for row in rows])

    def bad_batch(self, step: int, record: Mapping[str, Any]) -> str:
        """Write what made an update impossible to a file of its own; return in words where.

        `torch.load(path, weights_only=True)` reads it. The first MAX_BAD_BATCHES are kept, the
        others counted.
        """
        folder = self.path / "bad_batches"
        number = len(list(folder.glob("*.pt")))
        if number >= MAX_BAD_BATCHES:
            self._left_out += 1
            return f"not kept: '{folder}' has {number}, and {self._left_out} more were left out"
        path = folder / f"step-{step:06d}-{number:03d}.pt"
        try:
            folder.mkdir(exist_ok=True)
            torch.save(dict(record), path)
        except (OSError, RuntimeError) as error:
            path.unlink(missing_ok=True)
            raise _unwritable(path, error) from error
        return f"in '{path}'"

    def sync(self) -> None:
        """Flush the rows to the disk, before a checkpoint says that their steps are done."""
        for name in _LOGS:
            sync(self.path / name)
        if self._board is not None:
            self._board.flush()

    def model(self, save: Callable[[Path], None]) -> None:
        """Let `save` write the model to the folder `model`; whole, or what was there stays.

        Raises:
            RunFolderError: no room, or no right to write.
        """
        final, part = self.path / "model", self.path / ".model.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            save(part)
            old = self.path / ".model.old"
            shutil.rmtree(old, ignore_errors=True)
            if final.exists():
                os.rename(final, old)
            os.rename(part, final)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _unwritable(final, error) from error

    def _append(self, name: str, lines: list[str]) -> None:
        """Append whole lines, or nothing."""
        path = self.path / name
        try:
            with path.open("ab", buffering=0) as file:
                end = file.tell()
                data = "".join(line + "\n" for line in lines).encode("ascii")
                try:
                    written = file.write(data)
                    if written != len(data):  # a full disk may take a part without an error
                        file.write(data[written:])
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise _unwritable(path, error) from error


def require_free(path: Path) -> None:
    """Pass if a new run may be written to `path`: nothing would be lost.

    Raises:
        RunFolderError: a run that has done something is there already, or other files of the
            names a run writes.
    """
    recorded_settings(path)  # raises where config.json is not a run's
    taken = [name for name in _LOGS if (path / name).exists() and (path / name).stat().st_size]
    taken += [name for name in ("checkpoint", "model") if (path / name).exists()]
    if taken:
        how = "Resume that run (--resume)"
        if "checkpoint" not in taken:
            how = (
                "It has no checkpoint: begin it again from its first step (--resume, with the "
                "settings in its config.json)"
            )
        raise RunFolderError(
            f"A new run in '{path}' was asked for, but {', '.join(taken)} would be overwritten "
            f"there. {how}, or choose another folder (--out DIR)."
        )


def drop_unbegun(path: Path) -> bool:
    """Remove what a run that has done no step left in its folder; return whether it has none.

    A batch that was kept stays, with the settings it belongs to.
    """
    if any((path / name).exists() and (path / name).stat().st_size for name in _LOGS):
        return False
    if not any((path / name).exists() for name in ("checkpoint", "model", "bad_batches")):
        for name in (*_LOGS, "config.json"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / "tensorboard", ignore_errors=True)
        with contextlib.suppress(OSError):  # other files are there: they are not ours
            path.rmdir()
    return True


def to_do(error: Exception) -> str:
    """Return what to do about a file that cannot be written, as the end of a message.

    torch and safetensors report a full disk without the system's number.
    """
    code = getattr(error, "errno", None) or errno.ENOSPC
    own = next((hint for hint, codes in _TO_DO.items() if code in codes), "Check the path")
    return f"{own}, or choose another folder with out=DIR."


def recorded_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of the run in `path`, from its config.json; None without one.

    Raises:
        RunFolderError: its config.json cannot be read.
    """
    record = path / "config.json"
    if not record.exists():
        return None
    try:
        return dict(json.loads(record.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"The settings of the run in '{path}' were asked for, but '{record}' cannot be read "
            f"({error!r}). Choose another out folder."
        ) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl or timings.jsonl; a cut last line is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the writer was killed in the middle of this line
    return rows


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave what was there: under another name, then renamed."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _keep_steps_before(path: Path, step: int) -> None:
    """Drop the rows of steps that will be done again, and a line that was cut by a kill.

    Lines of other files' making (not a row with a step) end what is kept, too.
    """
    kept: list[str] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                break
    write_text(path, "".join(line + "\n" for line in kept))


def _tensorboard(path: Path, first_step: int) -> Any | None:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # pyright: ignore

    return SummaryWriter(str(path / "tensorboard"), purge_step=first_step)


def _unwritable(path: Path, error: Exception) -> RunFolderError:
    reason = getattr(error, "strerror", None) or error
    return RunFolderError(f"Writing '{path}' failed: {reason}. {to_do(error)}")
