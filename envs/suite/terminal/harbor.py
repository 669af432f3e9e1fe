"""Task folders of Harbor and Terminal-Bench 2, read and listed.

    instruction.md  task.toml  environment/Dockerfile  tests/test.sh  solution/solve.sh

Each task comes with what it needs besides plain files, line by line of its Dockerfile: an empty
list means that copying files is all it takes to set it up. The solution is optional.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.records import DataFile, Entry

MAX_TEXT_BYTES = 1024**2
"""The most that one file which is read may hold."""
MAX_TASKS, MAX_FILES, MAX_DEPTH, MAX_TASK_BYTES = 2_000, 1_000, 16, 64 * 1024**2
WHAT = "Harbor tasks"
_INSTRUCTION, _SETTINGS = "instruction.md", "task.toml"
_DOCKERFILE, _TEST = "environment/Dockerfile", "tests/test.sh"
_HARMLESS = ("FROM", "WORKDIR", "COPY")


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Limit(_Fields):
    """The seconds that a part of a task may take."""

    timeout_sec: float = Field(default=600.0, gt=0, allow_inf_nan=False)


class Environment(_Fields):
    """What `task.toml` says of the machine."""

    docker_image: str | None = None


class Settings(_Fields):
    """The fields of `task.toml` that are read; others are ignored."""

    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])
    agent: Limit = Limit()
    verifier: Limit = Limit()
    environment: Environment = Environment()


@dataclass(frozen=True)
class Copy:
    """A file or folder below `environment/`, and the absolute path it is copied to."""

    source: str
    target: str


@dataclass(frozen=True)
class HarborTask:
    """A task as its folder has it; `needs` are the reasons why copying files is not enough."""

    name: str
    folder: Path
    instruction: str
    settings: Settings
    image: str | None
    workdir: str
    copies: tuple[Copy, ...]
    needs: tuple[str, ...]
    has_solution: bool


def read_tasks(path: Path) -> list[HarborTask]:
    """Return the tasks of a folder of task folders, by name; or the one task that it is.

    Raises:
        DataFileError: no tasks, a part that is missing, damaged or too large, a link; the
            message names the file.
    """
    file = DataFile(path, WHAT, MAX_TEXT_BYTES)
    if not path.is_dir() or path.is_symlink():
        raise file.error("this is not a folder", "Name a task folder, or a folder of them.")
    if (path / _SETTINGS).exists():
        return [_task(path)]
    folders = sorted(p for p in path.iterdir() if (p / _SETTINGS).exists())
    if not folders:
        raise file.error(f"no folder in it has a {_SETTINGS}", "Name a folder of task folders.")
    if len(folders) > MAX_TASKS:
        raise file.error(f"it has more than {MAX_TASKS} tasks", "Read parts of it.")
    return [_task(folder) for folder in folders]


def _task(folder: Path) -> HarborTask:
    _require_plain(folder)
    settings_file = DataFile(folder / _SETTINGS, WHAT, MAX_TEXT_BYTES)
    settings = settings_file.read(Entry(settings_file.table(), 1), Settings)
    instruction = DataFile(folder / _INSTRUCTION, WHAT, MAX_TEXT_BYTES).text()
    DataFile(folder / _TEST, WHAT, MAX_TEXT_BYTES).text()
    setup = _Setup(folder)
    if settings.environment.docker_image is not None:
        setup.image = settings.environment.docker_image
    if (folder / _DOCKERFILE).exists() or setup.image is None:
        setup.read()
    return HarborTask(
        name=folder.resolve().name,
        folder=folder,
        instruction=instruction.strip(),
        settings=settings,
        image=setup.image,
        workdir=setup.workdir,
        copies=tuple(setup.copies),
        needs=tuple(setup.needs),
        has_solution=(folder / "solution" / "solve.sh").is_file(),
    )


def _require_plain(folder: Path) -> None:
    """Refuse links, devices, and more files or bytes than a task may have; reads no file."""
    count = size = 0
    for path, depth in _inside(folder, 0):
        place = DataFile(path, WHAT)
        if not path.name.isprintable():  # bytes that are no UTF-8 are half characters
            found = f"it has a name that is no plain text ({ascii(path.name)[:80]})"
            raise DataFile(path.parent, WHAT).error(found, "Rename it.")
        mode = os.lstat(path)
        if stat.S_ISLNK(mode.st_mode):
            raise place.error("it is a link", "Put the file itself there.")
        if not stat.S_ISREG(mode.st_mode) and not stat.S_ISDIR(mode.st_mode):
            raise place.error("it is neither a file nor a folder", "Leave it out.")
        count, size = count + 1, size + mode.st_size
        if count > MAX_FILES or size > MAX_TASK_BYTES or depth > MAX_DEPTH:
            limit = f"{MAX_FILES} files, {MAX_TASK_BYTES // 1024**2} MiB or {MAX_DEPTH} levels"
            raise place.error(f"with it the task has more than {limit}", "Leave the task out.")


def _inside(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    if folder.is_symlink():
        yield folder, depth
        return
    for path in sorted(folder.iterdir()):
        yield path, depth
        if path.is_dir() and not path.is_symlink():
            yield from _inside(path, depth + 1)


class _Setup:
    """A Dockerfile on its way into copies, and the reasons why they are not enough."""

    def __init__(self, folder: Path) -> None:
        self.file = DataFile(folder / _DOCKERFILE, WHAT, MAX_TEXT_BYTES)
        self.root = folder / "environment"
        self.image: str | None = None
        self.workdir = "/"
        self.copies: list[Copy] = []
        self.needs: list[str] = []
        self.num_images = 0

    def read(self) -> None:
        for number, line in _instructions(self.file.text()):
            word, _, rest = line.partition(" ")
            word, rest = word.upper(), rest.strip()
            if not line.isprintable():
                found = "it has characters that are no plain text"
                raise self.file.error(found, "Remove them.", number)
            if word not in _HARMLESS:
                self._need(number, f"{word[:20]} needs an image to be built")
            elif not rest:
                raise self.file.error(f"{word} has nothing behind it", "Correct it.", number)
            elif "$" in rest:
                self._need(number, f"{word} uses a variable")
            elif word == "FROM":
                self._base(number, rest)
            elif word == "WORKDIR":
                self.workdir = self._absolute(rest)
            else:
                self._copy(number, rest)
        if not self.num_images:
            raise self.file.error("it has no FROM", "Begin with the base image.")

    def _need(self, number: int, reason: str) -> None:
        self.needs.append(f"{_DOCKERFILE}, line {number}: {reason}")

    def _base(self, number: int, rest: str) -> None:
        self.num_images += 1
        if self.num_images > 1 or len(rest.split()) > 1:
            self._need(number, "FROM with options, a stage's name or a second image")
        self.image = self.image or rest.split()[0]

    def _copy(self, number: int, rest: str) -> None:
        words = self._words(number, rest)
        if words[0].startswith("--"):
            self._need(number, f"COPY with {words[0][:40]}")
            return
        if len(words) < 2:
            raise self.file.error("COPY needs sources and a target", "Correct it.", number)
        *sources, target = words
        for source in sources:
            if re.search(r"[*?\[]", source):
                self._need(number, "COPY with a pattern of names")
                continue
            inner = posixpath.normpath(source.lstrip("/"))
            if inner == ".." or inner.startswith("../"):
                found = f"COPY of {source[:80]!r}, which is outside environment/"
                raise self.file.error(found, "Copy files of environment/ only.", number)
            if not (self.root / inner).exists():
                found = f"COPY of {source[:80]!r}, which environment/ does not have"
                raise self.file.error(found, "Add the file, or correct the name.", number)
            self.copies.append(Copy(inner, self._target(inner, target, len(sources))))

    def _target(self, inner: str, target: str, num_sources: int) -> str:
        path = self._absolute(target)
        is_folder = target.endswith(("/", "/.")) or target == "." or num_sources > 1
        if is_folder and (self.root / inner).is_file():
            return posixpath.join(path, posixpath.basename(inner))
        return path

    def _absolute(self, path: str) -> str:
        """Return a path counted from the working directory; never one of two slashes."""
        return "/" + posixpath.normpath(posixpath.join(self.workdir, path)).lstrip("/")

    def _words(self, number: int, rest: str) -> list[str]:
        if not rest.startswith("["):
            return rest.split()
        try:
            words = json.loads(rest)
        except (ValueError, RecursionError):
            words = None
        if not isinstance(words, list) or not words or not all(isinstance(w, str) for w in words):  # pyright: ignore[reportUnknownVariableType]
            raise self._not_a_list(number)
        texts = [str(word) for word in words]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if not all(word and word.isprintable() for word in texts):
            raise self._not_a_list(number)
        return texts

    def _not_a_list(self, number: int) -> DataFileError:
        return self.file.error("COPY's list is not a JSON list of names", "Correct it.", number)


def _instructions(text: str) -> Iterator[tuple[int, str]]:
    """Yield each instruction with the line it begins on, continued lines joined."""
    parts: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        if not parts:
            start = number
        is_open = line.rstrip().endswith("\\")
        parts.append(line.rstrip().removesuffix("\\").strip())
        if not is_open:
            joined = " ".join(part for part in parts if part)
            parts = []
            if joined:
                yield start, joined.replace("\t", " ")
    if any(parts):
        yield start, " ".join(part for part in parts if part)
