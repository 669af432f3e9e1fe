"""Hidden checks: what is asked in a sandbox, and how the answer is judged outside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

Rule = Literal["same", "equal", "unequal", "close", "apps"]


@dataclass(frozen=True)
class Outside:
    """An expression to compute inside, and what its value is compared with outside.

    `rule`: same (value and type), equal (Python's ==), unequal, close (within `tolerance`), or
    apps (as that set compares). `reference` is an expression whose value is expected, where
    that is no literal: it is computed in a sandbox that never sees the submission.
    """

    expression: str
    expected: Any = None
    rule: Rule = "equal"
    tolerance: float = 0.0
    relative: float = 0.0
    reference: str | None = None


@dataclass(frozen=True)
class Inside:
    """Statements that must run to their end inside: the weaker kind of check."""

    code: str


@dataclass(frozen=True)
class Stdin:
    """A run of the submitted program: what it reads, and what it must write."""

    stdin: str
    expected: str


Check = Outside | Inside | Stdin


@dataclass(frozen=True)
class Exam:
    """The hidden checks of a task.

    `before` is code that runs before the submission, `after` what runs behind it. References
    are computed without the submission: after `before`, and after `after` if it `stands_alone`.
    """

    checks: tuple[Check, ...]
    before: str = ""
    after: str = ""
    stands_alone: bool = True

    @property
    def num_inside(self) -> int:
        """How many checks run inside."""
        return sum(isinstance(check, Inside) for check in self.checks)


def agrees(check: Outside, value: Any, expected: Any) -> bool:
    """Return whether a computed value meets a check."""
    try:
        match check.rule:
            case "same":
                return _same(value, expected)
            case "equal":
                return bool(value == expected)
            case "unequal":
                return bool(value != expected)
            case "apps":
                found, wanted = _as_lists(value), _as_lists(expected)
                return found == wanted or [found] == wanted
            case "close":
                relative, absolute = check.relative, check.tolerance
                return math.isclose(value, expected, rel_tol=relative, abs_tol=absolute)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same types all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        items = cast("list[Any]", one)
        return len(items) == len(other) and all(map(_same, items, other))
    if isinstance(one, dict):
        table = cast("dict[Any, Any]", one)
        return table.keys() == other.keys() and all(_same(table[k], other[k]) for k in table)
    return bool(one == other)


def _as_lists(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in cast("list[Any]", value)]
    return value
