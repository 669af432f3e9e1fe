"""What an episode cost, as its agent counted it.

    Usage(input=812, cached=640, output=95, dollars=Decimal("0.0031"), requests=3)

Null is not zero: it says that nobody counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, TypeVar

N = TypeVar("N", int, Decimal)

MAX_COUNT = 2**53
MAX_DOLLARS = 10**12
_DIGITS = 60
"""More than any sum of dollars has: 12 after the point, 12 before it, and those of the count."""
_COUNTS = ("input", "cached", "output", "reasoning", "requests")


@dataclass(frozen=True)
class Searched:
    """What a search did in forks, beside the steps of the episode itself.

    `branches` counts the leaves of its tree, `turns` the steps taken in forks, `tool_calls` what
    those used of the environments' budgets.
    """

    branches: int
    turns: int
    tool_calls: int

    def __post_init__(self) -> None:
        """Refuse what cannot have been counted.

        Raises:
            ValueError: names the field.
        """
        for name in ("branches", "turns", "tool_calls"):
            _check_count(name, getattr(self, name))

    def __add__(self, other: Searched) -> Searched:
        """Return the sums."""
        return Searched(
            self.branches + other.branches,
            self.turns + other.turns,
            self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True)
class Usage:
    """Tokens by kind, dollars and requests of one episode, all branches of a search included.

    `input` counts every token sent, `cached` those of them that a cache served; `output` counts
    every sampled token, `reasoning` those of them that were hidden thoughts. `search` is None
    for an agent that does not search.
    """

    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None
    dollars: Decimal | None = None
    requests: int | None = None
    search: Searched | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot have been counted.

        Raises:
            ValueError: names the field.
        """
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None:
                _check_count(name, value)
        for part, whole in (("cached", "input"), ("reasoning", "output")):
            most, some = getattr(self, whole), getattr(self, part)
            if most is not None and some is not None and some > most:
                raise ValueError(f"usage counts {some} {part} of {most} {whole} tokens")
        if self.dollars is not None and not (
            self.dollars.is_finite() and 0 <= self.dollars < MAX_DOLLARS
        ):
            raise ValueError(f"usage counts {self.dollars} dollars; give a finite amount or None")

    def __add__(self, other: Usage) -> Usage:
        """Return the sums; what one of the two did not count, nobody counted."""
        both = {name: _sum(getattr(self, name), getattr(other, name)) for name in _ADDED}
        searches = [found for found in (self.search, other.search) if found is not None]
        search = searches[0] + searches[1] if len(searches) == 2 else next(iter(searches), None)
        return Usage(**both, search=search)

    @property
    def amount(self) -> str | None:
        """The dollars as a decimal string, as `amount_text` writes it."""
        return None if self.dollars is None else amount_text(self.dollars)


_ADDED = (*_COUNTS, "dollars")


def total(counts: Iterable[N | None]) -> N | None:
    """Return the exact sum, None as soon as one was not counted or where there is none."""
    found = list(counts)
    counted = [count for count in found if count is not None]
    if not counted or len(counted) < len(found):
        return None
    with localcontext(prec=_DIGITS):
        return sum(counted[1:], start=counted[0])


def quotient(dollars: Decimal, count: int) -> Decimal:
    """Return dollars over a count, however many digits they have."""
    with localcontext(prec=_DIGITS):
        return dollars / count


def amount_text(dollars: Decimal) -> str:
    """Return dollars (0 or more) as a decimal string without zeros at its end, to 12 places."""
    return f"{dollars.copy_abs():.12f}".rstrip("0").rstrip(".")


def usage_of(counted: object) -> Usage:
    """Return what an agent's finish() gave as usage: a bare number counts sampled tokens.

    Raises:
        ValueError: neither a count, nor a Usage, nor None.
    """
    if isinstance(counted, Usage):
        return counted
    if counted is None or type(counted) is int:
        return Usage(output=counted)
    raise ValueError(f"the agent counted {type(counted).__name__}, no int, Usage or None")


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(
            f"usage counts {value!r:.40} as {name}; give a number from 0 to 2**53, or None"
        )


NOTHING = Usage(input=0, cached=0, output=0, reasoning=0, dollars=Decimal(0), requests=0)
"""The cost of what was never asked for; where every sum begins."""
