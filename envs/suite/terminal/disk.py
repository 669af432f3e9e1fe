"""A file system in memory that never changes: each change gives a new one that shares the rest.

Paths are absolute, without `.` and `..`. A repository is one entry, the folder `.git`, which
holds its whole history; so it is copied, moved and removed as any folder is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from treegrpo.envs.digest import digest

MAX_ENTRIES, MAX_BYTES, MAX_FILE_BYTES = 512, 131_072, 65_536
MAX_PATH, MAX_NAME = 240, 80
Texts = tuple[tuple[str, str], ...]
"""Files of a commit or an index: (path below the repository, text), sorted."""


class CommandError(Exception):
    """What a command prints when it fails, and its exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        """Keep the text and the code."""
        super().__init__(text)
        self.text, self.code = text, code


@dataclass(frozen=True)
class File:
    """A text with its permission bits and the time of its last change, in commands."""

    text: str
    mode: int = 0o644
    mtime: int = 0

    @cached_property
    def size(self) -> int:
        """Return the number of bytes."""
        return len(self.text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class Folder:
    """A folder; what is in it is told by the paths."""

    mode: int = 0o755
    mtime: int = 0


@dataclass(frozen=True)
class Commit:
    """All files at one point of a history; the id is that of the content and its parents."""

    id: str
    parent: str | None
    message: str
    files: Texts


@dataclass(frozen=True)
class Repo:
    """A history: commits in the order they were made, branches, the index.

    `head` is a branch's name, or a commit's id when no branch is checked out.
    """

    commits: tuple[Commit, ...] = ()
    branches: tuple[tuple[str, str], ...] = ()
    head: str = "main"
    index: Texts = ()
    mode: int = 0o755
    mtime: int = 0

    @cached_property
    def size(self) -> int:
        """Return the bytes of all texts, equal ones counted once."""
        held = {text for commit in self.commits for _, text in commit.files}
        held |= {text for _, text in self.index}
        return sum(len(text.encode("utf-8", "replace")) for text in held)


Entry = File | Folder | Repo


@dataclass(frozen=True)
class Disk:
    """Every entry by its path; the mapping is never changed once a Disk holds it."""

    entries: Mapping[str, Entry] = field(default_factory=lambda: {"/": Folder()})

    def state_facts(self) -> dict[str, Any]:
        """Return what the state hash covers: a digest that is computed once per disk."""
        return {"digest": self._digest}

    @cached_property
    def _digest(self) -> str:
        return digest([(path, self.entries[path]) for path in sorted(self.entries)])

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in sorted(self.entries):
            if path != "/":
                found.setdefault(parent_of(path), []).append(path)
        return found

    def get(self, path: str) -> Entry | None:
        """Return the entry at a path, if there is one."""
        return self.entries.get(path)

    def is_folder(self, path: str) -> bool:
        """Return whether a folder is there; a repository is one."""
        return isinstance(self.entries.get(path), (Folder, Repo))

    def children(self, path: str) -> list[str]:
        """Return the paths right below a folder, sorted."""
        return list(self._children.get(path, ()))

    def walk(self, path: str) -> Iterator[str]:
        """Yield a path and all below it, a folder before what it holds."""
        yield path
        for child in self._children.get(path, ()):
            yield from self.walk(child)

    def files(self) -> dict[str, str]:
        """Return the text of every file by its path."""
        return {p: e.text for p, e in self.entries.items() if isinstance(e, File)}

    def changed(self, changes: Mapping[str, Entry | None]) -> Disk:
        """Return the disk with entries set, or removed where None.

        Raises:
            CommandError: no space, a name that is too long, or no folder to hold an entry.
        """
        entries = {**self.entries}
        for path, entry in changes.items():
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry
        for path, entry in changes.items():
            if entry is not None:
                self._require_place(path, entries)
        held = sum(e.size for e in entries.values() if not isinstance(e, Folder))
        if len(entries) > MAX_ENTRIES or held > MAX_BYTES:
            raise CommandError("No space left on device")
        return Disk(entries)

    def _require_place(self, path: str, entries: Mapping[str, Entry]) -> None:
        entry = entries[path]
        if len(path) > MAX_PATH or len(path.rpartition("/")[2]) > MAX_NAME:
            raise CommandError("File name too long")
        if isinstance(entry, File) and entry.size > MAX_FILE_BYTES:
            raise CommandError("File too large")
        above = entries.get(parent_of(path))
        if above is None:
            raise CommandError(f"{parent_of(path)}: No such file or directory")
        if not isinstance(above, Folder):
            raise CommandError(f"{parent_of(path)}: Not a directory")


def parent_of(path: str) -> str:
    """Return the folder that holds a path; that of the root is the root."""
    return path.rpartition("/")[0] or "/"


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2] or "/"


def joined(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def resolved(cwd: str, path: str) -> str:
    """Return the absolute path that a text means in a working directory."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{cwd}/{path}").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def disk_of(files: Mapping[str, str], folders: tuple[str, ...] = ()) -> Disk:
    """Return a disk with these files, folders, and all folders above them."""
    entries: dict[str, Entry] = {"/": Folder()}
    for path in (*files, *(f"{folder}/." for folder in folders)):
        above = parent_of(path)
        while above != "/":
            entries[above] = Folder()
            above = parent_of(above)
    return Disk().changed({**entries, **{path: File(text) for path, text in files.items()}})
