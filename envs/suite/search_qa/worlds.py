"""Small generated worlds of people, cities and companies, and documents about them.

A world is a set of facts "the <relation> of <subject> is <object>", one document each.
Names are shared by all worlds, facts are not: a parity over the three places of a fact decides
whether it may stand in training worlds or in test worlds, so no fact of a test world was ever
true in training and the answer has to be looked up.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.suite.search_qa.index import DocumentIndex
from treegrpo.envs.suite.search_qa.schemas import Document

Kind = Literal["person", "city", "company"]

# Relations come in pairs with one kind of object, so that a mix-up stays plausible.
RELATIONS: dict[str, tuple[Kind, Kind]] = {
    "home": ("person", "city"),
    "birthplace": ("person", "city"),
    "employer": ("person", "company"),
    "client": ("person", "company"),
    "friend": ("person", "person"),
    "mentor": ("person", "person"),
    "seat": ("company", "city"),
    "depot": ("company", "city"),
    "chief": ("company", "person"),
    "founder": ("company", "person"),
    "mayor": ("city", "person"),
    "architect": ("city", "person"),
}

_ONSETS = ("Al", "Bren", "Cor", "Dal", "Er", "Fen", "Gal", "Hal", "Is", "Jor", "Kal", "Lor")
_ENDINGS: dict[Kind, tuple[str, ...]] = {
    "person": ("a", "en", "ik", "or"),
    "city": ("burg", "ford", "haven"),
    "company": ("corp", "tec"),
}
_PER_WORLD: dict[Kind, int] = {"person": 16, "city": 8, "company": 6}


def names(kind: Kind) -> list[str]:
    """Return every name of that kind, over all worlds."""
    return [onset + ending for ending in _ENDINGS[kind] for onset in _ONSETS]


@dataclass(frozen=True)
class Fact:
    """One fact: "The <relation> of <subject> is <object>."."""

    subject: str
    relation: str
    object: str

    def sentence(self) -> str:
        """Return the text of the fact's document."""
        return f"The {self.relation} of {self.subject} is {self.object}."


@dataclass(frozen=True)
class World:
    """One world: its facts by (subject, relation) and the index of their documents."""

    facts: dict[tuple[str, str], Fact]
    kinds: dict[str, Kind]
    index: DocumentIndex

    def follow(self, subject: str, relations: Sequence[str]) -> list[Fact]:
        """Return the chain of facts that starts at `subject`."""
        chain: list[Fact] = []
        for relation in relations:
            chain.append(self.facts[subject, relation])
            subject = chain[-1].object
        return chain


@functools.lru_cache(maxsize=512)
def build_world(split: str, number: int) -> World:
    """Return world `number` of a split: a pure function, kept because worlds are reused."""
    rng = np.random.default_rng(stable_seed("search_qa world", split, number))
    kinds: dict[str, Kind] = {}
    for kind, count in _PER_WORLD.items():
        everyone = names(kind)
        for parity in (0, 1):  # half of each, so that every fact has objects to choose from
            half = everyone[parity::2]
            for position in rng.permutation(len(half))[: count // 2]:
                kinds[half[int(position)]] = kind
    members = {kind: [n for n, k in kinds.items() if k == kind] for kind in _PER_WORLD}
    facts: dict[tuple[str, str], Fact] = {}
    for relation, (subject_kind, object_kind) in RELATIONS.items():
        for subject in members[subject_kind]:
            order = rng.permutation(len(members[object_kind]))
            facts_in_order = (Fact(subject, relation, members[object_kind][int(i)]) for i in order)
            facts[subject, relation] = next(
                f for f in facts_in_order if f.object != subject and fact_split(f) == split
            )
    documents = tuple(Document(f.subject, f.sentence()) for f in facts.values())
    return World(facts, kinds, DocumentIndex(documents))


def random_chain(
    kinds: Mapping[str, Kind], rng: np.random.Generator, hops: int
) -> tuple[str, list[str]]:
    """Return a name and `hops` relations that can be followed from it, one after the other."""
    names_of_world = list(kinds)
    subject = names_of_world[int(rng.integers(len(names_of_world)))]
    kind, relations = kinds[subject], list[str]()
    for _ in range(hops):
        fitting = [name for name, (start, _) in RELATIONS.items() if start == kind]
        relations.append(fitting[int(rng.integers(len(fitting)))])
        kind = RELATIONS[relations[-1]][1]
    return subject, relations


def fact_split(fact: Fact) -> str:
    """Return the split in whose worlds this fact may stand."""
    subject_kind, object_kind = RELATIONS[fact.relation]
    places = (
        names(subject_kind).index(fact.subject),
        list(RELATIONS).index(fact.relation),
        names(object_kind).index(fact.object),
    )
    return "test" if sum(places) % 2 else "train"
