"""Questions of a Spider or BIRD folder: a file of rows, and one SQLite database per db_id.

    Spider   train_spider.json, dev.json   [{db_id, question, query, ...}]
             tables.json                   [{db_id, table_names_original, ...}]
             database/<db_id>/<db_id>.sqlite
    BIRD     dev.json                      [{question_id, db_id, question, evidence, SQL,
                                             difficulty}]
             dev_databases/<db_id>/<db_id>.sqlite
             dev_databases/<db_id>/database_description/<table>.csv

JSON files may be gzip (.json.gz). A folder is a stranger's: see `files` and
`file_database`. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.records import DataFile, Entry
from treegrpo.envs.suite.sql.database import Row
from treegrpo.envs.suite.sql.file_database import (
    MAX_FILE_BYTES,
    FileDatabase,
    Notes,
    check_header,
    load_database,
)
from treegrpo.envs.suite.sql.files import file_in
from treegrpo.envs.suite.sql.guard import SQLError
from treegrpo.envs.suite.sql.rows import (
    Gold,
    SpiderTables,
    bird_task,
    column_names,
    described_columns,
    spider_task,
)
from treegrpo.envs.suite.sql.tasks import are_same_rows
from treegrpo.envs.tasks import Task

MAX_OPEN = 4
"""How many databases are held in memory at once."""
MAX_GOLD = 64
"""How many gold answers are kept, so that a task asked again need not be run again."""
MAX_TEXT_BYTES, MAX_NOTES_BYTES = 128 * 1024**2, 4 * 1024**2
"""The largest file of questions, unpacked, and the largest description."""


class TaskFolder:
    """The tasks of a folder, and its databases, opened when a task first needs them."""

    def __init__(self, root: Path) -> None:
        """Read the questions, and see that each database is there.

        Raises:
            DataFileError: no folder of either kind, or a file that cannot be read.
        """
        self.root = root
        self._is_bird = self._is_bird_folder()
        self._known = {} if self._is_bird else self._spider_notes()
        self._checked: set[str] = set()
        names = ("dev.json",) if self._is_bird else ("train_spider.json", "dev.json")
        files = {name: file for name in names if (file := self._file(name)) is not None}
        if not files:
            raise self._error(f"it has no {' and no '.join(names)}", "Unpack the data set there.")
        read = {name: tuple(self._tasks(file)) for name, file in files.items()}
        self._train = read.get("train_spider.json") or read["dev.json"]
        self._dev = read.get("dev.json") or self._train
        self._opened = functools.lru_cache(MAX_OPEN)(self._load)
        self._answers = functools.lru_cache(MAX_GOLD)(self._run)

    def __reduce__(self) -> tuple[type[TaskFolder], tuple[Path]]:
        return TaskFolder, (self.root,)

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return the training file's tasks for "train", those of dev.json for other splits.

        A file that is missing is stood in for by the other.
        """
        return self._train if split == "train" else self._dev

    def database(self, gold: Gold) -> FileDatabase:
        """Return the database that a task is about, shared by all who ask for it."""
        return self._opened(gold.db_id)

    def gold_rows(self, gold: Gold) -> tuple[Row, ...]:
        """Return the rows that the gold query gives.

        Raises:
            DataFileError: it fails, is stopped, or gives too many; names file, line and field.
        """
        return self._answers(gold)

    def is_right(self, gold: Gold, submission: str) -> bool:
        """Return whether a submitted query gives the gold rows."""
        try:
            result = self.database(gold).execute(submission)
        except SQLError:
            return False
        rows = self.gold_rows(gold)
        return not result.has_more and are_same_rows(result.rows, rows, is_ordered=gold.is_ordered)

    # ------------------------------------------------------------------------- what is asked

    def _tasks(self, file: DataFile) -> Iterator[Task]:
        to_task = bird_task if self._is_bird else spider_task
        seen: dict[str, str] = {}
        for entry in file.entries():
            task = to_task(file, entry)
            if task.id in seen:
                found = f"is the same as that of {seen[task.id]}"
                raise file.wrong_field(entry, "question_id", found)
            seen[task.id] = entry.place
            self._check_database(task.answer.db_id, file, entry)
            yield task

    def _check_database(self, db_id: str, file: DataFile, entry: Entry) -> None:
        """Refuse a row whose database is not there; look at each only once."""
        if db_id in self._checked:
            return
        if not re.fullmatch(r"\w[\w .-]{0,99}", db_id, re.ASCII):
            raise file.wrong_field(entry, "db_id", f"is no plain name of a folder: {db_id[:60]!r}")
        if not self._is_bird and db_id not in self._known:
            raise file.wrong_field(entry, "db_id", f"is not in tables.json: {db_id[:60]!r}")
        try:
            check_header(self._database_file(db_id))
        except DataFileError as error:
            asked = f"It is asked for by {entry.place} of '{file.path}'."
            raise DataFileError(f"{error} {asked}") from None
        self._checked.add(db_id)

    # ---------------------------------------------------------------------------- what is there

    def _is_bird_folder(self) -> bool:
        if not self.root.is_dir():
            raise self._error("there is no such folder", "Name a folder of Spider or BIRD.")
        kinds = [name for name in ("database", "dev_databases") if (self.root / name).exists()]
        if len(kinds) != 1:
            found = "both 'database'" if kinds else "neither 'database'"
            other = f"{'and' if kinds else 'nor'} 'dev_databases' (BIRD)"
            to_do = "Name the folder of one data set."
            raise self._error(f"it has {found} (Spider) {other}", to_do)
        return kinds == ["dev_databases"]

    def _error(self, found: str, to_do: str) -> DataFileError:
        return DataFileError(f"Reading SQL tasks from '{self.root}': {found}. {to_do}")

    def _file(self, name: str) -> DataFile | None:
        for spelling in (name, f"{name}.gz"):
            file = file_in(self.root, spelling, "SQL tasks", MAX_TEXT_BYTES)
            if file.path.exists():
                return file
        return None

    def _database_file(self, db_id: str) -> DataFile:
        kind = "dev_databases" if self._is_bird else "database"
        name = f"{kind}/{db_id}/{db_id}.sqlite"
        return file_in(self.root, name, "a SQLite database", MAX_FILE_BYTES)

    def _load(self, db_id: str) -> FileDatabase:
        notes = self._bird_notes(db_id) if self._is_bird else self._known[db_id]
        return load_database(self._database_file(db_id), notes)

    def _run(self, gold: Gold) -> tuple[Row, ...]:
        file = DataFile(self.root / gold.file, "SQL tasks")
        try:
            result = self._opened(gold.db_id).execute(gold.sql)
        except SQLError as error:
            found = f"field '{gold.field}': the gold query fails on '{gold.db_id}' ({error})"
            raise file.error(found, "Correct the row or leave it out.", gold.place) from None
        if result.has_more:
            found = f"field '{gold.field}': the gold query gives more than {len(result.rows)} rows"
            raise file.error(found, "Leave the row out.", gold.place)
        return result.rows

    # ------------------------------------------------------------------ what columns stand for

    def _spider_notes(self) -> dict[str, Notes]:
        file = self._file("tables.json")
        if file is None:
            raise self._error("it has no tables.json", "Unpack the whole data set there.")
        rows = ((file.read(entry, SpiderTables), entry) for entry in file.entries())
        return {row.db_id: column_names(row, file, entry) for row, entry in rows}

    def _bird_notes(self, db_id: str) -> Notes:
        folder = f"dev_databases/{db_id}/database_description"
        notes: dict[str, Mapping[str, str]] = {}
        for path in sorted((self.root / folder).glob("*.csv")):
            file = file_in(
                self.root, f"{folder}/{path.name}", "a table's description", MAX_NOTES_BYTES
            )
            notes[path.stem.lower()] = described_columns(file)
        return notes
