"""The programming tasks of CodeExec-v1: five levels, three splits.

level   asks for
1       one step on a list, text, list of words or dict
2       three or four steps
3       a machine of six commands that can take commands back, then two steps
4       three functions: two chains of steps, and a fold over a list of items with both
5       four functions: loops that are unrolled, a machine of nine commands, a judge, a fold
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import CodeType
from typing import Any

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.code_exec.checks import Exam, Outside
from treegrpo.envs.suite.code_exec.programs import (
    NAMES,
    Function,
    Program,
    random_interpreter,
    random_pipeline,
    renamed,
)
from treegrpo.envs.suite.code_exec.splits import split_of_content
from treegrpo.envs.suite.code_exec.tasks import (
    MIN_DIFFERENT,
    Draft,
    chain_draft,
    examined,
    machine_draft,
    random_name,
)
from treegrpo.envs.tasks import Task

LEVELS: Mapping[int, Callable[[np.random.Generator], Draft | Program]] = {
    1: lambda rng: chain_draft(rng, 1),
    2: lambda rng: chain_draft(rng, 3),
    3: lambda rng: machine_draft(rng, 5),
    4: random_pipeline,
    5: random_interpreter,
}
NUM_EXAMPLES = 2
"""Shown of the last function of a program; of the others it is one."""
_MAX_DRAWS = 8
# What a program that lacks something may do instead of giving a wrong result.
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, NameError)
_Calls = list[list[str]]


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split; its program decides which split it can be in."""
    while True:
        draft = LEVELS[difficulty](rng)
        if split_of(draft) != split:
            continue
        if isinstance(draft, Draft):
            task = examined(rng, draft, difficulty)
        else:
            task = _examined_program(rng, draft, difficulty)
        if task is not None:
            return task


def split_of(draft: Draft | Program) -> str:
    """Return the only split a task of this program can be in, whatever its names and tests."""
    return split_of_content(draft.body if isinstance(draft, Draft) else draft.source())


def run_calls(source: str, calls: Sequence[str]) -> list[Any]:
    """Return what our own program makes of each call; never run an agent's code with it."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return [eval(call, namespace) for call in calls]


def _examined_program(rng: np.random.Generator, program: Program, difficulty: int) -> Task | None:
    """Return the program as a task, or None if no tests were found that tell."""
    namespace: dict[str, Any] = {}
    exec(program.source(), namespace)
    hidden, shown = _Calls(), _Calls()
    for function in program.functions:
        num_shown = NUM_EXAMPLES if function is program.functions[-1] else 1
        lacking = [
            compile(replace(function, body=body).source(), "<shorter>", "exec")
            for body in function.shorter
        ]
        for _ in range(_MAX_DRAWS):
            tests, examples = _drawn_calls(rng, function, num_shown)
            if _is_telling(tests, lacking, namespace):
                break
        else:
            return None
        hidden.append(tests)
        shown.append(examples)
    names = list(dict.fromkeys(random_name(rng) for _ in range(20)))[: len(NAMES)]
    return _build(program, names, hidden, shown, difficulty)


def _drawn_calls(
    rng: np.random.Generator, function: Function, num_shown: int
) -> tuple[list[str], list[str]]:
    """Return calls to be hidden and calls to be shown.

    The edges are hidden, and so are the smallest and the largest inputs.
    """
    edges = [repr(value) for value in function.edges]
    wanted = function.num_hidden - len(edges) + num_shown
    drawn: dict[str, None] = {}
    while len(drawn) < wanted:
        text = repr(function.draw(rng))
        if text not in edges:
            drawn.setdefault(text)
    inputs = sorted(drawn, key=len)
    middle = wanted // 2
    examples = inputs[middle : middle + num_shown]
    tests = [*edges, *inputs[:middle], *inputs[middle + num_shown :]]
    return [f"{function.name}({text})" for text in tests], [
        f"{function.name}({text})" for text in examples
    ]


def _is_telling(
    tests: Sequence[str], lacking: Sequence[CodeType], namespace: dict[str, Any]
) -> bool:
    """Return whether the results differ enough, and tell a function from its shorter forms."""
    calls = [compile(test, "<call>", "eval") for test in tests]
    results = [eval(call, namespace) for call in calls]
    if len({repr(result) for result in results}) < MIN_DIFFERENT:
        return False
    return not any(_gives(code, calls, results, dict(namespace)) for code in lacking)


def _gives(
    code: CodeType, calls: Sequence[CodeType], results: Sequence[object], namespace: dict[str, Any]
) -> bool:
    """Return whether a function in place of another gives the same results."""
    exec(code, namespace)
    try:
        return all(eval(c, namespace) == result for c, result in zip(calls, results, strict=True))
    except _FAILURES:
        return False


def _build(
    program: Program, names: Sequence[str], hidden: _Calls, shown: _Calls, difficulty: int
) -> Task:
    def named(text: str) -> str:
        return renamed(text, names)

    source = named(program.source())
    calls = [named(call) for calls in hidden for call in calls]
    examples = [[named(call) for call in calls] for calls in shown]
    flat = [call for calls in examples for call in calls]
    lines = [f"Write a Python program with {len(program.functions)} functions."]
    lines += [f"\n{named(function.says())}" for function in program.functions]
    lines += ["\nExamples:"]
    lines += [f"{c} == {r!r}" for c, r in zip(flat, run_calls(source, flat), strict=True)]
    question = "\n".join(lines)
    checks = (Outside(c, r, "same") for c, r in zip(calls, run_calls(source, calls), strict=True))
    parts = (named(function.source()) for function in program.functions[:-1])
    return Task(
        id=f"code-{digest([question, calls])[:16]}",
        question=question,
        answer=Exam(tuple(checks)),
        difficulty=difficulty,
        data={
            "solution": source,
            "example": examples[-1][0],
            "is_program": False,
            "parts": tuple(f"{part}\n{few[0]}" for part, few in zip(parts, examples, strict=False)),
        },
    )
