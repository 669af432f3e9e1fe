"""Data files at local paths: their text and JSON entries, each with the place it stands at.

    way          holds                             gives
    entries()    a JSON list, or JSON Lines        objects; lines are streamed
    items()      a JSON list, or one JSON object   values of any kind, with their keys
    table()      one JSON or TOML object           the object
    text()       anything in UTF-8                 the whole text

    file = DataFile(path, "questions")
    for entry in file.entries():
        question = file.read(entry, Question)      # a pydantic model
        if not question.answers:
            raise file.wrong_field(entry, "answers", "is empty")

Every file may be plain or gzip (told by its first bytes, not by its name). Whatever is wrong
with one is one DataFileError of one line: what was read from which file, the place, what was
found, what to do. Nothing is downloaded, and never more than `max_bytes` is held.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import os
import re
import tomllib
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from treegrpo.envs.errors import DataFileError, suggest

MAX_BYTES = 256 * 1024**2
"""The most that a line, a JSON list or object, or a text may take unpacked, unless told."""
_SHOWN = 12
"""How many names an error message lists."""
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")
_CORRECT = "Correct the entry or leave it out."
_ANY_FORM = "Give a JSON list of objects, or one object per line"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """An object of a file: its fields, the line it begins on, its number if it is in a list.

    Lines and numbers begin at 1.
    """

    fields: dict[str, Any]
    line: int
    number: int | None = None

    @property
    def place(self) -> str:
        """Where it stands: "line 3", or "entry 2 (line 14)"."""
        return f"line {self.line}" if self.number is None else f"entry {self.number} ({_on(self)})"


@dataclass(frozen=True)
class Item:
    """A value of a list or object: its number (from 1) or name, and the line it begins on."""

    key: int | str
    value: object
    line: int

    @property
    def place(self) -> str:
        """Where it stands: "entry 2 (line 14)", or "entry 'name' (line 14)"."""
        return f"entry {self.key!r:.80} ({_on(self)})"


@dataclass(frozen=True)
class DataFile:
    """A file and what is read from it ("questions"), so that every error can name both.

    `max_bytes` bounds what is held at a time, unpacked: a line, or all of any other form.
    """

    path: Path
    what: str
    max_bytes: int = MAX_BYTES

    def error(self, found: str, to_do: str, place: str | int = "") -> DataFileError:
        """Return the error "Reading <what> from '<path>', <place>: <found>. <to do>".

        Args:
            found: what is wrong, without a full stop.
            to_do: a sentence or more.
            place: words, or the number of a line.
        """
        where = f"line {place}" if isinstance(place, int) else place
        where = f", {where}" if where else ""
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def wrong_field(
        self, entry: Entry | Item, field: str, found: str, to_do: str = _CORRECT
    ) -> DataFileError:
        """Return the error for one field of an entry: "field 'f' <found>", with its place."""
        return self.error(f"field '{field}' {found}", to_do, entry.place)

    def digest(self) -> str:
        """Return the sha256 (hex) of the file's bytes as they lie on disk.

        Raises:
            DataFileError: there is no readable regular file at the path.
        """
        with self._opened() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def text(self) -> str:
        """Return the file's text, unpacked, without a byte order mark; never blank.

        Raises:
            DataFileError: missing, empty, too large, damaged or not UTF-8.
        """
        with self._unpacked() as stream:
            text = self._whole(stream, b"", "it", 1)
        if not text.strip():
            raise self._empty()
        return text

    def table(self) -> dict[str, Any]:
        """Return the one object of a JSON file, or of a TOML one (told by its name's end).

        Raises:
            DataFileError: as text() does, or no such object.
        """
        text = self.text()
        if self.path.name.removesuffix(".gz").endswith(".toml"):
            try:
                return tomllib.loads(text)
            except (ValueError, RecursionError) as error:
                raise self.error(f"not valid TOML ({error})", "Correct the file.") from error
        value, end = self._decode(text, _skip_blank(text, 0), 1)
        self._refuse_rest(text, end, 1, "the object")
        if not isinstance(value, dict):
            found = f"expected an object, found {describe(value)}"
            raise self.error(found, "Give one JSON object.")
        return cast("dict[str, Any]", value)

    def items(self) -> Iterator[Item]:
        """Yield the values of the file's one list or object in order, decoded one by one.

        Raises:
            DataFileError: as text() does, or neither a list nor an object.
        """
        text = self.text()
        start = _skip_blank(text, 0)
        if text[start] not in "[{":
            raise self._not_json("it is neither a list nor an object", text, start, 1)
        yield from self._walk(text, start, 1)

    def entries(self) -> Generator[Entry, None, None]:
        """Yield the objects of a JSON list, or of JSON Lines, in order; at least one.

        The file stays open until the generator has ended or is closed.

        Raises:
            DataFileError: missing, empty, too large, not gzip, UTF-8 or JSON, or not objects.
        """
        with self._unpacked() as stream:
            first, line = self._first_line(stream)
            if first.lstrip().startswith(b"["):
                text = self._whole(stream, first, "the JSON list", line)
                item: Item | None = None
                for item in self._walk(text, _skip_blank(text, 0), line):
                    yield self._entry(item.value, item.line, int(item.key))
                if item is None:
                    raise self.error("the list is empty", "Give a file with at least one entry.")
            else:
                yield from self._line_entries(stream, first, line)

    def read(self, entry: Entry | Item, schema: type[M], *, under: str = "") -> M:
        """Return an entry as `schema` has it; `under` is the field it was taken from, if any.

        Raises:
            DataFileError: for the first field that is wrong; names it, its value and the place.
        """
        value = entry.fields if isinstance(entry, Entry) else entry.value
        try:
            return schema.model_validate(value)
        except ValidationError as failure:
            fault = failure.errors(include_url=False)[0]
        is_missing = fault["type"] == "missing"
        wrong = "is missing" if is_missing else f"is wrong: {fault['msg']}"
        path = _path(value, fault["loc"], is_missing=is_missing)
        name = ".".join([under, *path] if under else path)
        found = describe(cast("object", fault["input"]))
        if name:
            raise self.wrong_field(entry, name, f"{wrong}; found {found}")
        wrong = "expected an object" if fault["type"] == "model_type" else f"the entry {wrong}"
        raise self.error(f"{wrong}, found {found}", _CORRECT, entry.place)

    def _opened(self) -> io.BufferedReader:
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
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            to_do = f"Check the path.{suggest(self.path.name, names)} Nothing is downloaded."
            raise self.error("there is no such file", to_do)
        if not self.path.is_file():  # a pipe would be waited for, a device never ends
            raise self.error("this is not a regular file", "Save the data to a file first.")

    @contextmanager
    def _unpacked(self) -> Generator[IO[bytes], None, None]:
        """Give the file's bytes, unpacked; what goes wrong on the way is told of the file."""
        with self._opened() as raw:
            try:
                is_packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_packed else raw
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                found = f"the gzip data is cut short or damaged ({error})"
                to_do = "Fetch the file again, or test it with gzip -t."
                raise self.error(found, to_do) from error
            except OSError as error:
                raise self.error(
                    f"it cannot be read ({error.strerror})", "Copy it anew."
                ) from error

    def _whole(self, stream: IO[bytes], first: bytes, part: str, line: int) -> str:
        """Return the text of all that is left after `first`, which begins on `line`."""
        is_plain = isinstance(stream, io.BufferedReader)
        if is_plain and os.fstat(stream.fileno()).st_size > self.max_bytes:
            raise self._too_long(part)  # told by the size, not read
        rest = stream.read(self.max_bytes - len(first) + 1)
        if len(first) + len(rest) > self.max_bytes:
            raise self._too_long(part)
        return self._decoded(first + rest, line).removeprefix("\ufeff")

    def _first_line(self, stream: IO[bytes]) -> tuple[bytes, int]:
        """Return the first line that is not blank, and its number."""
        line = 1
        data = self._line(stream, line).removeprefix(codecs.BOM_UTF8)
        while data and not data.strip():
            line += 1
            data = self._line(stream, line)
        if not data:
            raise self._empty()
        return data, line

    def _line_entries(self, stream: IO[bytes], data: bytes, line: int) -> Iterator[Entry]:
        while data:
            if data.strip():
                text = self._decoded(data, line).rstrip()
                value, end = self._decode(text, _skip_blank(text, 0), line)
                self._refuse_rest(text, end, line, "the object")
                yield self._entry(value, line)
            line += 1
            data = self._line(stream, line)

    def _line(self, stream: IO[bytes], line: int) -> bytes:
        data = stream.readline(self.max_bytes + 1)
        if len(data) > self.max_bytes:
            raise self._too_long(f"line {line}")
        return data

    def _decoded(self, data: bytes, line: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error

    def _walk(self, text: str, start: int, first_line: int) -> Iterator[Item]:
        """Walk the list or object with the decoder, so that every item's line is exact."""
        is_list = text[start] == "["
        close, name = ("]", "the list") if is_list else ("}", "the object")
        at = _skip_blank(text, start + 1)
        key: int | str = 0
        line, counted = first_line, 0
        more = text[at : at + 1] != close
        while more:
            line, counted = line + text.count("\n", counted, at), at
            if isinstance(key, int) and is_list:
                key += 1
            else:
                key, at = self._key(text, at, first_line)
            value, at = self._decode(text, at, first_line)
            yield Item(key, value, line)
            at = _skip_blank(text, at)
            more = text[at : at + 1] == ","
            if more:
                at = _skip_blank(text, at + 1)
            elif text[at : at + 1] != close:
                raise self._not_json(f"expecting ',' or '{close}'", text, at, first_line)
        self._refuse_rest(text, at + 1, first_line, name)

    def _key(self, text: str, at: int, first_line: int) -> tuple[str, int]:
        key, end = self._decode(text, at, first_line)
        end = _skip_blank(text, end)
        if not isinstance(key, str) or text[end : end + 1] != ":":
            raise self._not_json("expecting a name and ':'", text, at, first_line)
        return key, _skip_blank(text, end + 1)

    def _decode(self, text: str, at: int, first_line: int) -> tuple[object, int]:
        """Return the JSON value at the position and where it ends."""
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise self._not_json(error.msg, text, error.pos, first_line) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            raise self._not_json(str(error), text, at, first_line) from error
        return cast("object", value), end

    def _entry(self, value: object, line: int, number: int | None = None) -> Entry:
        if not isinstance(value, dict):
            found = f"expected an object, found {describe(value)}"
            raise self.error(found, f"{_ANY_FORM}.", Entry({}, line, number).place)
        return Entry(cast("dict[str, Any]", value), line, number)

    def _refuse_rest(self, text: str, at: int, first_line: int, name: str) -> None:
        at = _skip_blank(text, at)
        if at < len(text):
            raise self._not_json(f"text after the end of {name}", text, at, first_line)

    def _not_json(self, why: str, text: str, at: int, first_line: int) -> DataFileError:
        line = first_line + text.count("\n", 0, at)
        column = at - text.rfind("\n", 0, at)
        found = f"not valid JSON ({why[:1].lower()}{why[1:]})"
        to_do = f"{_ANY_FORM}; fetch a cut-off file again."
        return self.error(found, to_do, f"line {line}, column {column}")

    def _too_long(self, part: str) -> DataFileError:
        found = f"{part} is longer than {self.max_bytes / 1024**2:g} MiB"
        return self.error(found, "Give a part of the file, or JSON Lines, an object per line.")

    def _empty(self) -> DataFileError:
        return self.error("the file is empty", "Give a file with at least one entry.")


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
            fields = list(cast("dict[str, object]", value))[:_SHOWN]
            names = ", ".join(f"{name!r:.80}" for name in fields)
            return f"an object with the fields {names}" if names else "an empty object"
        case list():
            return f"a list of {len(cast('list[object]', value))}"
        case _:
            return type(value).__name__


def _path(value: object, location: tuple[int | str, ...], *, is_missing: bool) -> list[str]:
    """Return where a schema's fault lies, without the tags of the schema's own unions."""
    here: Any = value
    path: list[int | str] = []
    for part in location:
        if _has(here, part):
            here = here[part]
            path.append(part)
    if is_missing:
        path.append(location[-1])
    return [repr(str(part))[1:-1][:80] for part in path]  # of a file: no control characters


def _has(value: object, part: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(cast("list[object]", value))
    return isinstance(value, dict) and part in value


def _skip_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _on(entry: Entry | Item) -> str:
    return f"line {entry.line}"
