"""The entries of a data file, one JSON object at a time, each with the place it stands at.

Reads a JSON list or JSON Lines, plain or gzip (told by the file's first bytes, not by its
name). JSON Lines are streamed; of a JSON list the text is held, but only one entry is decoded
at a time. Whatever is wrong with a file is one DataFileError: file, line, what was found,
what to do.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from treegrpo.envs.errors import DataFileError, suggest

MAX_TEXT_BYTES = 2 * 1024**3
"""The most that one line, or one whole JSON list, may take when unpacked: it is held in memory."""

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")
_BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True)
class Entry:
    """One object of a file: its fields, and its place ("line 3", "entry 2 (line 14)")."""

    fields: dict[str, Any]
    place: str


@dataclass(frozen=True)
class DataFile:
    """A file and what is being read from it ("questions"), so that every error can name both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, place: str = "") -> DataFileError:
        """Return the error: "Reading <what> from '<path>', <place>: <found>. <to do>"."""
        where = f", {place}" if place else ""
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def digest(self) -> str:
        """Return the sha256 (hex) of the file's bytes as they lie on disk.

        Raises:
            DataFileError: if there is no readable regular file at the path.
        """
        with self._open_raw() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def entries(self) -> Generator[Entry, None, None]:
        """Yield the file's objects in order; at least one, or an error.

        Raises:
            DataFileError: missing, empty, too large, not gzip/UTF-8/JSON, or not objects.
        """
        with self._open_raw() as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
            try:
                yield from self._parse(stream)
            except _BROKEN_GZIP as error:
                raise self.error(
                    f"the gzip data is cut short or damaged ({error})",
                    "Fetch the file again, or test it with gzip -t.",
                ) from error

    def _open_raw(self) -> io.BufferedReader:
        try:
            self._check_is_file()
            return self.path.open("rb")
        except OSError as error:
            found = f"it cannot be opened ({error.strerror})"
            raise self.error(found, "Check the rights of the file and its folder.") from error

    def _check_is_file(self) -> None:
        folder = self.path.parent
        if self.path.is_dir():
            names = sorted(p.name for p in self.path.iterdir() if ".json" in p.name)
            inside = f"It holds {', '.join(names[:5])}." if names else "It holds no JSON file."
            raise self.error("this is a folder", f"Name one file. {inside}")
        if not self.path.exists():
            near = suggest(
                self.path.name, (p.name for p in folder.iterdir()) if folder.is_dir() else ()
            )
            raise self.error(
                "there is no such file", f"Check the path.{near} Nothing is downloaded."
            )
        if not self.path.is_file():
            raise self.error("this is not a regular file", "Save the data to a file first.")

    def _parse(self, stream: IO[bytes]) -> Iterator[Entry]:
        """Look at the first line that is not blank, then read a list or lines."""
        line = 0
        while first := self._take(stream, line := line + 1):
            first = first.removeprefix(codecs.BOM_UTF8) if line == 1 else first
            if first.strip():
                break
        if not first:
            raise self.error("the file is empty", "Give a file with at least one entry.")
        if first.lstrip().startswith(b"["):
            rest = stream.read(MAX_TEXT_BYTES - len(first) + 1)
            if len(first) + len(rest) > MAX_TEXT_BYTES:
                raise self._too_large("the JSON list")
            yield from self._list_entries(self._text(first + rest, line), line)
        else:
            yield from self._line_entries(stream, first, line)

    def _line_entries(self, stream: IO[bytes], data: bytes, line: int) -> Iterator[Entry]:
        while data:
            if data.strip():
                text = self._text(data, line).rstrip()
                value, position = self._decode(text, _skip_blank(text, 0), line)
                position = _skip_blank(text, position)
                if position < len(text):
                    raise self._not_json("text after the end of the object", text, position, line)
                yield self._entry(value, f"line {line}")
            line += 1
            data = self._take(stream, line)

    def _list_entries(self, text: str, line: int) -> Iterator[Entry]:
        """Walk the list with the decoder, so that every entry's line is exact."""
        first_line, number, counted = line, 0, 0
        position = _skip_blank(text, text.index("[") + 1)
        more = text[position : position + 1] != "]"
        while more:
            number += 1
            line += text.count("\n", counted, position)
            counted = position
            value, position = self._decode(text, position, first_line)
            yield self._entry(value, f"entry {number} (line {line})")
            position = _skip_blank(text, position)
            more = text[position : position + 1] == ","
            if more:
                position = _skip_blank(text, position + 1)
            elif text[position : position + 1] != "]":
                raise self._not_json("expecting ',' or ']'", text, position, first_line)
        position = _skip_blank(text, position + 1)
        if position < len(text):
            raise self._not_json("text after the end of the list", text, position, first_line)
        if not number:
            raise self.error("the list is empty", "Give a file with at least one entry.")

    def _decode(self, text: str, position: int, first_line: int) -> tuple[object, int]:
        """Return the JSON value at the position and where it ends."""
        try:
            value, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise self._not_json(error.msg, text, error.pos, first_line) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            raise self._not_json(str(error), text, position, first_line) from error
        return cast(object, value), end

    def _entry(self, value: object, place: str) -> Entry:
        if not isinstance(value, dict):
            raise self.error(
                f"expected an object, found {describe(value)}",
                "Give a JSON list of objects, or one object per line.",
                place,
            )
        return Entry(cast("dict[str, Any]", value), place)

    def _take(self, stream: IO[bytes], line: int) -> bytes:
        data = stream.readline(MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise self._too_large(f"line {line}")
        return data

    def _text(self, data: bytes, line: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", f"line {line}") from error

    def _too_large(self, part: str) -> DataFileError:
        limit = f"{MAX_TEXT_BYTES / 1024**2:g} MiB"
        return self.error(f"{part} is longer than {limit}", "Give JSON Lines, an object per line.")

    def _not_json(self, why: str, text: str, position: int, first_line: int) -> DataFileError:
        line = first_line + text.count("\n", 0, position)
        column = position - text.rfind("\n", 0, position)
        return self.error(
            f"not valid JSON ({why[:1].lower()}{why[1:]})",
            "Give a JSON list of objects, or one object per line; fetch a cut-off file again.",
            f"line {line}, column {column}",
        )


def _skip_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def describe(value: object) -> str:
    """Return a JSON value's kind and a short look at it, for an error message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value!r:.40}"
        case str():
            return f"the string {value[:40]!r}{'...' if len(value) > 40 else ''}"
        case dict():
            names = ", ".join(repr(name) for name in list(cast("dict[str, object]", value))[:12])
            return f"an object with the fields {names}" if names else "an empty object"
        case list():
            return f"a list of {len(cast('list[object]', value))}"
        case _:
            return type(value).__name__
