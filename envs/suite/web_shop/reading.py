"""The entries of a JSON file, one at a time, each with the line it begins on.

A file holds a list of objects, or one object whose values are the entries; plain or gzip, told
by its first bytes. Whatever is wrong with it is one DataFileError: file, line, what was found,
what to do. Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import DataFileError, suggest

MAX_BYTES = 512 * 1024**2
"""The most that a file may hold when unpacked: it is held in memory."""

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Entry:
    """One value of the file, its key if the file is an object, and the line it begins on."""

    key: str | None
    value: object
    line: int


@dataclass(frozen=True)
class JsonFile:
    """A file and what is read from it ("products"), so that every error names both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, line: int | None = None) -> DataFileError:
        """Return the error: "Reading <what> from '<path>', line 3: <found>. <to do>"."""
        where = f", line {line}" if line is not None else ""
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def entries(self) -> tuple[str, Iterator[Entry]]:
        """Return the sha256 of the file's bytes, and its entries in order.

        Raises:
            DataFileError: missing, empty, too large, cut short, not UTF-8, not JSON.
        """
        data = self._bytes()
        sha256 = digest_bytes(data)
        if data[:2] == b"\x1f\x8b":
            data = self._unpacked(data)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = 1 + data.count(b"\n", 0, error.start)
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error
        if not text.strip():
            raise self.error("the file is empty", "Give a file with at least one entry.")
        return sha256, self._walk(text)

    def _bytes(self) -> bytes:
        if not self.path.is_file():
            folder = self.path.parent
            names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
            found = "this is a folder" if self.path.is_dir() else "there is no such file"
            hint = suggest(self.path.name, names)
            raise self.error(found, f"Give the path of a local JSON file.{hint}")
        try:
            with self.path.open("rb") as stream:
                return self._limited(stream)
        except OSError as error:
            found = f"it cannot be opened ({error.strerror})"
            raise self.error(found, "Check the rights of the file.") from error

    def _unpacked(self, data: bytes) -> bytes:
        try:
            with gzip.open(self.path, "rb") as stream:
                return self._limited(cast("IO[bytes]", stream))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"the gzip data is cut short or damaged ({error})"
            raise self.error(found, "Fetch the file again, or test it with gzip -t.") from error

    def _limited(self, stream: IO[bytes]) -> bytes:
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            limit = f"{MAX_BYTES // 1024**2} MiB"
            raise self.error(f"it holds more than {limit}", "Give a file of fewer products.")
        return data

    def _walk(self, text: str) -> Iterator[Entry]:
        """Yield the items of the outer list or object, decoded one by one."""
        position = _after_blank(text, 0)
        opening = text[position]
        if opening not in "[{":
            raise self._not_json("it is neither a list nor an object", text, position)
        closing = "]" if opening == "[" else "}"
        position, line, counted = _after_blank(text, position + 1), 1, 0
        more = text[position : position + 1] != closing
        while more:
            line += text.count("\n", counted, position)
            counted = position
            key: str | None = None
            if opening == "{":
                key, position = self._key(text, position)
            value, position = self._decode(text, position)
            yield Entry(key, value, line)
            position = _after_blank(text, position)
            more = text[position : position + 1] == ","
            if more:
                position = _after_blank(text, position + 1)
            elif text[position : position + 1] != closing:
                raise self._not_json(f"expecting ',' or '{closing}'", text, position)
        if text[position + 1 :].strip():
            raise self._not_json("text after the end", text, position + 1)

    def _key(self, text: str, position: int) -> tuple[str, int]:
        key, position = self._decode(text, position)
        position = _after_blank(text, position)
        if not isinstance(key, str) or text[position : position + 1] != ":":
            raise self._not_json("expecting a name and ':'", text, position)
        return key, _after_blank(text, position + 1)

    def _decode(self, text: str, position: int) -> tuple[object, int]:
        try:
            value, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise self._not_json(error.msg, text, error.pos) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            raise self._not_json(str(error), text, position) from error
        return cast("object", value), end

    def _not_json(self, why: str, text: str, position: int) -> DataFileError:
        line = 1 + text.count("\n", 0, position)
        found = f"not valid JSON ({why[:1].lower()}{why[1:]})"
        return self.error(found, "Fetch the file again if it was cut off, or correct it.", line)


def _after_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def describe(value: object) -> str:
    """Return a JSON value's kind and a short look at it, for an error message."""
    match value:
        case str():
            return f"the string {value[:40]!r}"
        case dict():
            names = ", ".join(map(repr, list(cast("dict[str, object]", value))[:8]))
            return f"an object with the fields {names}" if names else "an empty object"
        case list():
            return f"a list of {len(cast('list[object]', value))}"
        case None:
            return "null"
        case _:
            return f"{value!r:.40}"
