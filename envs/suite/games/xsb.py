"""Sokoban levels from a local file in the common text format (XSB), plain or gzip.

    #  wall     $  box    *  box on goal    space, - or _  floor
    .  goal     @  man    +  man on goal

A level is a run of lines that begin with a wall, floor before it aside. Every other line
(titles, "; comments", blank ones) only parts levels. Nothing is ever downloaded.
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treegrpo.envs.errors import DataFileError, suggest
from treegrpo.envs.suite.games.rooms import Room

MAX_BYTES = 16 * 2**20
"""The most that a file may hold, unpacked."""
MAX_SIDE = 40
"""The most rows and columns of a level: larger ones would not fit into an observation."""
_FLOOR = " -_"
_SIGNS = "#$*.@+" + _FLOOR


@dataclass(frozen=True, slots=True)
class FileLevel:
    """A level as it begins."""

    room: Room
    boxes: tuple[int, ...]
    player: int


def read_levels(path: Path) -> tuple[FileLevel, ...]:
    """Return the levels of a file in their order; at least one.

    Raises:
        DataFileError: the file cannot be read, or a level is wrong; names file, line and column.
    """
    lines = _text(path).splitlines()
    levels = tuple(_level(path, first, rows) for first, rows in _runs(lines))
    if not levels:
        raise _error(path, "no level found", "A level is made of lines that begin with '#'.")
    return levels


def _text(path: Path) -> str:
    if not path.is_file():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        found = "this is a folder" if path.is_dir() else "there is no such file"
        raise _error(path, found, f"Name one file.{suggest(path.name, names)}")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
            data = stream.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = f"the gzip data is cut short or damaged ({error})"
        raise _error(path, found, "Copy the file again.") from error
    except OSError as error:
        found = f"it cannot be opened ({error.strerror})"
        raise _error(path, found, "Check the rights of the file and its folder.") from error
    if len(data) > MAX_BYTES:
        found = f"more than {MAX_BYTES // 2**20} MiB"
        raise _error(path, found, "Split the file; a level takes less than 2 KiB.")
    if not data.strip():
        raise _error(path, "the file is empty", "Give a file with at least one level.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(path, "not UTF-8", "Save the file as UTF-8.", f"line {line}") from error


def _runs(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each level's first line number and its lines."""
    run: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.lstrip(_FLOOR).startswith("#"):
            run.append(line.rstrip())
        elif run:
            yield number - len(run), run
            run = []


def _level(path: Path, first: int, rows: list[str]) -> FileLevel:
    """Return the level of the lines from number `first` on."""
    where = f"line {first}" if len(rows) == 1 else f"lines {first} to {first + len(rows) - 1}"
    width = max(map(len, rows))
    for number, row in enumerate(rows, start=first):
        for column, sign in enumerate(row, start=1):
            if sign not in _SIGNS:
                place = f"line {number}, column {column}"
                to_do = "A level has the signs # $ * . @ + and, for floor, space, - or _."
                raise _error(path, f"sign {sign!r} found", to_do, place)
    if max(len(rows), width) > MAX_SIDE:
        found = f"a level of {len(rows)} rows and {width} columns"
        raise _error(path, found, f"Leave it out: at most {MAX_SIDE} of each fit.", where)
    text = "".join(row.ljust(width) for row in rows)
    men = [cell for cell, sign in enumerate(text) if sign in "@+"]
    if len(men) != 1:
        found = f"{len(men)} men (@ or +)"
        raise _error(path, found, "Give the level exactly one.", where)
    inside = _inside(text, width, men[0])
    if inside is None:
        to_do = "Close the walls (#) around the man."
        raise _error(path, "a way out of the level", to_do, where)
    return _checked(path, where, text, width, inside, men[0])


def _inside(text: str, width: int, man: int) -> set[int] | None:
    """Return the cells within the walls around the man, or None if the walls have a gap."""
    inside, queue = {man}, deque([man])
    while queue:
        cell = queue.popleft()
        if not (0 < cell % width < width - 1 and width <= cell < len(text) - width):
            return None
        for there in (cell - width, cell + width, cell - 1, cell + 1):
            if there not in inside and text[there] != "#":
                inside.add(there)
                queue.append(there)
    return inside


def _checked(
    path: Path, where: str, text: str, width: int, inside: set[int], man: int
) -> FileLevel:
    """Return the level if its boxes and goals add up; what is outside the walls becomes wall."""
    lost = [sign for cell, sign in enumerate(text) if cell not in inside and sign in "$."]
    if lost:
        found = f"{'a box' if '$' in lost else 'a goal'} that the man can never reach"
        raise _error(path, found, "Move it inside the walls.", where)
    boxes = tuple(cell for cell in sorted(inside) if text[cell] in "$*")
    goals = frozenset(cell for cell in inside if text[cell] in ".*+")
    if len(boxes) != len(goals) or not boxes:
        found = f"boxes ($ or *): {len(boxes)}, goals (. * or +): {len(goals)}"
        raise _error(path, found, "Give as many goals as boxes, at least one.", where)
    if goals.issuperset(boxes):
        raise _error(path, "every box is on a goal", "Leave out solved levels.", where)
    walls = frozenset(range(len(text))) - frozenset(inside)
    return FileLevel(Room(len(text) // width, width, walls, goals), boxes, man)


def _error(path: Path, found: str, to_do: str, place: str = "") -> DataFileError:
    """Return the error: what was read, what was found, what to do."""
    where = f", {place}" if place else ""
    return DataFileError(f"Reading Sokoban levels from '{path}'{where}: {found}. {to_do}")
