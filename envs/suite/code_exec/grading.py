"""Hidden tests in a sandbox of their own; what is right stays outside.

A fresh sandbox is made, the submission is run in it, and every check is asked in a fork of
that one state, so no check sees what another did. An exception, a wrong type, a timeout or a
crash fails its check. What fails on our side raises, and is nobody's score.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treegrpo.envs.suite.code_exec import wire
from treegrpo.envs.suite.code_exec.checks import Check, Exam, Inside, Outside, Stdin, agrees
from treegrpo.sandboxes import FileRefused, Result, Sandbox, SnapshotUnsupported

PYTHON = "python3"
PROGRAM = "solution.py"


@dataclass(frozen=True)
class Grade:
    """How many of the checks passed; `passed` counts up to where grading was broken off."""

    passed: int
    total: int

    @property
    def is_perfect(self) -> bool:
        """Whether every check passed."""
        return self.passed == self.total > 0

    @property
    def fraction(self) -> float:
        """The share of checks that passed."""
        return self.passed / self.total if self.total else 0.0


class BrokenExam(RuntimeError):
    """The exam itself fails: its references cannot be computed. Not the submission's fault."""


def grade(
    new_sandbox: Callable[[], Sandbox], exam: Exam, source: str, *, stop_early: bool
) -> Grade:
    """Return how a submission does.

    Args:
        new_sandbox: makes a fresh sandbox, which is closed in the end.
        exam: the hidden checks.
        source: the submitted program.
        stop_early: stop at the first check that fails; a timeout stops grading in any case.

    Raises:
        SandboxError: a sandbox of ours failed.
        BrokenExam: a reference cannot be computed.
    """
    passed = 0
    with contextlib.ExitStack() as opened:
        root = opened.enter_context(new_sandbox())
        desk = _lay_desk(opened, root, exam, source)
        if desk is None:
            return Grade(0, len(exam.checks))
        for check in exam.checks:
            right, result = desk.ask(check)
            passed += right
            if not right and (stop_early or result.kind == "timeout"):
                break
    return Grade(passed, len(exam.checks))


@dataclass(frozen=True)
class _Desk:
    """Two states of one tree: one with the submission, one that never saw it."""

    submitted: Sandbox
    clean: Sandbox

    def ask(self, check: Check) -> tuple[bool, Result]:
        """Return whether the submission meets a check, and what came back."""
        if isinstance(check, Stdin):
            argv = [PYTHON, PROGRAM]
            after, result = self.submitted.step(argv, stdin=check.stdin.encode())
            after.close()
            return result.ok and _lines(result.stdout) == _lines(check.expected.encode()), result
        code = check.code if isinstance(check, Inside) else wire.asking(check.expression)
        try:
            after, result = self.submitted.step(code)
        except SnapshotUnsupported:
            return False, Result("exception")
        with after:
            if isinstance(check, Inside):
                return result.ok, result
            return self._is_right(check, after, result), result

    def _is_right(self, check: Outside, after: Sandbox, result: Result) -> bool:
        if not result.ok or result.value is None:
            return False
        try:
            value = _value(after, result.value)
        except wire.Unreadable:
            return False
        expected = check.expected if check.reference is None else self._reference(check.reference)
        return agrees(check, value, expected)

    def _reference(self, expression: str) -> Any:
        after, result = self.clean.step(wire.asking(expression))
        with after:
            if not result.ok or result.value is None:
                raise BrokenExam(f"the reference {expression[:80]!r} fails: {result.traceback}")
            try:
                return _value(after, result.value)
            except wire.Unreadable as error:
                raise BrokenExam(f"the reference {expression[:80]!r} fails: {error}") from error


def _lay_desk(opened: contextlib.ExitStack, root: Sandbox, exam: Exam, source: str) -> _Desk | None:
    """Return the desk, or None if the submission does not even run."""
    if any(isinstance(check, Stdin) for check in exam.checks):
        root.write(PROGRAM, source.encode("utf-8", "replace"))
        return _Desk(root, root)
    before = _after(opened, root, wire.SETUP, exam.before)
    clean = before and _after(opened, before, exam.after if exam.stands_alone else "")
    if before is None or clean is None:
        raise BrokenExam("the code that comes with the hidden tests fails by itself")
    submitted = _after(opened, before, source, exam.after)
    return None if submitted is None or submitted.check() else _Desk(submitted, clean)


def _after(opened: contextlib.ExitStack, state: Sandbox, *codes: str) -> Sandbox | None:
    """Return the state after running all of the codes, or None if one does not end well."""
    for code in filter(None, codes):
        try:
            state, result = state.step(code)
        except SnapshotUnsupported:
            return None
        opened.enter_context(state)
        if not result.ok:
            return None
    return state


def _value(sandbox: Sandbox, spelling: str) -> Any:
    if not wire.is_in_file(spelling):
        return wire.read_value(spelling)
    try:
        data = sandbox.read(wire.VALUE_FILE, max_bytes=wire.MAX_VALUE_BYTES)
    except FileRefused as error:
        raise wire.Unreadable(str(error)) from None
    return wire.read_value(data.decode("ascii", "replace"))


def _lines(output: bytes) -> list[str]:
    """Return the lines without blanks at their ends, and without blank lines at the end."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines
