"""Generated programming tasks: drafted, checked, put into a split.

level   asks for
1       one step on a list, text, list of words or dict
2       two steps, one after the other
3       three or four steps, to a number at the end where the types allow
4       a machine of four commands with a state, then one step
5       a machine of six commands that can take commands back, then two steps
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.code_exec.checks import Exam, Outside
from treegrpo.envs.suite.code_exec.machines import random_machine
from treegrpo.envs.suite.code_exec.ops import (
    ANNOTATIONS,
    INPUT_KINDS,
    Op,
    between,
    listed,
    pick,
    random_chain,
    random_input,
)
from treegrpo.envs.tasks import Task

DIFFICULTIES = (1, 2, 3, 4, 5)
NUM_HIDDEN = 10
NUM_SHOWN = 2
MIN_DIFFERENT = 4
"""Results that the hidden tests must tell apart at least, so that no constant comes far."""
_TEST_SHARE = 4
_FIRST = listed("amber brisk coral dusky early frosty gentle hollow ivory jolly keen lunar mossy")
_SECOND = listed("anchor basket candle drawer engine fiddle garnet hinge island jacket kettle")
_MAX_TRIES = 60


@dataclass(frozen=True)
class Draft:
    """A function before it is checked.

    `body` turns `x` into the result; `shorter` are bodies with one step left out, each of
    which must be told from `body` by the tests.
    """

    takes: str
    gives: str
    rules: tuple[str, ...]
    body: str
    shorter: tuple[str, ...]
    draw: Callable[[np.random.Generator], object]


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split.

    Which split a task may be in follows from its program alone, whatever it is called and
    tested with, so no program is in both.
    """
    while True:
        draft = machine_draft(rng, difficulty) if difficulty > 3 else chain_draft(rng, difficulty)
        if split_of(draft) != split:
            continue
        task = examined(rng, draft, difficulty)
        if task is not None:
            return task


def examined(rng: np.random.Generator, draft: Draft, difficulty: int) -> Task | None:
    """Return the draft as a task with hidden tests, or None if no tests were found that tell."""
    inputs = _telling_inputs(rng, draft)
    return None if inputs is None else _build(draft, random_name(rng), inputs, difficulty)


def random_name(rng: np.random.Generator) -> str:
    """Return a name for a function that tells nothing about it."""
    return f"{pick(rng, _FIRST)}_{pick(rng, _SECOND)}"


def split_of(draft: Draft) -> str:
    """Return the only split a task of this program can be in."""
    return "test" if int(digest(draft.body)[:8], 16) % _TEST_SHARE == 0 else "train"


def run_body(body: str, values: Sequence[object]) -> list[Any]:
    """Return what our own code makes of each value; never run an agent's code with it."""
    code, results = compile(body, "<body>", "exec"), list[Any]()
    for value in values:
        namespace: dict[str, Any] = {"x": copy.deepcopy(value)}
        exec(code, namespace)
        results.append(namespace["x"])
    return results


def chain_draft(rng: np.random.Generator, difficulty: int) -> Draft:
    """Return one to four steps, by the difficulty (1 to 3)."""
    kind = pick(rng, INPUT_KINDS)
    length = difficulty if difficulty < 3 else between(rng, 3, 4)
    chain = random_chain(rng, kind, length)
    return Draft(
        takes=ANNOTATIONS[kind],
        gives=ANNOTATIONS[chain[-1].gives],
        rules=numbered(chain),
        body="\n".join(op.code for op in chain),
        shorter=one_less([], chain),
        draw=lambda rng: random_input(rng, kind),
    )


def machine_draft(rng: np.random.Generator, difficulty: int) -> Draft:
    """Return a machine and steps; above difficulty 4 a larger one with a way back."""
    is_hard = difficulty > 4
    machine = random_machine(rng, 6 if is_hard else 4, has_undo=is_hard)
    chain = random_chain(rng, "ints", 2 if is_hard else 1)
    codes = [op.code for op in chain]
    lead = (
        "Begin with an empty list and a total of 0, and follow the commands one by one:",
        *machine.says(),
        "The result of the commands is the list with the total added at its end. Then:",
    )
    return Draft(
        takes=ANNOTATIONS["words"],
        gives=ANNOTATIONS[chain[-1].gives],
        rules=(*lead, *numbered(chain)),
        body="\n".join([machine.code(), *codes]),
        shorter=(
            *one_less([machine.code()], chain),
            *("\n".join([less.code(), *codes]) for less in machine.one_less()),
        ),
        draw=machine.random_input,
    )


def numbered(chain: Sequence[Op]) -> tuple[str, ...]:
    """Return the steps as lines for the agent."""
    return tuple(f"{number}. {op.says};" for number, op in enumerate(chain, 1))


def one_less(before: Sequence[str], chain: Sequence[Op]) -> tuple[str, ...]:
    """Return the bodies without one of the steps, where what is left still fits together."""
    left_out = [
        [op.code for other, op in enumerate(chain) if other != number]
        for number, step in enumerate(chain)
        if step.takes == step.gives or number == len(chain) - 1
    ]
    return tuple("\n".join([*before, *codes]) for codes in left_out)


def _telling_inputs(rng: np.random.Generator, draft: Draft) -> list[object] | None:
    """Return inputs whose results differ enough, and tell the draft from its shorter forms."""
    drawn: dict[str, object] = {}
    for _ in range(_MAX_TRIES):
        value = draft.draw(rng)
        drawn.setdefault(repr(value), value)
        if len(drawn) == NUM_HIDDEN + NUM_SHOWN:
            break
    # The emptiest input is a hidden test, the two largest are shown.
    inputs = sorted(drawn.values(), key=lambda value: len(repr(value)))
    if len(inputs) < NUM_HIDDEN + NUM_SHOWN:
        return None
    hidden = inputs[:NUM_HIDDEN]
    results = run_body(draft.body, hidden)
    if len({repr(result) for result in results}) < MIN_DIFFERENT:
        return None
    for body in draft.shorter:
        if run_body(body, hidden) == results:
            return None
    return inputs


def _build(draft: Draft, name: str, inputs: Sequence[object], difficulty: int) -> Task:
    results = run_body(draft.body, inputs)
    calls = [f"{name}({value!r})" for value in inputs]
    checks = [
        Outside(call, result, "same")
        for call, result in zip(calls[:NUM_HIDDEN], results, strict=False)
    ]
    shown = list(zip(calls, results, strict=True))[NUM_HIDDEN:]
    head = f"{name}(x: {draft.takes}) -> {draft.gives}"
    lines = [f"Write a Python function {head} that does the following with x:", *draft.rules]
    lines += ["and returns the result. Examples:"]
    lines += [f"{call} == {result!r}" for call, result in shown]
    body = "\n".join(f"    {line}" for line in draft.body.splitlines())
    question = "\n".join(lines)
    return Task(
        id=f"code-{digest([question, calls])[:16]}",
        question=question,
        answer=Exam(tuple(checks)),
        difficulty=difficulty,
        data={
            "solution": f"def {head}:\n{body}\n    return x\n",
            "example": shown[0][0],
            "is_program": False,
        },
    )
