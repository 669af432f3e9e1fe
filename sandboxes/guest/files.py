"""Read, write, list and remove in a state's files, from outside.

The code inside may have put symlinks, pipes or deep paths there. Every path is resolved by the
kernel as if the state's root were the root, in one step that no race can bend, and nothing
but regular files is opened for reading, so a pipe blocks nobody.
"""

from __future__ import annotations

import contextlib
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
    """Make or replace a regular file, wholly or not at all; directories above it are made."""
    _place(view, path)
    _make_parents(view, path)
    above, name = os.path.split(path)
    if name in ("", ".", ".."):
        raise Refused(f"{path!r} names no file")
    folder = _open(view, above or ".", os.O_RDONLY | os.O_DIRECTORY)
    draft = f".{os.urandom(8).hex()}"
    try:
        mode = _mode_of(folder, name, path)
        _write_draft(folder, draft, data, mode)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise Refused(f"{path!r} could not be written: {error.strerror}") from error
    finally:
        os.close(folder)


def _mode_of(folder: int, name: str, path: str) -> int:
    """Return the mode of the file to replace, or of a new one."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    if not stat.S_ISREG(info.st_mode):
        raise Refused(f"{path!r} is a {_kind(info.st_mode)}, no regular file")
    return stat.S_IMODE(info.st_mode)


def _write_draft(folder: int, name: str, data: bytes, mode: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fchmod(descriptor, mode)
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
    above, name = os.path.split(path.rstrip("/"))
    descriptor = _open(view, above or ".", os.O_RDONLY | os.O_DIRECTORY)
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


def _place(view: View, path: str) -> tuple[str, str]:
    """Return the directory of the view that is served, and the path below it."""
    if "\0" in path or not path:
        raise Refused(f"{path!r} is no path")
    places = ("/workspace", "/tmp") if view.home != view.root else (view.root,)
    for place in places:
        if path == place or path.startswith(place + "/"):
            below = path[len(place) :].strip("/") or "."
            return ("." if view.home == view.root else place[1:]), below
    if path.startswith("/"):
        raise Refused(f"{path!r} is outside; paths are counted from the workspace")
    return ("." if view.home == view.root else view.home[1:] or "."), path


def _open(view: View, path: str, flags: int, mode: int = 0) -> int:
    place, below = _place(view, path)
    try:
        above = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=view.descriptor)
        try:
            return kernel.open_inside(above, below, flags | _FLAGS, mode)
        finally:
            os.close(above)
    except OSError as error:
        raise Refused(_why(path, error)) from error


def _why(path: str, error: OSError) -> str:
    """Return what was asked and what was found."""
    if error.errno == errno.ENXIO:
        return f"{path!r} is no regular file"
    if error.errno in (errno.EXDEV, errno.ELOOP):
        return f"{path!r} leads out of the workspace, or in a circle"
    return f"{path!r}: {os.strerror(error.errno or 0)}"


def _regular(descriptor: int, path: str) -> os.stat_result:
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        raise Refused(f"{path!r} is a {_kind(info.st_mode)}, no regular file")
    return info


def _make_parents(view: View, path: str) -> None:
    """Make the directories above a path, one by one."""
    parts = [part for part in os.path.dirname(path).split("/") if part]
    at = "/" if path.startswith("/") else ""
    for part in parts:
        above, at = at, f"{at}{part}/"
        if at in ("/workspace/", "/tmp/"):
            continue
        try:
            os.close(_open(view, at.rstrip("/"), os.O_RDONLY | os.O_DIRECTORY))
        except Refused as refused:
            if not isinstance(refused.__cause__, FileNotFoundError):
                raise
            _make_one(view, above.rstrip("/") or ".", part)


def _make_one(view: View, above: str, name: str) -> None:
    parent = _open(view, above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except OSError as error:
        raise Refused(f"{name!r} could not be made: {error.strerror}") from error
    finally:
        os.close(parent)


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symlink"),
    ):
        if test(mode):
            return name
    return "other"
