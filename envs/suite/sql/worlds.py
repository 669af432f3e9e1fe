"""Random databases of the short tasks: one shape, four families, names drawn anew each time.

People (a member, a customer, ...) and things (a book, a product, ...) are tied together by
links (a loan, a purchase, ...) with a number on each; at times there is a log. Which table
and column names stand for these, which tables exist and what the rows say is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.sql.database import Column, Table
from treegrpo.envs.suite.sql.plan import between, listed, pick, pick_some

PEOPLE = listed(
    "Ada Ben Cleo Dan Eva Finn Gus Hana Ivan Jill Kofi Lena Mia Noor Omar Pia Quinn Rosa Sam "
    "Tara Uma Vera Wim Yara"
)
CITIES = listed("Oslo Lima Cairo Quito Riga Turin Busan Perth")
LOG = "log"
KEY_SUFFIXES = ("_id", "")
TOP_NUMBER = 600
"""No number in a short task's texts is above this, sums included."""


@dataclass(frozen=True)
class Family:
    """The words of one kind of place; each name is drawn from its alternatives."""

    name: str
    person: tuple[str, ...]
    thing: tuple[str, ...]
    link: tuple[str, ...]
    thing_group: tuple[str, ...]
    thing_number: tuple[str, ...]
    link_number: tuple[str, ...]
    kinds: tuple[str, ...]
    things: tuple[str, ...]

    def words(self) -> list[tuple[str, ...]]:
        """Return every name, plurals and keys included, that a world of the family may use."""
        nouns = self.person + self.thing + self.link
        keys = tuple(noun + suffix for noun in nouns for suffix in KEY_SUFFIXES)
        plurals = tuple(noun + "s" for noun in nouns)
        columns = self.thing_group + self.thing_number + self.link_number
        return [keys, plurals, columns, self.kinds, self.things]


FAMILIES = (
    Family(
        "shop",
        person=("customer", "client", "buyer"),
        thing=("product", "article"),
        link=("purchase", "sale"),
        thing_group=("kind", "category"),
        thing_number=("price", "stock"),
        link_number=("amount", "pieces"),
        kinds=listed("tool toy garden kitchen"),
        things=listed(
            "hammer kite rake kettle saw puzzle spade pan drill ball hose bowl file doll"
        ),
    ),
    Family(
        "library",
        person=("member", "reader"),
        thing=("book", "volume"),
        link=("loan", "checkout"),
        thing_group=("genre", "shelf"),
        thing_number=("pages", "copies"),
        link_number=("days", "fee"),
        kinds=listed("poetry history travel crime"),
        things=listed(
            "Dawn Harbor Echo Willow Ember Tides Orchard Mirror Lantern Frost Meadow Raven"
        ),
    ),
    Family(
        "clinic",
        person=("patient", "visitor"),
        thing=("doctor", "specialist"),
        link=("visit", "appointment"),
        thing_group=("field", "ward"),
        thing_number=("rate", "room"),
        link_number=("minutes", "cost"),
        kinds=listed("heart skin eyes bones"),
        things=listed("Abel Brandt Costa Duval Egede Falk Gomez Haas Ito Jung Klein Lund"),
    ),
    Family(
        "school",
        person=("student", "pupil"),
        thing=("course", "lesson"),
        link=("enrolment", "booking"),
        thing_group=("subject", "level"),
        thing_number=("credits", "seats"),
        link_number=("mark", "hours"),
        kinds=listed("science language sport music"),
        things=listed(
            "optics latin rowing choir algebra french judo piano botany greek tennis drums"
        ),
    ),
)


@dataclass(frozen=True)
class Names:
    """The names of tables and columns in one world."""

    person: str
    thing: str
    link: str
    group: str
    number: str
    measure: str
    person_key: str
    thing_key: str


@dataclass(frozen=True)
class World:
    """A world's rows, for the question makers, and its tables.

    people: id, name, city. things: id, name, group, number. links: id, person, thing, measure.
    """

    names: Names
    people: tuple[tuple[int, str, str], ...]
    things: tuple[tuple[int, str, str, int], ...]
    links: tuple[tuple[int, int, int, int], ...]
    tables: tuple[Table, ...]


def make_world(
    rng: np.random.Generator, family: Family, *, has_links: bool = True, has_log: bool = False
) -> World:
    """Return a random world: 2 to 4 tables of at most 40 rows."""
    names, cities = _draw_names(rng, family), pick_some(rng, CITIES, 5)
    person_names = pick_some(rng, PEOPLE, between(rng, 10, 16))
    thing_names = pick_some(rng, family.things, between(rng, 8, len(family.things)))
    people = tuple((i, name, pick(rng, cities)) for i, name in enumerate(person_names, 1))
    things = tuple(
        (i, name, pick(rng, family.kinds), between(rng, 1, 40))
        for i, name in enumerate(thing_names, 1)
    )
    links = tuple(
        (i, between(rng, 1, len(people)), between(rng, 1, len(things)), between(rng, 1, 9))
        for i in range(1, between(rng, 16, 40) + 1)
    )
    logged = things[: between(rng, 0, 3)]
    log = tuple((i, thing[1], between(rng, 1, 9)) for i, thing in enumerate(logged, 1))
    person, thing, link, log_table = _columns(names, is_cascade=bool(rng.integers(2)))
    tables = [Table(names.person, person, people), Table(names.thing, thing, things)]
    if has_links:
        tables.append(Table(names.link, link, links))
    if has_log:
        tables.append(Table(LOG, log_table, log))
    return World(names, people, things, links if has_links else (), tuple(tables))


def _draw_names(rng: np.random.Generator, family: Family) -> Names:
    person, thing = pick(rng, family.person), pick(rng, family.thing)
    suffix = pick(rng, KEY_SUFFIXES)
    return Names(
        person=person,
        thing=thing,
        link=pick(rng, family.link),
        group=pick(rng, family.thing_group),
        number=pick(rng, family.thing_number),
        measure=pick(rng, family.link_number),
        person_key=person + suffix,
        thing_key=thing + suffix,
    )


def _columns(names: Names, *, is_cascade: bool) -> tuple[tuple[Column, ...], ...]:
    """Return the columns of the tables of people, things, links and of the log."""
    key, name = Column("id"), Column("name", "TEXT")
    return (
        (key, name, Column("city", "TEXT")),
        (key, name, Column(names.group, "TEXT"), Column(names.number)),
        (
            key,
            Column(names.person_key, references=names.person, cascade=is_cascade),
            Column(names.thing_key, references=names.thing, cascade=is_cascade),
            Column(names.measure),
        ),
        (key, name, Column("change")),
    )
