"""Level 4: questions that nest one query in another, and changes over several tables.

The worlds are those of the short tasks. A maker returns None when the world allows no task
with exactly one right answer, or one in which the order of the changes would not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from treegrpo.envs.suite.sql.plan import Draft, between, look, pick, pick_some, read, submit, write
from treegrpo.envs.suite.sql.questions import ROWS_HINT, WRITE_HINT, Maker
from treegrpo.envs.suite.sql.worlds import FAMILIES, LOG, World, make_world

QUESTIONS: Mapping[str, str] = {
    "above_average": "Take the total {measure} of every {person} with at least one {link}. List "
    "the names of the {person}s whose total is above the average of these totals, from the "
    "highest total to the lowest.",
    "top_of_each": "For every {group}, give the {group} and the name of its {thing} with the "
    "highest {number}.",
    "never": "List the names of all {thing}s that have no {link} of any {person} who lives in {x}.",
    "varied": "List the names of all {person}s with {link}s of more than {n} different {thing}s.",
    "leave": "Every {person} who lives in {x} leaves. First add the {measure} of each of their "
    "{link}s to the {number} of its {thing}, then delete these {link}s, and then the {person}s.",
    "settle": "If the {person} named {x} has more {link}s than the {person} named {y}, set the "
    "city of {x} to that of {y}; otherwise set the city of {y} to that of {x}. Then record in log "
    "whose city was set: a new row with the next id, the name, and as change the difference of "
    "the two numbers of {link}s.",
    "raise": "Raise the {number} of every {thing} with {group} {x} by {n}. After that, delete "
    "every {link} of a {thing} whose {number} is above {m}. Then record in log: a new row with "
    "the next id, the name {x}, and as change how many {link}s were deleted.",
}


def make_harder(rng: np.random.Generator) -> Draft | None:
    """Return one task of level 4, or None when the dice fell badly."""
    kind = pick(rng, tuple(MAKERS))
    has_log = kind in ("settle", "raise") or rng.random() < 0.3
    return MAKERS[kind](rng, make_world(rng, pick(rng, FAMILIES), has_log=has_log))


def _nested(
    kind: str, world: World, sql: str, *, is_ordered: bool = False, **words: object
) -> Draft:
    """Return a question whose plan looks at three tables, tries the query out and submits it.

    All of them ask for rows of names: a number of this size could be guessed.
    """
    n = world.names
    plan = (*look(n.person, n.thing, n.link), read(sql), submit(sql))
    question = f"{QUESTIONS[kind].format(**vars(n), **words)} {ROWS_HINT}"
    return Draft(kind, question, world.tables, plan, is_ordered)


def _changing(
    kind: str,
    world: World,
    tables: tuple[str, ...],
    reads: tuple[str, ...],
    *changes: str,
    **words: object,
) -> Draft:
    plan = (*look(*tables), *map(read, reads), *map(write, changes), submit())
    question = f"{QUESTIONS[kind].format(**vars(world.names), **words)} {WRITE_HINT}"
    return Draft(kind, question, world.tables, plan)


# ------------------------------------------------------------------------- nested questions


def _above_average(rng: np.random.Generator, world: World) -> Draft | None:
    n, totals = world.names, Counter[int]()
    for _, person, _, measure in world.links:
        totals[person] += measure
    mean = sum(totals.values()) / len(totals)
    above = [total for total in totals.values() if total > mean]
    if len(set(above)) < len(above) or len(above) < 2:
        return None
    sql = (
        f"SELECT {n.person}.name FROM {n.person} JOIN {n.link} ON {n.link}.{n.person_key} = "
        f"{n.person}.id GROUP BY {n.person}.id HAVING SUM({n.link}.{n.measure}) > (SELECT "
        f"AVG(total) FROM (SELECT SUM({n.measure}) AS total FROM {n.link} GROUP BY "
        f"{n.person_key})) ORDER BY SUM({n.link}.{n.measure}) DESC"
    )
    return _nested("above_average", world, sql, is_ordered=True)


def _top_of_each(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    groups = sorted({thing[2] for thing in world.things})
    for group in groups:
        numbers = sorted(thing[3] for thing in world.things if thing[2] == group)
        if numbers[-1] in numbers[:-1]:
            return None
    if len(groups) < 2:
        return None
    sql = (
        f"SELECT {n.group}, name FROM {n.thing} AS a WHERE {n.number} = (SELECT MAX({n.number}) "
        f"FROM {n.thing} AS b WHERE b.{n.group} = a.{n.group})"
    )
    return _nested("top_of_each", world, sql)


def _never(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.people)[2]
    locals_ = {person[0] for person in world.people if person[2] == x}
    theirs = {thing for _, person, thing, _ in world.links if person in locals_}
    if not theirs or len(theirs) == len(world.things):
        return None
    sql = (
        f"SELECT name FROM {n.thing} WHERE id NOT IN (SELECT {n.thing_key} FROM {n.link} WHERE "
        f"{n.person_key} IN (SELECT id FROM {n.person} WHERE city = '{x}'))"
    )
    return _nested("never", world, sql, x=x)


def _varied(rng: np.random.Generator, world: World) -> Draft | None:
    n, limit = world.names, between(rng, 1, 3)
    pairs = {(person, thing) for _, person, thing, _ in world.links}
    different = Counter(person for person, _ in pairs)
    plain = Counter(person for _, person, _, _ in world.links)
    found = {person for person, number in different.items() if number > limit}
    if not found or found == {person for person, number in plain.items() if number > limit}:
        return None  # "different" would not matter
    sql = (
        f"SELECT name FROM {n.person} WHERE id IN (SELECT {n.person_key} FROM {n.link} GROUP BY "
        f"{n.person_key} HAVING COUNT(DISTINCT {n.thing_key}) > {limit})"
    )
    return _nested("varied", world, sql, n=limit)


# --------------------------------------------------------------- changes over several tables


def _leave(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.people)[2]
    leaving = {person[0] for person in world.people if person[2] == x}
    if not any(link[1] in leaving for link in world.links) or len(leaving) == len(world.people):
        return None
    theirs = f"{n.person_key} IN (SELECT id FROM {n.person} WHERE city = '{x}')"
    return _changing(
        "leave",
        world,
        (n.person, n.thing, n.link),
        (f"SELECT * FROM {n.link} WHERE {theirs}",),
        f"UPDATE {n.thing} SET {n.number} = {n.number} + (SELECT SUM({n.measure}) FROM {n.link} "
        f"WHERE {n.thing_key} = {n.thing}.id AND {theirs}) WHERE id IN (SELECT {n.thing_key} "
        f"FROM {n.link} WHERE {theirs})",
        f"DELETE FROM {n.link} WHERE {theirs}",
        f"DELETE FROM {n.person} WHERE city = '{x}'",
        x=x,
    )


def _settle(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    (i, x, one), (j, y, two) = pick_some(rng, world.people, 2)
    counts = Counter(link[1] for link in world.links)
    if one == two or counts[i] == counts[j]:
        return None
    moved, city = (x, two) if counts[i] > counts[j] else (y, one)
    change = abs(counts[i] - counts[j])
    return _changing(
        "settle",
        world,
        (n.person, n.link, LOG),
        (
            f"SELECT name, city, (SELECT COUNT(*) FROM {n.link} WHERE {n.person_key} = "
            f"{n.person}.id) FROM {n.person} WHERE name = '{x}' OR name = '{y}'",
        ),
        f"UPDATE {n.person} SET city = '{city}' WHERE name = '{moved}'",
        f"INSERT INTO {LOG} (name, change) VALUES ('{moved}', {change})",
        x=x,
        y=y,
    )


def _raise(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.things)[2]
    amount, limit = between(rng, 2, 15), between(rng, 20, 40)
    before = {i for i, _, _, number in world.things if number > limit}
    after = {i for i, _, kind, number in world.things if number + amount * (kind == x) > limit}
    deleted = sum(link[2] in after for link in world.links)
    if deleted == sum(link[2] in before for link in world.links):
        return None  # the order of the changes would not matter
    doomed = f"{n.thing_key} IN (SELECT id FROM {n.thing} WHERE {n.number} > {limit})"
    return _changing(
        "raise",
        world,
        (n.thing, n.link, LOG),
        (),
        f"UPDATE {n.thing} SET {n.number} = {n.number} + {amount} WHERE {n.group} = '{x}'",
        f"DELETE FROM {n.link} WHERE {doomed}",
        f"INSERT INTO {LOG} (name, change) VALUES ('{x}', {deleted})",
        x=x,
        n=amount,
        m=limit,
    )


MAKERS: Mapping[str, Maker] = {
    "above_average": _above_average,
    "top_of_each": _top_of_each,
    "never": _never,
    "varied": _varied,
    "leave": _leave,
    "settle": _settle,
    "raise": _raise,
}
