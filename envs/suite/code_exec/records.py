"""The entries of a task file, one JSON object at a time, each with the line it begins on.

Reads a JSON list or JSON Lines, plain or gzip (told by the first bytes, not by the name).
Whatever is wrong is one DataFileError: file, line, what was found, what to do.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from treegrpo.envs.errors import DataFileError, suggest

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_GZIP = b"\x1f\x8b"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """One object of a file, and the line (from 1) it begins on."""

    fields: dict[str, Any]
    line: int


@dataclass(frozen=True)
class TaskFile:
    """A file and what it should hold, so that every error can name both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, line: int | None = None) -> DataFileError:
        """Return the error: "Reading <what> from '<path>', line <n>: <found>. <to do>"."""
        where = "" if line is None else f", line {line}"
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def wrong_field(self, entry: Entry, field: str, found: str) -> DataFileError:
        """Return the error for one field of an entry."""
        to_do = "Correct the entry or leave it out."
        return self.error(f"field '{field}' {found}", to_do, entry.line)

    def entries(self) -> Iterator[Entry]:
        """Yield the file's objects in order; at least one.

        Raises:
            DataFileError: missing, empty, not gzip, UTF-8 or JSON, or not objects.
        """
        text = self._text()
        start = _skip_blank(text, 0)
        if start == len(text):
            raise self.error("the file is empty", "Give a file with at least one entry.")
        yield from self._list(text, start) if text[start] == "[" else self._lines(text)

    def read(self, entry: Entry, schema: type[M], *, under: str = "") -> M:
        """Return an entry as `schema` has it; `under` is the field it was taken from, if any.

        Raises:
            DataFileError: for the first field that is wrong.
        """
        try:
            return schema.model_validate(entry.fields)
        except ValidationError as failure:
            fault = failure.errors(include_url=False)[0]
            field = ".".join(map(str, ([under] if under else []) + list(fault["loc"])))
            if fault["type"] == "missing":
                fields = ", ".join(map(repr, entry.fields)) or "none"
                raise self.wrong_field(entry, field, f"is missing; found {fields}") from None
            raise self.wrong_field(entry, field, f"is wrong: {fault['msg']}") from None

    def _text(self) -> str:
        try:
            data = self.path.read_bytes()
            if data.startswith(_GZIP):
                data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"the gzip data is cut short or damaged ({error})"
            raise self.error(found, "Fetch the file again, or test it with gzip -t.") from error
        except OSError as error:
            raise self._cannot_open(error) from error
        try:
            return data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error

    def _cannot_open(self, error: OSError) -> DataFileError:
        folder = self.path.parent
        if isinstance(error, FileNotFoundError):
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            near = suggest(self.path.name, names)
            return self.error("there is no such file", f"Check the path.{near} Nothing is fetched.")
        return self.error(f"it cannot be opened ({error.strerror})", "Name one readable file.")

    def _lines(self, text: str) -> Iterator[Entry]:
        for line, content in enumerate(text.split("\n"), 1):
            if not content.strip():
                continue
            start = _skip_blank(content, 0)
            value, end = self._decode(content, start, line)
            if _skip_blank(content, end) < len(content):
                raise self._not_json("text after the end of the object", line)
            yield self._entry(value, line)

    def _list(self, text: str, start: int) -> Iterator[Entry]:
        at = _skip_blank(text, start + 1)
        if text[at : at + 1] == "]":
            raise self.error("the list is empty", "Give a file with at least one entry.")
        while True:
            line = text.count("\n", 0, at) + 1
            value, at = self._decode(text, at, 1)
            yield self._entry(value, line)
            at = _skip_blank(text, at)
            if text[at : at + 1] == "]":
                return
            if text[at : at + 1] != ",":
                raise self._not_json("expecting ',' or ']'", text.count("\n", 0, at) + 1)
            at = _skip_blank(text, at + 1)

    def _decode(self, text: str, start: int, first_line: int) -> tuple[object, int]:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            line = first_line + text.count("\n", 0, error.pos)
            raise self._not_json(error.msg, line) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            line = first_line + text.count("\n", 0, start)
            raise self._not_json(str(error), line) from error
        return cast("object", value), end

    def _entry(self, value: object, line: int) -> Entry:
        if not isinstance(value, dict):
            found = f"expected an object, found {type(value).__name__}"
            raise self.error(found, "Give a JSON list of objects, or one object a line.", line)
        return Entry(cast("dict[str, Any]", value), line)

    def _not_json(self, why: str, line: int) -> DataFileError:
        to_do = "Give a JSON list of objects, or one object a line; fetch a cut-off file again."
        return self.error(f"not valid JSON ({why[:1].lower()}{why[1:]})", to_do, line)


def _skip_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
