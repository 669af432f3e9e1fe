"""Tasks from plain rows, split by what they say: {"question": ..., "answer": ...} -> Task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from treegrpo.envs.digest import digest
from treegrpo.envs.errors import DataFileError, SnapshotUnsupported
from treegrpo.envs.tasks import Task

Row = Mapping[str, Any] | Task
_FIELDS = ("question", "answer", "id", "difficulty")
TEST_SHARE = 5
"""One row of so many is for the split "test"."""


def split_tasks(
    rows: Sequence[Row] | Mapping[str, Sequence[Row]], *, prefix: str
) -> dict[str, tuple[Task, ...]]:
    """Return the tasks per split; no two tasks are the same, within a split or across.

    Args:
        rows: per split, or one list. Of a list the fifth whose digests come first is for
            "test", at least one row; adding a row may move another one. Give the splits
            yourself where they must stay.
        prefix: what the ids of rows without one begin with.

    Raises:
        DataFileError: names the split, the row and the field.
    """
    given = rows if isinstance(rows, Mapping) else {"rows": rows}
    tasks = {split: _tasks(part, split, prefix) for split, part in given.items()}
    seen: dict[str, str] = {}
    for split, part in tasks.items():
        for number, task in enumerate(part):
            where = f"{split}, row {number}"
            key = digest([task.question, task.answer, dict(task.data)])
            if key in seen:
                raise DataFileError(
                    f"{where}: the same task as {seen[key]}; each may occur once, so that no split "
                    "knows another's. Remove one of them."
                )
            seen[key] = where
    for split, part in tasks.items():
        _refuse_shared_ids(part, split)
    return tasks if isinstance(rows, Mapping) else _by_content(tasks["rows"])


def _by_content(tasks: Sequence[Task]) -> dict[str, tuple[Task, ...]]:
    if len(tasks) < 2:
        raise DataFileError(
            f"rows: {len(tasks)} given, and train and test need one each. Give more rows, or the "
            "splits as {'train': [...], 'test': [...]}."
        )
    count = max(1, len(tasks) // TEST_SHARE)
    order = sorted(tasks, key=lambda task: digest([task.question, task.answer, dict(task.data)]))
    test = {id(task) for task in order[:count]}
    return {
        "train": tuple(task for task in tasks if id(task) not in test),
        "test": tuple(task for task in tasks if id(task) in test),
    }


def _tasks(rows: Sequence[Row], split: str, prefix: str) -> tuple[Task, ...]:
    if not rows:
        raise DataFileError(f"{split}: no row given; a split needs at least one.")
    return tuple(_task(row, f"{split}, row {n}", prefix) for n, row in enumerate(rows))


def _refuse_shared_ids(tasks: Sequence[Task], split: str) -> None:
    ids: dict[str, int] = {}
    for number, task in enumerate(tasks):
        if ids.setdefault(task.id, number) != number:
            raise DataFileError(
                f"{split}, row {number}, field id: '{task.id}' is the id of row {ids[task.id]}, "
                "too. Give each its own."
            )


def _task(row: object, where: str, prefix: str) -> Task:
    if isinstance(row, Task):
        return row
    if not isinstance(row, Mapping):
        raise DataFileError(f"{where}: a row must be a mapping or a Task, found {row!r:.80}.")
    given = cast("Mapping[str, Any]", row)
    question, difficulty = given.get("question"), given.get("difficulty", 1)
    if not isinstance(question, str) or not question.strip():
        raise DataFileError(f"{where}, field question: a text is needed, found {question!r:.80}.")
    if isinstance(difficulty, bool) or not isinstance(difficulty, int):
        raise DataFileError(
            f"{where}, field difficulty: an integer is needed, found {difficulty!r:.80}."
        )
    data = {key: value for key, value in given.items() if key not in _FIELDS}
    answer = given.get("answer")
    try:
        key = digest([question, answer, data])
    except SnapshotUnsupported as error:
        raise DataFileError(f"{where}: only plain data can be in a row. {error}") from error
    return Task(str(given.get("id", f"{prefix}-{key[:12]}")), question, answer, difficulty, data)
