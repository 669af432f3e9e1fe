"""The files of a run: what was asked, what happened at each step, what came out.

metrics.jsonl holds only what the seed decides, so that two runs of one seed are equal byte by
byte; seconds go to timings.jsonl.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treegrpo.config import TrainConfig, digest
from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Tree


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
        if resume_at is None and (path / "metrics.jsonl").exists():
            raise RunFolderError(
                f"A new run in '{path}' was asked for, but a run is there already. Resume it, "
                "remove it, or choose another out folder."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            settings = {"config": config.model_dump(mode="json"), "digest": digest(config)}
            write_text(path / "config.json", json.dumps(settings, indent=1) + "\n")
            for name in ("metrics.jsonl", "timings.jsonl", "trees.jsonl"):
                _keep_steps_before(path / name, resume_at or 0)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._board = _tensorboard(path)

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

    def _append(self, name: str, lines: list[str]) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl or timings.jsonl; a cut last line is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the writer was killed in the middle of this line
    return rows


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
    """Drop the rows of steps that will be done again, and a line that was cut by a kill."""
    kept: list[str] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except json.JSONDecodeError:
                break
    write_text(path, "".join(line + "\n" for line in kept))


def _tensorboard(path: Path) -> Any | None:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # pyright: ignore

    return SummaryWriter(str(path / "tensorboard"))


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"Writing '{path}' failed: {error.strerror or error}. Free some space, or choose another "
        "folder with out=DIR."
    )
