"""JSON Lines files, plain or gzip, read one line at a time; every fault names file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from treegrpo.envs.errors import DataFileError

MAX_LINE_BYTES = 4_000_000


def json_lines(path: str | Path) -> Iterator[tuple[int, object]]:
    """Yield the number and the value of each line that is not blank.

    Raises:
        DataFileError: a file that cannot be read or holds nothing, a line that is too long or
            is no JSON.
    """
    found = False
    try:
        with _open(Path(path)) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataFileError(
                        f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes. Write one "
                        "JSON object a line."
                    )
                if line.strip():
                    found = True
                    yield number, _value(line, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(
            f"Rows of '{path}' asked for; the file cannot be read: {error}. Name a JSON Lines "
            "file, plain or gzip."
        ) from error
    if not found:
        raise DataFileError(f"Rows of '{path}' asked for; it holds none. Write one a line.")


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _value(line: bytes, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{where}: no JSON ({error}). Write one JSON object a line.") from error
