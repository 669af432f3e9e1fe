"""Public programming tasks from a local file, in the format they are published in.

    dataset          file                     graded by
    humaneval        HumanEval.jsonl(.gz)     the asserts of check(candidate)
    mbpp             mbpp.jsonl               the asserts of test_list; the first one is shown
    mbpp_sanitized   sanitized-mbpp.json      the same
    apps             train.jsonl, test.jsonl  inputs and outputs: of a program, or of a function

HumanEval arXiv 2107.03374, MBPP arXiv 2108.07732, APPS arXiv 2105.09938. Nothing is ever
downloaded. MBPP's challenge_test_list is not graded, as in the published numbers. Entries of
APPS without tests are left out.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.records import DataFile, Entry
from treegrpo.envs.suite.code_exec.asserts import exam_of_asserts, exam_of_function
from treegrpo.envs.suite.code_exec.checks import Check, Exam, Outside, Stdin
from treegrpo.envs.tasks import Task

Dataset = Literal["humaneval", "mbpp", "mbpp_sanitized", "apps"]

_LEVELS = {"introductory": 1, "interview": 2, "competition": 3}
# What the reference solutions of APPS take for granted when they are called as functions.
_APPS_BEFORE = """\
import bisect, collections, copy, functools, heapq, itertools, math, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
"""


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class HumanEval(_Fields):
    """An entry of HumanEval.jsonl."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


class Mbpp(_Fields):
    """An entry of mbpp.jsonl."""

    task_id: int
    text: str
    code: str
    test_list: list[str] = Field(min_length=1)
    test_setup_code: str = ""
    challenge_test_list: list[str] = []

    def setup(self) -> str:
        """Return the code that the tests need."""
        return self.test_setup_code


class MbppSanitized(_Fields):
    """An entry of sanitized-mbpp.json."""

    task_id: int
    text: str = Field(validation_alias="prompt")
    code: str
    test_list: list[str] = Field(min_length=1)
    test_imports: list[str] = []

    def setup(self) -> str:
        """Return the code that the tests need."""
        return "\n".join(self.test_imports)


class Apps(_Fields):
    """An entry of APPS; `solutions` and `input_output` are JSON as text, at times empty."""

    problem_id: int | str = Field(validation_alias=AliasChoices("problem_id", "id"))
    question: str
    solutions: str = ""
    input_output: str = ""
    difficulty: Literal["introductory", "interview", "competition"] = "introductory"
    starter_code: str = ""


class AppsTests(_Fields):
    """The text of `input_output`."""

    inputs: list[Any]
    outputs: list[Any]
    fn_name: str | None = None


def load_tasks(path: Path, dataset: Dataset) -> list[Task]:
    """Return the tasks of a file, in its order.

    Raises:
        UnknownOption: no such dataset.
        DataFileError: a file that cannot be read; names file, line and field.
    """
    known = get_args(Dataset)
    if dataset not in known:
        raise UnknownOption(
            f"dataset={dataset!r} of CodeExec asked for; it takes: {', '.join(known)}."
            f"{suggest(str(dataset), known)}"
        )
    file = DataFile(path, f"{dataset} tasks")
    lines: dict[str, int] = {}
    tasks: list[Task] = []
    for entry in file.entries():
        task = _READERS[dataset](file, entry)
        if task is None:
            continue
        if task.id in lines:
            found = f"holds {task.id!r}, which line {lines[task.id]} has, too"
            raise file.wrong_field(entry, "problem_id" if dataset == "apps" else "task_id", found)
        lines[task.id] = entry.line
        tasks.append(task)
    if not tasks:
        raise file.error("no entry has tests", "Give a file with tests.")
    return tasks


def _humaneval(file: DataFile, entry: Entry) -> Task:
    fields = file.read(entry, HumanEval)
    solution = fields.prompt + fields.canonical_solution
    defined = _parsed(file, entry, "canonical_solution", solution)
    names = {node.name for node in defined.body if isinstance(node, ast.FunctionDef)}
    if fields.entry_point not in names:
        raise file.wrong_field(
            entry,
            "entry_point",
            f"names {fields.entry_point!r}, which the solution does not define",
        )
    test = _parsed(file, entry, "test", fields.test)
    exam = exam_of_function(test, fields.entry_point, before=_if_whole(fields.prompt))
    if exam is None:
        raise file.wrong_field(entry, "test", "has no function check(candidate) that checks")
    question = f"Complete this Python function; hand in all of it, imports too.\n\n{fields.prompt}"
    return _task(fields.task_id, question, exam, solution)


def _mbpp(file: DataFile, entry: Entry) -> Task:
    return _mbpp_task(file, entry, file.read(entry, Mbpp))


