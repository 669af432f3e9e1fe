"""reasoning-gym's rows as tasks: a question, and one answer that is scored.

    env = ReasoningGymEnv(rows="rows.jsonl")                      # {question, answer, metadata}
    env = ReasoningGymEnv(dataset="leg_counting", size=500)       # needs the package

Rows are scored by the data set's own scorer where the package is installed and the row says
which data set it is from (metadata.source_dataset), otherwise by comparing texts.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.adapters.json_lines import json_lines
from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import DataFileError, TreegrpoError, UnknownOption
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

_SHARES = 5


class Row(BaseModel):
    """One row; what the metadata holds is the data set's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: Annotated[str, Field(min_length=1)]
    answer: str | None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


class ReasoningGymEnv(ToolEnv):
    """Questions of reasoning-gym, answered once.

    Args:
        rows: the path of a JSON Lines file of rows, plain or gzip.
        dataset: instead, the name of a data set that the package makes.
        size: how many rows it makes, for all splits together.
        dataset_seed: its seed.
        options: its further options.

    Reward: the scorer's, from 0 to 1. A row's content decides its split.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    system_prompt: ClassVar[str] = "Answer the question: one call of answer."
    max_turns = 4
    max_tool_calls = 8

    def __init__(
        self,
        *,
        rows: str | None = None,
        dataset: str | None = None,
        size: int = 500,
        dataset_seed: int = 0,
        options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Read or make the rows; other settings are ToolEnv's."""
        if (rows is None) == (dataset is None):
            raise UnknownOption(
                f"Rows '{rows}' and dataset '{dataset}' asked for; tasks come from one of them. "
                "Give rows=PATH or dataset=NAME."
            )
        more = json.dumps(dict(options or {}), sort_keys=True)
        found = read_rows(rows) if rows else made_rows(str(dataset), size, dataset_seed, more)
        self._tasks = _by_split(found, self.splits)
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split."""
        return self._tasks[split]

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return a state without an answer."""
        return {"answer": None}

    @tool(effects="write")
    def answer(self, text: str) -> str:
        """Give the answer; this ends the task.

        Args:
            text: the answer alone, without any explanation.
        """
        self.state["answer"] = text
        self.finish()
        return "Noted."

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return the score of the answer that was given, 0 without one."""
        if state["answer"] is None:
            return {"score": 0.0}
        metadata: Mapping[str, Any] = task.data["metadata"]
        name = metadata.get("source_dataset")
        scorer = _scorer(str(name)) if name else None
        if scorer is None:
            return {"score": float(_plain(state["answer"]) == _plain(str(task.answer)))}
        row = {"question": task.question, "answer": task.answer, "metadata": dict(metadata)}
        return {"score": float(scorer(state["answer"], row))}

    def oracle(self) -> str:
        """Return the row's answer; rows that have none cannot be solved by it."""
        if self.task.answer is None:
            raise NotImplementedError(f"The row of task {self.task.id} holds no answer.")
        return self.encode_call("answer", text=self.task.answer)


def read_rows(path: str) -> tuple[Row, ...]:
    """Return the rows of a JSON Lines file.

    Raises:
        DataFileError: names the file, the line and the field.
    """
    return tuple(_row(value, f"{path}, line {number}") for number, value in json_lines(path))


def made_rows(dataset: str, size: int, seed: int, options: str) -> tuple[Row, ...]:
    """Return the rows that the package makes; `options` is JSON.

    Raises:
        TreegrpoError: the package is missing, or refuses the name or an option.
    """
    package = _package()
    if package is None:
        raise TreegrpoError(
            f"Data set '{dataset}' asked for, but the package 'reasoning-gym' is not installed. "
            "Install it with: pip install reasoning-gym; or give rows=PATH."
        )
    try:
        items = package.create_dataset(dataset, size=size, seed=seed, **json.loads(options))
        made = list(items)
    except (ValueError, TypeError, AssertionError) as error:
        raise TreegrpoError(
            f"Data set '{dataset}' of size {size} with the options {options} asked for; "
            f"reasoning-gym refuses: {error}. Correct the name or the option."
        ) from error
    plain = json.loads(json.dumps(made, default=str))
    return tuple(_row(row, f"Row {n} of '{dataset}'") for n, row in enumerate(plain, start=1))


def _row(value: object, where: str) -> Row:
    try:
        return Row.model_validate(value)
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"])) or "row"
        raise DataFileError(
            f"{where}, field '{field}': {fault['msg']}. A row is {{question, answer, metadata}}."
        ) from None


def _by_split(rows: Sequence[Row], splits: Sequence[str]) -> dict[str, list[Task]]:
    """Return the tasks of each split; rows of the same question and answer count once."""
    found: dict[str, list[Task]] = {split: [] for split in splits}
    seen: set[str] = set()
    for row in rows:
        content = digest([row.question, row.answer])
        if content not in seen:
            seen.add(content)
            share = int(content[:8], 16) % _SHARES
            split = "test" if share == 0 else "validation" if share == 1 else "train"
            task = Task(
                id=f"row-{content[:16]}",
                question=row.question,
                answer=row.answer,
                difficulty=_difficulty(row),
                data={"metadata": row.metadata},
            )
            found[split].append(task)
    return found


def _difficulty(row: Row) -> int:
    """Return the row's difficulty if it is a level, else 1."""
    level: object = row.metadata.get("difficulty")
    return level if isinstance(level, int) and 1 <= level <= 5 else 1


@functools.cache
def _package() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError:
        return None


@functools.cache
def _scorer(dataset: str) -> Any:
    package = _package()
    try:
        return None if package is None else package.get_score_answer_fn(dataset)
    except ValueError:
        return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
