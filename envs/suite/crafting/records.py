"""A text file at a local path, and the JSON objects in it, each with the line it begins on.

Plain or gzip (told by the first bytes, not by the name). Whatever is wrong is one
DataFileError: file, line, what was found, what to do.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treegrpo.envs.errors import DataFileError, suggest

MAX_BYTES = 256 * 1024**2
"""The most that a file may take when unpacked: it is held in memory."""
_DECODER = json.JSONDecoder()
_BLANK = " \t\r\n"


@dataclass(frozen=True)
class TaskFile:
    """A file and what it should hold, so that every error can name both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, line: int | None = None) -> DataFileError:
        """Return the error: "Reading <what> from '<path>', line <n>: <found>. <to do>"."""
        where = "" if line is None else f", line {line}"
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def text(self) -> str:
        """Return the file's text, unpacked; never blank.

        Raises:
            DataFileError: missing, unreadable, too large, damaged, not UTF-8, or empty.
        """
        data = self._bytes()
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error
        if not text.strip():
            raise self.error("the file is empty", "Give a file with at least one task.")
        return text

    def objects(self, text: str) -> Iterator[tuple[dict[str, object], int]]:
        """Yield the objects of a JSON list, or of one after the other, with their lines.

        Raises:
            DataFileError: not JSON, not objects, or none.
        """
        at, is_list = _next(text, 0), text.lstrip().startswith("[")
        at = _next(text, at + 1) if is_list else at
        if is_list and text[at : at + 1] == "]":
            raise self.error("the list is empty", "Give a file with at least one task.")
        while at < len(text):
            line = text.count("\n", 0, at) + 1
            value, at = self._decode(text, at, line)
            if not isinstance(value, dict):
                found = f"expected an object, found {type(value).__name__}"
                raise self.error(found, "Give a JSON list of objects.", line)
            yield cast("dict[str, object]", value), line
            at = _next(text, at)
            if is_list and text[at : at + 1] == "]":
                return
            if is_list and text[at : at + 1] != ",":
                raise self._not_json("expecting ',' or ']'", text.count("\n", 0, at) + 1)
            at = _next(text, at + 1) if is_list else at

    def _decode(self, text: str, at: int, line: int) -> tuple[object, int]:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise self._not_json(error.msg, error.lineno) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            raise self._not_json(str(error), line) from error
        return cast("object", value), end

    def _not_json(self, why: str, line: int) -> DataFileError:
        to_do = "Give a JSON list of objects; fetch a cut-off file again."
        return self.error(f"not valid JSON ({why[:1].lower()}{why[1:]})", to_do, line)

    def _bytes(self) -> bytes:
        try:
            with self.path.open("rb") as raw:
                is_packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_packed else raw
                data = stream.read(MAX_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"the gzip data is cut short or damaged ({error})"
            raise self.error(found, "Fetch the file again, or test it with gzip -t.") from error
        except OSError as error:
            raise self._cannot_open(error) from error
        if len(data) > MAX_BYTES:
            found = f"it is longer than {MAX_BYTES / 1024**2:g} MiB"
            raise self.error(found, "Give a part of the file.")
        return data

    def _cannot_open(self, error: OSError) -> DataFileError:
        if not isinstance(error, FileNotFoundError):
            found = f"it cannot be opened ({error.strerror})"
            return self.error(found, "Name one readable file.")
        folder = self.path.parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        to_do = f"Check the path.{suggest(self.path.name, names)} Nothing is downloaded."
        return self.error("there is no such file", to_do)


def _next(text: str, at: int) -> int:
    """Return the next position that is not blank."""
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at
