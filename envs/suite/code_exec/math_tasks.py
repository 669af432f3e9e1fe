"""Maths problems as tasks: generated ones, and those of GSM8K files; how answers are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from treegrpo.envs.digest import digest
from treegrpo.envs.records import DataFile
from treegrpo.envs.suite.code_exec.math_families import FAMILIES, Problem
from treegrpo.envs.suite.code_exec.ops import pick
from treegrpo.envs.tasks import Task

DIFFICULTIES = tuple(FAMILIES)
MIN_SIZE = 100
"""Whole answers are at least this large, so that guessing does not pay."""
MAX_ANSWER_CHARS = 400
_TEST_SHARE = 4
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(/\d+)?")


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random problem of one split; its text decides which split it may be in."""
    return draw_task(rng, FAMILIES[difficulty], difficulty, lambda p: split_of(p) == split)


def draw_task(
    rng: np.random.Generator,
    families: Sequence[Callable[[np.random.Generator], Problem]],
    difficulty: int,
    is_wanted: Callable[[Problem], bool],
) -> Task:
    """Return a random task of one of the families whose problem is wanted."""
    while True:
        problem = pick(rng, families)(rng)
        if not is_wanted(problem):
            continue
        answer = run_cells(problem.cells)
        if answer.denominator > 1 or abs(answer) >= MIN_SIZE:
            return Task(
                id=f"{problem.family}-{digest(problem.question)[:16]}",
                question=problem.question,
                answer=str(answer),
                difficulty=difficulty,
                data={"cells": problem.cells},
            )


def split_of(problem: Problem) -> str:
    """Return the only split a problem can be in."""
    return "test" if int(digest(problem.question)[:8], 16) % _TEST_SHARE == 0 else "train"


def run_cells(cells: tuple[str, ...]) -> Fraction:
    """Return the answer of our own cells; never run an agent's code with it."""
    namespace: dict[str, Any] = {}
    for cell in cells:
        exec(cell, namespace)
    return Fraction(namespace["answer"])


def read_number(text: str) -> Fraction | None:
    """Return the number that a text spells, or None if it spells none.

    Commas between digits, a leading $, a trailing % or full stop and blanks around it all are
    left out; 7/3 and 2.50 are read exactly.
    """
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text.strip()[:MAX_ANSWER_CHARS])
    plain = plain.removeprefix("$").removesuffix(".").removesuffix("%").strip()
    plain = re.sub(r"\s*/\s*", "/", plain)
    if not _NUMBER.fullmatch(plain):
        return None
    top, _, bottom = plain.partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / Fraction(bottom or 1)


class Gsm8k(BaseModel):
    """An entry of a GSM8K file; the answer ends with "#### " and a number."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    question: str
    answer: str


def load_gsm8k(path: Path) -> list[Task]:
    """Return the tasks of a GSM8K file (arXiv 2110.14168), in its order.

    Raises:
        DataFileError: a file that cannot be read; names file, line and field.
    """
    file = DataFile(path, "gsm8k tasks")
    tasks: list[Task] = []
    for entry in file.entries():
        fields = file.read(entry, Gsm8k)
        _, mark, last = fields.answer.rpartition("####")
        gold = read_number(last) if mark else None
        if gold is None:
            found = "does not end with '####' and a number"
            raise file.wrong_field(entry, "answer", found)
        if not fields.question.strip():
            raise file.wrong_field(entry, "question", "is blank")
        id = f"gsm8k/{len(tasks)}-{digest(fields.question)[:8]}"
        tasks.append(Task(id, fields.question.strip(), str(gold), data={"cells": ()}))
    return tasks
