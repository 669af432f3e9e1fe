"""The rows of Spider's and BIRD's files as tasks, and what they say about columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.records import DataFile, Entry
from treegrpo.envs.suite.sql.file_database import MAX_SQL_BYTES
from treegrpo.envs.suite.sql.files import read_bytes
from treegrpo.envs.suite.sql.questions import READ_HINT
from treegrpo.envs.tasks import Task

_LEVELS = {"simple": 1, "moderate": 2, "challenging": 4}
# What may hold words that are none of SQL's: texts, quoted names, comments.
_QUOTED = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL
)
_INNERMOST = re.compile(r"\([^()]*\)")
Statement = Annotated[str, Field(min_length=1, max_length=MAX_SQL_BYTES)]
Pair = Annotated[tuple[int, str], Field(strict=False)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class SpiderRow(_Fields):
    """A question of Spider."""

    db_id: str
    question: str = Field(min_length=1)
    query: Statement


class SpiderTables(_Fields):
    """What Spider says about a database: names for people beside those of the schema."""

    db_id: str
    table_names_original: list[str]
    column_names: list[Pair]
    column_names_original: list[Pair]


class BirdRow(_Fields):
    """A question of BIRD; `evidence` is what one must know to understand it."""

    question_id: int
    db_id: str
    question: str = Field(min_length=1)
    evidence: str
    SQL: Statement
    difficulty: Literal["simple", "moderate", "challenging"]


@dataclass(frozen=True)
class Gold:
    """What is right: the rows of this query; `field`, `file` and `place` say where it stands."""

    db_id: str
    sql: str
    is_ordered: bool
    field: str
    file: str
    place: str


def spider_task(file: DataFile, entry: Entry) -> Task:
    """Return the task of a row of Spider; its id is the file's name and the row's number."""
    row = file.read(entry, SpiderRow)
    gold = _gold(row.db_id, row.query, "query", file, entry)
    name = f"{file.path.name.partition('.')[0]}-{entry.number or entry.line}"
    return Task(name, f"{row.question.strip()} {READ_HINT}", gold, _level(row.query))


def bird_task(file: DataFile, entry: Entry) -> Task:
    """Return the task of a row of BIRD, its evidence behind the question."""
    row = file.read(entry, BirdRow)
    gold = _gold(row.db_id, row.SQL, "SQL", file, entry)
    evidence = f" Evidence: {row.evidence.strip()}" if row.evidence.strip() else ""
    question = f"{row.question.strip()}{evidence} {READ_HINT}"
    return Task(f"bird-{row.question_id}", question, gold, _LEVELS[row.difficulty])


def _gold(db_id: str, sql: str, field: str, file: DataFile, entry: Entry) -> Gold:
    return Gold(db_id, sql, is_ordered(sql), field, file.path.name, entry.place)


def is_ordered(sql: str) -> bool:
    """Return whether a query as a whole, and not only a part of it, has an ORDER BY."""
    bare, found = _QUOTED.sub(" ", sql), 1
    while found:
        bare, found = _INNERMOST.subn(" ", bare)
    return re.search(r"\border\s+by\b", bare, re.IGNORECASE) is not None


def _level(sql: str) -> int:
    """Return the level of a query: 1 for one table, 2 for a join or group, 4 if it is nested."""
    words = re.findall(r"\w+", _QUOTED.sub(" ", sql).lower())
    if words.count("select") > 1:
        return 4
    return 2 if "join" in words or "group" in words else 1


def column_names(
    row: SpiderTables, file: DataFile, entry: Entry
) -> Mapping[str, Mapping[str, str]]:
    """Return the names for people of the columns that have other ones in the schema."""
    notes: dict[str, dict[str, str]] = {}
    for (_, text), (table, name) in zip(row.column_names, row.column_names_original, strict=False):
        if table >= len(row.table_names_original):
            raise file.wrong_field(entry, "column_names_original", f"names no table: {table}")
        if table >= 0 and text.strip().lower() != name.lower().replace("_", " "):
            notes.setdefault(row.table_names_original[table].lower(), {})[name.lower()] = text
    return notes


def described_columns(file: DataFile) -> Mapping[str, str]:
    """Return per column, in lower case, what a description says; odd bytes are replaced."""
    text = read_bytes(file).decode("utf-8-sig", "replace")
    fields = ("column_name", "column_description", "value_description")
    notes: dict[str, str] = {}
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            name = (row.get("original_column_name") or "").strip()
            said = [" ".join((row.get(key) or "").split()) for key in fields]
            parts = [part for part in dict.fromkeys(said) if part and part.lower() != name.lower()]
            notes[name.lower()] = "; ".join(parts)
    except csv.Error as error:
        raise file.error(f"not valid CSV ({error})", "Fetch the file again.") from error
    return notes
