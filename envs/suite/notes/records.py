"""The objects of a JSON Lines file at a local path, each with its line.

Read line by line, plain or gzip (told by the first bytes, not by the name). Whatever is wrong
is one DataFileError: file, line, what was found, what to do.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treegrpo.envs.errors import DataFileError, suggest

MAX_LINE_BYTES = 16 * 1024**2
"""The most that one line may take when unpacked: it is held in memory."""


@dataclass(frozen=True)
class LinesFile:
    """A file and what it should hold, so that every error can name both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, line: int | None = None) -> DataFileError:
        """Return the error: "Reading <what> from '<path>', line <n>: <found>. <to do>"."""
        where = "" if line is None else f", line {line}"
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def objects(self) -> Generator[tuple[dict[str, object], int], None, None]:
        """Yield the object of each line that is not blank, with the line; at least one.

        Raises:
            DataFileError: missing, unreadable, damaged, empty, a line too long, not UTF-8,
                not JSON or no object.
        """
        line = 0
        is_empty = True
        for line, data in enumerate(self._lines(), 1):
            text = self._text(data, line)
            if text:
                is_empty = False
                yield self._object(text, line), line
        if is_empty:
            raise self.error("the file is empty", "Give a file with at least one entry.")

    def _lines(self) -> Generator[bytes, None, None]:
        """Yield the bytes of each line, the mark of the byte order taken off."""
        try:
            with self.path.open("rb") as raw:
                is_packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_packed else raw
                number = 0
                while data := stream.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(data) > MAX_LINE_BYTES:
                        found = f"the line is longer than {MAX_LINE_BYTES / 1024**2:g} MiB"
                        raise self.error(found, "Give JSON Lines, an object a line.", number)
                    yield data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"the gzip data is cut short or damaged ({error})"
            raise self.error(found, "Fetch the file again, or test it with gzip -t.") from error
        except OSError as error:
            raise self._cannot_open(error) from error

    def _text(self, data: bytes, line: int) -> str:
        try:
            return data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error

    def _object(self, text: str, line: int) -> dict[str, object]:
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            to_do = "Give JSON Lines, an object a line; fetch a cut-off file again."
            raise self.error(f"not valid JSON ({why})", to_do, line) from error
        if not isinstance(value, dict):
            found = f"expected an object, found {type(value).__name__}"
            raise self.error(found, "Give JSON Lines, an object a line.", line)
        return cast("dict[str, object]", value)

    def _cannot_open(self, error: OSError) -> DataFileError:
        if not isinstance(error, FileNotFoundError):
            found = f"it cannot be opened ({error.strerror})"
            return self.error(found, "Name one readable file.")
        folder = self.path.parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        to_do = f"Check the path.{suggest(self.path.name, names)} Nothing is downloaded."
        return self.error("there is no such file", to_do)
