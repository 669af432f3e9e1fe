"""Random stories: facts about people, told one by one, and what overrules or clouds them.

A story is a list of sentences. Beside it stands what is true after each of them about the
people who matter; the rest of the people, the rumours and the chatter only take up room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Facts = dict[str, dict[str, str]]
"""person -> attribute -> value."""


def _listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


PEOPLE = _listed(
    "Mara Tilo Anja Bram Cora Dario Edda Faro Gita Hugo Ines Jaro Kaja Lino Mika Nela Orin Pina "
    "Ravi Sten Tuva Udo Vida Wido"
)
COINS = "coins"
TOP_COINS = 30
VALUES: Mapping[str, tuple[str, ...]] = {
    "city": _listed("Bergen Cadiz Dakar Essen Fargo Genoa Hanoi Izmir Jena Kyoto Leeds Malmo"),
    "color": _listed("red blue green yellow white black pink brown gray orange"),
    "pet": _listed("cat dog bird fish frog goat mouse pony snake turtle"),
    "food": _listed("rice soup bread cheese beans pasta salad cake eggs plums"),
    "job": _listed("baker pilot nurse farmer tailor judge diver clerk potter guard"),
    COINS: tuple(str(number) for number in range(1, TOP_COINS + 1)),
}
CHATTER = (
    "It is raining.",
    "The bus is late.",
    "Lunch is at noon.",
    "The door is open.",
    "Music plays next door.",
    "The window is clean.",
    "Somebody laughs.",
    "The clock has stopped.",
)


@dataclass(frozen=True)
class Shape:
    """How much a story holds.

    `people` matter and have `attributes` each; `others`, `rumours` and `chatter` are sentences
    that do not; `updates` overrule earlier ones. A message has `per_message` sentences.
    """

    people: int
    attributes: int
    others: int
    updates: int
    rumours: int
    chatter: int
    per_message: int


@dataclass(frozen=True)
class Story:
    """The sentences, what is true of the people who matter after each, and what was changed."""

    people: tuple[str, ...]
    attributes: tuple[str, ...]
    sentences: tuple[str, ...]
    truth: tuple[Facts, ...]
    changed: frozenset[tuple[str, str]]


def tell(rng: np.random.Generator, shape: Shape) -> Story:
    """Return a random story: first facts, then what overrules them, noise all along."""
    names = pick_some(rng, PEOPLE, shape.people + 4)
    people, others = names[: shape.people], names[shape.people :]
    attributes = pick_some(rng, tuple(VALUES), shape.attributes)
    facts: Facts = {person: {} for person in people}
    first = [(person, attribute) for person in people for attribute in attributes]
    noise = ["other"] * shape.others + ["rumour"] * shape.rumours + ["chatter"] * shape.chatter
    noise = pick_some(rng, noise, len(noise))
    early = pick_some(rng, [*first, *noise[: len(noise) // 2]], len(first) + len(noise) // 2)
    late = [*noise[len(noise) // 2 :], *["update"] * shape.updates]
    told = _Telling(rng, facts, others, attributes)
    for event in [*early, *pick_some(rng, late, len(late))]:
        told.add(event)
    return Story(
        tuple(people),
        tuple(attributes),
        tuple(told.sentences),
        tuple(told.truth),
        frozenset(told.changed),
    )


class _Telling:
    """A story while it is told: each event becomes a sentence and perhaps a change of facts."""

    def __init__(
        self,
        rng: np.random.Generator,
        facts: Facts,
        others: Sequence[str],
        attributes: Sequence[str],
    ) -> None:
        self._rng, self._facts, self._attributes = rng, facts, attributes
        spare = [(person, attribute) for person in others for attribute in VALUES]
        self._spare = pick_some(rng, spare, len(spare))
        self.sentences: list[str] = []
        self.truth: list[Facts] = []
        self.changed: set[tuple[str, str]] = set()

    def add(self, event: str | tuple[str, str]) -> None:
        """Tell one event: a first fact as (person, attribute), or the kind of another."""
        if isinstance(event, tuple):
            person, attribute = event
            value = self._value(attribute)
            self._facts[person][attribute] = value
            sentence = f"{statement(person, attribute, value)}."
        else:
            sentence = {
                "other": self._other,
                "rumour": self._rumour,
                "chatter": lambda: pick(self._rng, CHATTER),
                "update": self._update,
            }[event]()
        self.sentences.append(sentence)
        self.truth.append({person: dict(known) for person, known in self._facts.items()})

    def _value(self, attribute: str, but: str | None = None) -> str:
        return pick(self._rng, [value for value in VALUES[attribute] if value != but])

    def _other(self) -> str:
        person, attribute = self._spare.pop()
        return f"{statement(person, attribute, self._value(attribute))}."

    def _rumour(self) -> str:
        person = pick(self._rng, list(self._facts))
        attribute = pick(self._rng, self._attributes)
        value = self._value(attribute, self._facts[person].get(attribute))
        return f"A rumour says: {statement(person, attribute, value)}."

    def _update(self) -> str:
        person = pick(self._rng, list(self._facts))
        attribute = pick(self._rng, self._attributes)
        old = self._facts[person][attribute]
        if attribute == COINS:
            return self._move_coins(person, int(old))
        others = [name for name in self._facts if self._facts[name][attribute] != old]
        if others and self._rng.random() < 0.4:
            return self._swap(person, pick(self._rng, others), attribute)
        self._facts[person][attribute] = self._value(attribute, old)
        self.changed.add((person, attribute))
        return f"{statement(person, attribute, self._facts[person][attribute], 'is now')}."

    def _swap(self, one: str, two: str, attribute: str) -> str:
        facts = self._facts
        facts[one][attribute], facts[two][attribute] = facts[two][attribute], facts[one][attribute]
        self.changed |= {(one, attribute), (two, attribute)}
        return f"{one} and {two} swap: each takes the {attribute} of the other."

    def _move_coins(self, person: str, old: int) -> str:
        gains = old < 6 or (old <= TOP_COINS and bool(self._rng.integers(2)))
        count = int(self._rng.integers(2, 6))
        self._facts[person][COINS] = str(old + count if gains else old - count)
        self.changed.add((person, COINS))
        return f"{person} {'gets' if gains else 'loses'} {count} {COINS}."


def statement(person: str, attribute: str, value: str, verb: str = "is") -> str:
    """Return a fact as a sentence without its full stop."""
    if attribute == COINS:
        return f"{person} has {value} {COINS}"
    return f"The {attribute} of {person} {verb} {value}"


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[int(rng.integers(len(items)))]


def pick_some(rng: np.random.Generator, items: Sequence[T], count: int) -> list[T]:
    """Return `count` different items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]
