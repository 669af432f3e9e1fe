"""Tasks on an MCP server, as rows: given in code, or one a line in a JSON Lines file.

    question    what is asked
    answer      the right answer, if one is asked for
    check       {"name", "arguments", "gives"}: a read-only call and the text it gives at the end
    setup       [{"name", "arguments"}, ...]: calls made before the agent's first
    solution    [{"name", "arguments"}, ...]: calls that solve it, by the agent's names
    split       "train", "validation" or "test"; by default its content decides
    id, difficulty

A row needs an answer or a check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import pydantic.dataclasses
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from treegrpo.envs.adapters.json_lines import json_lines
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.tasks import Task

Split = Literal["train", "validation", "test"]
_SHARES = 5
"""Of five rows, about one is for validation, one for test."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RowCall:
    """A call in a row; `gives` belongs to a check."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    gives: str | None = None


class Row(BaseModel):
    """One task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Annotated[str, Field(min_length=1)]
    answer: str | int | float | None = None
    check: RowCall | None = None
    setup: tuple[RowCall, ...] = ()
    solution: tuple[RowCall, ...] | None = None
    split: Split | None = None
    id: str | None = None
    difficulty: Annotated[int, Field(ge=1, le=5)] = 1

    @pydantic.model_validator(mode="after")
    def _needs_a_condition(self) -> Row:
        if self.answer is None and self.check is None:
            raise ValueError("it needs an 'answer' or a 'check'")
        if self.check is not None and self.check.gives is None:
            raise ValueError("'check' needs 'gives', the text that the call must give")
        return self


def read_rows(rows: Sequence[Mapping[str, Any]] | str) -> tuple[Row, ...]:
    """Return rows that are given, or those of a JSON Lines file.

    Raises:
        DataFileError: names the file, the line or row, and the field; or two rows of the same
            content in two splits.
    """
    if isinstance(rows, str):
        found = tuple(_row(value, f"{rows}, line {number}") for number, value in json_lines(rows))
    else:
        found = tuple(_row(row, f"Row {number}") for number, row in enumerate(rows, start=1))
    splits: dict[str, Split] = {}
    for number, row in enumerate(found, start=1):
        if splits.setdefault(_content(row), _split_of(row)) != _split_of(row):
            raise DataFileError(
                f"Row {number} asks the same as one in split '{splits[_content(row)]}' and is "
                f"put into '{row.split}'. Keep it in one split."
            )
    return found


def tasks_of(rows: Sequence[Row], split: str) -> list[Task]:
    """Return the tasks of one split."""
    return [
        Task(
            id=row.id or f"row-{_content(row)[:16]}",
            question=row.question,
            answer=row.answer,
            difficulty=row.difficulty,
            data={"check": row.check, "setup": row.setup, "solution": row.solution},
        )
        for row in rows
        if _split_of(row) == split
    ]


def _split_of(row: Row) -> Split:
    if row.split is not None:
        return row.split
    share = int(_content(row)[:8], 16) % _SHARES
    return "test" if share == 0 else "validation" if share == 1 else "train"


def _content(row: Row) -> str:
    return digest([row.question, row.answer, row.check, row.setup])


def _row(row: object, where: str) -> Row:
    try:
        return Row.model_validate(row)
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"])) or "row"
        raise DataFileError(
            f"{where}, field '{field}': {fault['msg']}. A row has question, answer, check, "
            "setup, solution, split, id, difficulty."
        ) from None
