"""Files named by their digest: what a bundle consists of, each piece once.

    objects/ab/cdef...      the bytes whose sha256 is abcdef...
    objects/part/...        what is being written; a kill leaves nothing else behind

A file appears whole or not at all, and what is read is checked against its name.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from treegrpo.envs.digest import digest_bytes
from treegrpo.leaderboards.errors import BundleError, StoreError
from treegrpo.leaderboards.files import content, sync_folder, write_file

_PART = "part"
_STALE_S = 24 * 3600


class Objects:
    """The files of a store below one folder; the folder is made with the first file."""

    def __init__(self, folder: Path | None) -> None:
        """Keep the folder; None where nobody said where files lie."""
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the files lie.

        Raises:
            StoreError: nobody said where.
        """
        if self._folder is None:
            raise StoreError(
                "The files of a bundle asked for, but nobody said where this database's files "
                "lie. Say it with --objects DIR."
            )
        return self._folder

    def put(self, data: bytes) -> str:
        """Return the digest of `data`, which is on the disk from now on.

        Raises:
            StoreError: the folder cannot be written.
        """
        name = digest_bytes(data)
        path = self._path(name)
        try:
            if path.is_file() and path.read_bytes() == data:
                return name
            part = self.folder / _PART / f"{name}.{secrets.token_hex(8)}"
            for folder in (part.parent, path.parent):
                folder.mkdir(parents=True, exist_ok=True)
            write_file(part, data)
            part.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise StoreError(
                f"A file among the objects in '{self.folder}' asked for, but it cannot be "
                f"written: {error.strerror}. Give a folder with space and write permission."
            ) from error
        return name

    def get(self, name: str, limit: int) -> bytes:
        """Return the bytes of that digest.

        Args:
            name: 64 hex digits.
            limit: at most so many bytes are read.

        Raises:
            StoreError: the file is missing, too large or damaged.
        """
        try:
            data = content(self._path(name), limit)
        except BundleError as error:
            raise StoreError(
                f"Object {name[:12]} of the folder '{self.folder}' asked for, but: {error} "
                "Copy it from a backup, or add its bundle again."
            ) from error
        if digest_bytes(data) != name:
            raise StoreError(
                f"Object {name[:12]} of the folder '{self.folder}' was altered: its bytes do not "
                "have the digest that it is named by. Copy it from a backup, or add its bundle "
                "again."
            )
        return data

    def sweep(self) -> None:
        """Delete what writers that were killed more than a day ago left behind."""
        if self._folder is None or not (self._folder / _PART).is_dir():
            return
        with os.scandir(self._folder / _PART) as entries:
            for entry in entries:
                if entry.stat().st_mtime < time.time() - _STALE_S:
                    os.unlink(entry.path)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name[2:]
