"""The files of a domain folder: read, unpacked, decoded, and every fault named with its place.

JSON, TOML and plain text, each plain or gzip (told by the first bytes). Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from treegrpo.envs.errors import DataFileError, suggest

MAX_BYTES = 256 * 1024**2
"""The most that one file may take when unpacked: it is held in memory."""
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_GZIP = b"\x1f\x8b"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class DomainFile:
    """A file and what it should hold, so that every error can name both."""

    path: Path
    what: str

    def error(self, found: str, to_do: str, line: int | None = None) -> DataFileError:
        """Return the error: "Reading <what> from '<path>', line <n>: <found>. <to do>"."""
        where = "" if line is None else f", line {line}"
        return DataFileError(f"Reading {self.what} from '{self.path}'{where}: {found}. {to_do}")

    def text(self) -> str:
        """Return the file's text, unpacked.

        Raises:
            DataFileError: missing, empty, too large, not gzip or not UTF-8.
        """
        data = self._bytes()
        if len(data) > MAX_BYTES:
            limit = f"{MAX_BYTES / 1024**2:g} MiB"
            raise self.error(f"it is larger than {limit}", "Give a smaller file.")
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
            raise self.error(found, "Save the file as UTF-8.", line) from error
        if not text.strip():
            raise self.error("the file is empty", f"Give a file with {self.what}.")
        return text

    def table(self) -> dict[str, Any]:
        """Return the one object of a JSON or TOML file."""
        text = self.text()
        if self.path.name.removesuffix(".gz").endswith(".toml"):
            try:
                return tomllib.loads(text)
            except (tomllib.TOMLDecodeError, RecursionError) as error:
                raise self.error(f"not valid TOML ({error})", "Correct the file.") from error
        value, end = self._decode(text, _skip_blank(text, 0))
        self._end(text, end)
        if not isinstance(value, dict):
            found = f"expected an object, found {type(value).__name__}"
            raise self.error(found, "Give one JSON object.")
        return cast("dict[str, Any]", value)

    def entries(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the objects of a JSON list, each with the line it begins on; at least one."""
        text = self.text()
        at = _skip_blank(text, 0)
        if text[at] != "[":
            raise self.error("expected a JSON list", "Give a list of objects.", 1)
        at = _skip_blank(text, at + 1)
        if text[at : at + 1] == "]":
            raise self.error("the list is empty", "Give a list with at least one object.")
        line, counted = 1, 0
        while True:
            line, counted = line + text.count("\n", counted, at), at
            value, at = self._decode(text, at)
            if not isinstance(value, dict):
                found = f"expected an object, found {type(value).__name__}"
                raise self.error(found, "Give a list of objects.", line)
            yield cast("dict[str, Any]", value), line
            at = _skip_blank(text, at)
            if text[at : at + 1] == "]":
                self._end(text, at + 1)
                return
            if text[at : at + 1] != ",":
                raise self._not_json("expecting ',' or ']'", text, at)
            at = _skip_blank(text, at + 1)

    def read(self, fields: Mapping[str, Any], schema: type[M], line: int | None = None) -> M:
        """Return an object as `schema` has it.

        Raises:
            DataFileError: for the first field that is wrong.
        """
        try:
            return schema.model_validate(fields)
        except ValidationError as failure:
            fault = failure.errors(include_url=False)[0]
            place = fault["loc"]
            name = ".".join(str(part) for part in place if part not in ("str", "Instructions"))
            wrong = "is missing" if fault["type"] == "missing" else f"is wrong: {fault['msg']}"
            found = f"field '{name}' {wrong}; found {', '.join(map(repr, fields)) or 'no fields'}"
            raise self.error(found, "Correct the entry or leave it out.", line) from None

    def _bytes(self) -> bytes:
        try:
            with self.path.open("rb") as raw:
                is_packed = raw.read(2) == _GZIP
                raw.seek(0)
                if not is_packed:
                    return raw.read(MAX_BYTES + 1)
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    return unpacked.read(MAX_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"the gzip data is cut short or damaged ({error})"
            raise self.error(found, "Fetch the file again, or test it with gzip -t.") from error
        except FileNotFoundError as error:
            folder = self.path.parent
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            near = suggest(self.path.name, names)
            to_do = f"Check the path.{near} Nothing is downloaded."
            raise self.error("there is no such file", to_do) from error
        except OSError as error:
            found = f"it cannot be opened ({error.strerror})"
            raise self.error(found, "Name a readable file.") from error

    def _decode(self, text: str, at: int) -> tuple[object, int]:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise self._not_json(error.msg, text, error.pos) from error
        except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
            raise self._not_json(str(error), text, at) from error
        return cast("object", value), end

    def _end(self, text: str, at: int) -> None:
        if _skip_blank(text, at) < len(text):
            raise self._not_json("text after the end", text, at)

    def _not_json(self, why: str, text: str, at: int) -> DataFileError:
        line = text.count("\n", 0, at) + 1
        found = f"not valid JSON ({why[:1].lower()}{why[1:]})"
        return self.error(found, "Correct the file, or fetch a cut-off one again.", line)


def _skip_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
