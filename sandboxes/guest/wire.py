"""Frames between the host and a supervisor: a JSON header and one binary blob.

    4 bytes header length | 4 bytes blob length | header (UTF-8 JSON) | blob

Both ends cap what they accept, so neither can be made to grow by the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

MAX_HEADER = 16 * 1024 * 1024
MAX_BLOB = 256 * 1024 * 1024
_LENGTHS = struct.Struct("!II")

Header = dict[str, Any]


class FrameTooLarge(ValueError):
    """A frame beyond the caps, or bytes that are no frame."""


def pack(header: Header, blob: bytes = b"") -> bytes:
    """Return one frame."""
    text = json.dumps(header).encode()
    if len(text) > MAX_HEADER or len(blob) > MAX_BLOB:
        raise FrameTooLarge(f"a frame of {len(text)} + {len(blob)} bytes; at most {MAX_BLOB}")
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


class Decoder:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Header, bytes]]:
        """Yield the frames that are complete now.

        Raises:
            FrameTooLarge: a length beyond the caps.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            header_length, blob_length = _LENGTHS.unpack_from(self._buffer)
            if header_length > MAX_HEADER or blob_length > MAX_BLOB:
                raise FrameTooLarge(f"a frame of {header_length} + {blob_length} bytes")
            end = _LENGTHS.size + header_length + blob_length
            if len(self._buffer) < end:
                return
            middle = _LENGTHS.size + header_length
            header: Header = json.loads(bytes(self._buffer[_LENGTHS.size : middle]))
            blob = bytes(self._buffer[middle:end])
            del self._buffer[:end]
            yield header, blob


def fields(*parts: bytes) -> bytes:
    """Return byte strings joined so that `split` finds them again.

    Workers answer in this form: it needs no library that the code in them could replace.
    """
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def split(data: bytes) -> list[bytes]:
    """Return the byte strings of `fields`.

    Raises:
        ValueError: it was not made by `fields`.
    """
    found: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 > len(data) or at + 4 + size > len(data):
            raise ValueError("a field runs over the end")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found
