"""Files of strangers: opened without following or waiting, cut at their caps while read.

Nothing here trusts a name, a size or a header: a link, a pipe, a folder in a file's place, a
file that grows and a compressed bomb are all one BundleError.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Never

from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.errors import BundleError

_BLOCK = 2**16


@contextlib.contextmanager
def opened(path: Path, limit: int) -> Generator[BinaryIO]:
    """Yield a regular file of at most `limit` bytes.

    Raises:
        BundleError: something else is there, or it cannot be read.
    """
    where = f"'{path.name}' asked for in the bundle '{path.parent}'"
    try:
        # A pipe must not block, and what a link points at is not in the bundle.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BundleError(f"{where}, found nothing. Get the bundle again.") from None
    except OSError as error:
        if path.is_symlink():
            raise BundleError(
                f"{where}, found a link, which is no regular file. Get the bundle again."
            ) from None
        raise BundleError(
            f"{where}, but it cannot be read: {error.strerror}. Check its permissions."
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise BundleError(f"{where}, found no regular file. Get the bundle again.")
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > limit:
            raise BundleError(
                f"{where} has {found.st_size} bytes; at most {limit} are read. "
                "Evaluate fewer tasks per bundle."
            )
        try:
            yield file
        except OSError as error:
            raise BundleError(
                f"{where}, but it cannot be read: {error.strerror}. Check the disk."
            ) from error


def content(path: Path, limit: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        BundleError: as `opened`, or it grew while it was read.
    """
    with opened(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(
            f"'{path.name}' in the bundle '{path.parent}' grew while it was read; at most {limit} "
            "bytes are read. Get the bundle again."
        )
    return data


def lines(data: bytes, limit: int, where: str) -> Iterator[tuple[int, bytes]]:
    """Yield every line with its number; each ends in one newline and has at most `limit` bytes.

    Raises:
        BundleError: a longer line, or an end without a newline.
    """
    start = 0
    for number in range(1, data.count(b"\n") + 2):
        if start == len(data):
            return
        end = data.find(b"\n", start) + 1
        size = (end or len(data)) - start
        if size > limit:
            raise BundleError(
                f"{where}, line {number} is longer than {limit} bytes. "
                "No evaluation writes such a line: get the bundle again."
            )
        if not end:
            raise BundleError(f"{where}, line {number} has no end. {_CUT_SHORT}")
        yield number, data[start:end]
        start = end


_CUT_SHORT = "The file was cut short: get the bundle again."


def parsed(line: bytes, where: str, *, indent: int | None = None) -> Any:
    """Return the JSON data of a text that is spelled as `spelled` spells it.

    Raises:
        BundleError: no JSON, or another spelling: key order, doubled keys, spaces, numbers.
    """
    try:
        value = json.loads(line.decode("ascii"), parse_constant=_no_number)
        canonical = spelled(value, indent=indent)
    except (ValueError, RecursionError) as error:
        fault = ascii(str(error))[1:-1][:200]
        raise BundleError(
            f"{where}, field (whole): not the ASCII JSON of a bundle ({fault}). "
            "Get the bundle again, or evaluate again."
        ) from None
    if canonical != line:
        at = next(
            (i for i, (a, b) in enumerate(zip(line, canonical, strict=False)) if a != b),
            min(len(line), len(canonical)),
        )
        raise BundleError(
            f"{where}, character {at + 1}: {line[at : at + 20].decode('ascii')!a} is not the "
            "one spelling of this value (sorted keys, none doubled, no spaces, shortest numbers). "
            "The file was altered: get the bundle again, or evaluate again."
        )
    return value


def _no_number(word: str) -> Never:
    raise ValueError(f"{word} is no number")


def packed(data: bytes) -> bytes:
    """Return `data` as gzip with no name and no time in it: equal data give equal bytes."""
    pack = zlib.compressobj(level=9, wbits=31)
    return pack.compress(data) + pack.flush()


def unpacked(data: bytes, limit: int, where: str) -> bytes:
    """Return what one gzip member holds, stopping as soon as it is more than `limit` bytes.

    Raises:
        BundleError: damaged, cut short, more than `limit`, or bytes after its end.
    """
    unpack = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    size = 0
    try:
        while not unpack.eof:
            piece = unpack.decompress(data, _BLOCK)
            data = unpack.unconsumed_tail
            size += len(piece)
            if size > limit:
                raise BundleError(
                    f"{where} unpacks to more than {limit} bytes. "
                    "No evaluation writes so much: do not trust this bundle."
                )
            if not piece and not data and not unpack.eof:
                raise BundleError(f"{where} ends within its gzip data. {_CUT_SHORT}")
            pieces.append(piece)
    except zlib.error as error:
        raise BundleError(f"{where} is no gzip data: {error}. Get the bundle again.") from None
    if unpack.unused_data:
        raise BundleError(
            f"{where} has bytes after the end of its gzip data. Get the bundle again."
        )
    return b"".join(pieces)


def write_file(path: Path, data: bytes) -> None:
    """Write a file and see it on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """See the names of a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
