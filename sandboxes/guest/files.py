"""Read, write, list and remove in a state's files, from outside.

The code inside may have put symlinks, pipes or deep paths there. Every path is resolved by the
kernel as if the state's root were the root, in one step that no race can bend, and nothing
but regular files is opened for reading, so a pipe blocks nobody.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from treegrpo.sandboxes.guest import kernel
from treegrpo.sandboxes.guest.views import View

_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAX_ENTRIES = 100_000


class Refused(Exception):
    """A file request that is not served; the text says why."""


def read(view: View, path: str, max_bytes: int) -> bytes:
    """Return the content of a regular file."""
    descriptor = _open(view, path, os.O_RDONLY)
    try:
        size = _regular(descriptor, path).st_size
        if size > max_bytes:
            raise Refused(f"{path!r} has {size} bytes; at most {max_bytes} are read")
        parts: list[bytes] = []
        left = max_bytes
        while left and (part := os.read(descriptor, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def write(view: View, path: str, data: bytes) -> None:
    """Make or replace a regular file; directories above it are made."""
    where = _absolute(view, path)
    _make_parents(view, where)
    descriptor = _open(view, path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        _regular(descriptor, path)
        os.ftruncate(descriptor, 0)
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise Refused(f"{path!r} could not be written: {error.strerror}") from error
    finally:
        os.close(descriptor)


def entries(view: View, path: str) -> list[dict[str, Any]]:
    """Return name, kind and size of what is in a directory, sorted by name."""
    descriptor = _open(view, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found: list[dict[str, Any]] = []
        for name in sorted(os.listdir(descriptor))[:_MAX_ENTRIES]:
            info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            kind = _kind(info.st_mode)
            size = info.st_size if kind == "file" else 0
            found.append(
                {"name": os.fsencode(name).decode("utf-8", "replace"), "kind": kind, "size": size}
            )
        return found
    finally:
        os.close(descriptor)


def remove(view: View, path: str) -> None:
    """Delete one file, symlink or empty directory."""
    where = _absolute(view, path)
    above, name = os.path.split(where.rstrip("/"))
    descriptor = _open(view, above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)
    except OSError as error:
        raise Refused(f"{path!r} could not be removed: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _absolute(view: View, path: str) -> str:
    """Return the path from the state's root."""
    if "\0" in path or not path:
        raise Refused(f"{path!r} is no path")
    # A copied view is rooted at its own workspace; an overlay one has it at /workspace.
    home = view.home if view.home != view.root else "/"
    return os.path.join(home, path)


def _open(view: View, path: str, flags: int, mode: int = 0) -> int:
    try:
        return kernel.open_inside(view.descriptor, _absolute(view, path), flags | _FLAGS, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Refused(f"{path!r} is no regular file") from error
        raise Refused(f"{path!r}: {os.strerror(error.errno or 0)}") from error


def _regular(descriptor: int, path: str) -> os.stat_result:
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        raise Refused(f"{path!r} is a {_kind(info.st_mode)}, no regular file")
    return info


def _make_parents(view: View, where: str) -> None:
    at = ""
    for part in [p for p in os.path.dirname(where).split("/") if p]:
        above = at or "/"
        at = f"{at}/{part}"
        try:
            os.close(kernel.open_inside(view.descriptor, at, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            parent = _open(view, above, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.mkdir(part, 0o755, dir_fd=parent)
            except OSError as error:
                raise Refused(f"{at!r} could not be made: {error.strerror}") from error
            finally:
                os.close(parent)
        except OSError as error:
            raise Refused(f"{at!r}: {error.strerror}") from error


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symlink"),
    ):
        if test(mode):
            return name
    return "other"