def _mbpp_sanitized(file: DataFile, entry: Entry) -> Task:
    return _mbpp_task(file, entry, file.read(entry, MbppSanitized))


def _mbpp_task(file: DataFile, entry: Entry, fields: Mbpp | MbppSanitized) -> Task:
    code = _parsed(file, entry, "code", fields.code)
    name = "test_setup_code" if isinstance(fields, Mbpp) else "test_imports"
    setup = _parsed(file, entry, name, fields.setup())
    tests = [
        _parsed(file, entry, f"test_list.{i}", test) for i, test in enumerate(fields.test_list)
    ]
    question = f"{fields.text.strip()}\nYour code should pass this test:\n{fields.test_list[0]}"
    exam = exam_of_asserts(tests, code, setup)
    return _task(f"mbpp/{fields.task_id}", question, exam, fields.code)


def _apps(file: DataFile, entry: Entry) -> Task | None:
    fields = file.read(entry, Apps)
    if not fields.input_output.strip():
        return None
    try:
        tests = _of_json(file, entry, "input_output", fields.input_output)
    except OverflowError:
        return None
    inner = file.read(Entry(tests, entry.line, entry.number), AppsTests, under="input_output")
    if len(inner.inputs) != len(inner.outputs):
        found = f"has {len(inner.inputs)} inputs and {len(inner.outputs)} outputs"
        raise file.wrong_field(entry, "input_output", found)
    if not inner.inputs:
        return None
    solutions: list[str] = []
    if fields.solutions.strip():
        solutions = _of_json(file, entry, "solutions", fields.solutions, kind=list)
    question, exam = _apps_exam(fields, inner)
    return _task(
        f"apps/{fields.problem_id}",
        question,
        exam,
        str(solutions[0]) if solutions else None,
        difficulty=_LEVELS[fields.difficulty],
        stdin=None if inner.fn_name else _as_text(inner.inputs[0]),
    )


def _apps_exam(fields: Apps, tests: AppsTests) -> tuple[str, Exam]:
    pairs = list(zip(tests.inputs, tests.outputs, strict=True))
    starter = f"\n\nBegin with:\n{fields.starter_code}" if fields.starter_code.strip() else ""
    checks: list[Check] = []
    if tests.fn_name is None:
        checks += [Stdin(_as_text(given), _as_text(wanted)) for given, wanted in pairs]
        way = "The program reads standard input and writes standard output."
        return f"{fields.question.strip()}{starter}\n\n{way}", Exam(tuple(checks))
    call = tests.fn_name
    if "class Solution" in fields.starter_code:
        call = f"Solution().{call}"
    checks += [Outside(f"{call}(*{_as_list(given)!r})", wanted, "apps") for given, wanted in pairs]
    way = f"The tests call {call}."
    return f"{fields.question.strip()}{starter}\n\n{way}", Exam(tuple(checks), before=_APPS_BEFORE)


def _as_text(value: Any) -> str:
    """Return what is read or written: a text, or lines that are kept in a list."""
    return "\n".join(map(str, _as_list(value)))


def _as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _task(
    id: str,
    question: str,
    exam: Exam,
    solution: str | None,
    *,
    difficulty: int = 1,
    stdin: str | None = None,
) -> Task:
    data = {"solution": solution, "example": stdin, "is_program": stdin is not None}
    return Task(id, question, exam, difficulty, data)


def _if_whole(code: str) -> str:
    """Return code that stands by itself (a head with a docstring does), else nothing."""
    try:
        _parse(code)
    except (SyntaxError, ValueError):
        return ""
    return code


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the files' own escapes and comparisons
        return ast.parse(code)


def _parsed(file: DataFile, entry: Entry, field: str, code: str) -> ast.Module:
    try:
        return _parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise file.wrong_field(entry, field, f"is not valid Python: {error}") from error


def _of_json(file: DataFile, entry: Entry, field: str, text: str, *, kind: type[Any] = dict) -> Any:
    """Return the value of a field that holds JSON as text.

    Raises:
        OverflowError: it holds a number too long for Python to read.
        DataFileError: it is no JSON, or not of the kind.
    """
    try:
        value: object = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise file.wrong_field(entry, field, f"holds no valid JSON: {error}") from error
    except ValueError as error:
        raise OverflowError(str(error)) from error
    if not isinstance(value, kind):
        found = f"holds JSON of a {type(value).__name__}, not of a {kind.__name__}"
        raise file.wrong_field(entry, field, found)
    return value


_READERS: dict[Dataset, Callable[[DataFile, Entry], Task | None]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "mbpp_sanitized": _mbpp_sanitized,
    "apps": _apps,
}
