"""A bundle in the making: finished episodes survive a kill, the bundle appears whole or never.

    .NAME.part/progress.jsonl     the setting, then one line per finished episode
    .NAME.part/bundle/            becomes NAME at the end

The same evaluation goes on where it stopped; another one is refused, so nobody's work is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from treegrpo.envs.digest import digest, digest_bytes
from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.bundle import MAX_FILE_BYTES
from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.files import content, lines, parsed, sync_folder
from treegrpo.leaderboards.schema import EpisodeRecord, TaskEntry
from treegrpo.leaderboards.trajectories import (
    FOLDER,
    MAX_PACKED_BYTES,
    file_name,
    write_trajectory,
)

PROGRESS = "progress.jsonl"
_OF_ONE_CALL = ("created", "machine", "command")
"""Fields of a manifest that may differ between the calls that one evaluation takes."""


class Staging:
    """The folder of an unfinished bundle.

    `head` is the manifest's beginning as the first call wrote it, `finished` what earlier calls
    have left, `bundle` the folder that is to become the bundle.
    """

    def __init__(self, part: Path, head: dict[str, Any], file: BinaryIO) -> None:
        """Go on with what is there; `file` is the open progress file."""
        self.bundle, self.head = part / "bundle", head
        self.finished: dict[tuple[int, int], tuple[EpisodeRecord, TaskEntry]] = {}
        self._part, self._file = part, file
        (self.bundle / FOLDER).mkdir(parents=True, exist_ok=True)
        self._resume()

    def write_log(self, events: Sequence[Event]) -> str | None:
        """Write a finished episode's log and return the digest of its file."""
        return write_trajectory(self.bundle, events)

    def keep(self, record: EpisodeRecord, task: TaskEntry) -> None:
        """Note that an episode is finished, in place of an earlier attempt if there was one.

        From here on a kill does not lose it.
        """
        self._append({"episode": record.model_dump(mode="json"), "task": task.model_dump()})
        earlier = self.finished.get((record.index, record.trial))
        self.finished[record.index, record.trial] = record, task
        if earlier is not None and earlier[0].chain not in (None, record.chain):
            (self.bundle / file_name(str(earlier[0].chain))).unlink(missing_ok=True)

    def _append(self, value: dict[str, Any]) -> None:
        self._file.write(spelled(value))
        self._file.flush()

    def _resume(self) -> None:
        """Take over what an earlier call has left; a line that a kill cut short is dropped."""
        data = content(self._part / PROGRESS, MAX_FILE_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._append(self.head)
        for number, line in lines(whole, MAX_FILE_BYTES, PROGRESS):
            value = parsed(line, f"'{self._part}', {PROGRESS}, line {number}")
            if number == 1:
                self._check_same(value)
            else:
                self._take(value, number)
        kept = {r.chain for r, _ in self.finished.values()}
        for path in (self.bundle / FOLDER).iterdir():
            if path.name.removesuffix(".jsonl.gz") not in kept:
                path.unlink()

    def _check_same(self, head: Any) -> None:
        fields = differing(head, self.head)
        if fields:
            raise BundleError(
                f"An evaluation asked for, but another one lies half finished in '{self._part}': "
                f"its {', '.join(fields)} differ. Finish it with its own command "
                f"({head.get('command')}), or delete that folder."
            )
        self.head = head

    def _take(self, value: Any, number: int) -> None:
        try:
            record = EpisodeRecord.model_validate(value["episode"])
            task = TaskEntry.model_validate(value["task"])
        except (ValidationError, KeyError, TypeError) as error:
            raise BundleError(
                f"'{self._part}', {PROGRESS}, line {number} holds no episode. The file was "
                "altered: delete that folder, then evaluate again."
            ) from error
        if record.chain is not None:
            # After a loss of power a noted file may be missing or cut: play that episode again.
            file = self.bundle / file_name(record.chain)
            intact = file.is_file() and digest_bytes(content(file, MAX_PACKED_BYTES)) == (
                record.trajectory
            )
            if not intact:
                # Perhaps an earlier attempt, whose log a later line's attempt has replaced.
                self.finished.pop((record.index, record.trial), None)
                return
        self.finished[record.index, record.trial] = record, task


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the fields in which two manifests ask for different evaluations."""
    names = [name for name in now if name not in _OF_ONE_CALL]
    return [name for name in names if digest(before.get(name)) != digest(now[name])]


def check_place(out: Path) -> None:
    """Refuse a place that no bundle can be written to, before any work is done.

    Raises:
        BundleError: `out` exists, or its place cannot be written.
    """
    with _writing(out):
        part = _part_of(out)
        is_new = not part.exists()
        part.mkdir(parents=True, exist_ok=True)
        if is_new:
            part.rmdir()


@contextlib.contextmanager
def staging(out: Path, head: dict[str, Any]) -> Generator[Staging]:
    """Yield a bundle in the making that becomes `out` at the end.

    On any error what is finished stays for the next call; a folder without a finished episode
    goes away.

    Raises:
        BundleError: `out` exists, its place cannot be written, another evaluation lies half
            finished there, or another process is at work there.
    """
    part = _part_of(out)
    with _writing(out), _locked(part) as file:
        stage: Staging | None = None
        try:
            stage = Staging(part, head, file)
            yield stage
            for folder in (stage.bundle / FOLDER, stage.bundle):
                sync_folder(folder)
            stage.bundle.rename(out)
            shutil.rmtree(part)
            sync_folder(out.parent)
        finally:
            if stage is not None and not stage.finished:
                shutil.rmtree(part, ignore_errors=True)


def _part_of(out: Path) -> Path:
    if out.exists() or out.is_symlink():
        raise BundleError(
            f"A bundle at '{out}' asked for, but that path exists already. "
            "Give another path, or move the old bundle away; bundles are never overwritten."
        )
    return out.with_name(f".{out.name}.part")


@contextlib.contextmanager
def _locked(part: Path) -> Generator[BinaryIO]:
    """Yield the progress file, which one process at a time can hold."""
    part.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(
        part / PROGRESS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(
                f"A bundle beside '{part}' asked for, but another process is writing it. "
                "Wait for it, or give another path."
            ) from None
        yield file


@contextlib.contextmanager
def _writing(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"A bundle at '{out}' asked for, but it cannot be written: {error.strerror}. "
            "Finished episodes are kept; give a path with space and write permission."
        ) from error
