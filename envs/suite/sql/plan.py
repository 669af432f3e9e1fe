"""What a generator hands over: a question, the tables, and the expert's plan.

The plan is the gold solution and the oracle's script in one, so what the oracle proves is
solvable is what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from treegrpo.envs.suite.sql.database import Row, Table

DONE = "done"
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One tool call of the plan; `writes` marks the calls that change the database."""

    tool: str
    arguments: dict[str, str] = field(default_factory=dict[str, str])
    writes: bool = False


@dataclass(frozen=True)
class Draft:
    """A task before it is checked: see `tasks.build`."""

    kind: str
    question: str
    tables: tuple[Table, ...]
    plan: tuple[Step, ...]
    is_ordered: bool = False


@dataclass(frozen=True)
class Goal:
    """What is right at the end.

    `state` is the digest of the database as it must be; `rows` what the submitted query must
    give, or None when only the state counts.
    """

    state: str
    rows: tuple[Row, ...] | None
    is_ordered: bool


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


def look(*tables: str) -> tuple[Step, ...]:
    """Return the calls that list the tables and describe the given ones."""
    return (Step("list_tables"), *(Step("schema", {"table": table}) for table in tables))


def read(sql: str) -> Step:
    """Return a call that reads."""
    return Step("query", {"sql": sql})


def write(sql: str) -> Step:
    """Return a call that changes the database."""
    return Step("query", {"sql": sql}, writes=True)


def submit(sql: str = DONE) -> Step:
    """Return the call that ends the episode."""
    return Step("submit", {"sql": sql})


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[int(rng.integers(len(items)))]


def pick_some(rng: np.random.Generator, items: Sequence[T], count: int) -> list[T]:
    """Return `count` different items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))
