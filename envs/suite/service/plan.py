"""What a generator hands over: the customer, the requests with their gold steps, and the goal.

The steps are the gold solution and the oracle's script in one, so what the oracle proves is
solvable is what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

DONE = "done"
MAX_NUMBERS = 2
"""A message with more numbers than this tells none of them: it would be a guess."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call of the gold solution."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the customer must be told: a word or a number.

    A message that holds one of `rivals` as well says nothing certain, and does not tell it.
    """

    value: str
    rivals: frozenset[str] = frozenset()

    def is_told_by(self, said: frozenset[str]) -> bool:
        """Return whether a message of these words tells the fact."""
        if self.value not in said or said & (self.rivals - {self.value}):
            return False
        return not self.value.isdigit() or sum(word.isdigit() for word in said) <= MAX_NUMBERS


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that the customer wants.

    text: how the customer puts it.
    subject: the id of the order or booking that it is about; naming it asks for a "yes".
    hidden: topic -> sentence that is said only when a message holds the topic's word.
    reads, writes: the gold calls; a request that the policy forbids has no writes.
    fact: what has to be told about it; report: how the oracle tells it.
    money: what it brings back (shop) or costs (airline), for a later question of the sum.
    insists: whether the customer asks once more after a refusal.
    ending: how the conversation must end, if this request decides that.
    revised: what is wanted instead, once the customer is asked to confirm.
    """

    kind: str
    text: str
    subject: str
    report: str
    hidden: Mapping[str, str] = field(default_factory=dict[str, str])
    reads: tuple[Step, ...] = ()
    writes: tuple[Step, ...] = ()
    fact: Fact | None = None
    money: int = 0
    insists: bool = False
    ending: str = ""
    revised: Request | None = None

    @property
    def final(self) -> Request:
        """What counts in the end: the revised wish, if there is one."""
        return self.revised or self


@dataclass(frozen=True, slots=True)
class Brief:
    """Who the customer is, and how they behave.

    introduced: whether the opening message gives name and code.
    confirms: whether the policy asks for a "yes" before each change.
    patience: how many useless messages end the conversation.
    """

    customer: str
    name: str
    code: str
    introduced: bool
    confirms: bool
    patience: int


@dataclass(frozen=True, slots=True)
class Goal:
    """What is right at the end: the digest of the database, and how the conversation ends."""

    state: str
    ending: str


def words(text: str) -> frozenset[str]:
    """Return the words and numbers of a text in lower case."""
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[int(rng.integers(len(items)))]


def pick_some(rng: np.random.Generator, items: Sequence[T], count: int) -> list[T]:
    """Return `count` different items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def chance(rng: np.random.Generator, share: float) -> bool:
    """Return True with this probability."""
    return bool(rng.random() < share)
