"""Short tasks: one question about a small world, or one change to it.

Level 1 reads one table, level 2 joins or groups, level 3 writes. A maker returns None when
the world it was given allows no question with exactly one right answer (nothing to find, a
tie for first place, an ordering that is not strict); the caller then tries another world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from treegrpo.envs.suite.sql.plan import (
    Draft,
    Step,
    between,
    look,
    pick,
    pick_some,
    read,
    submit,
    write,
)
from treegrpo.envs.suite.sql.worlds import FAMILIES, LOG, World, make_world

READ_HINT = "Submit the SELECT that gives it."
ROWS_HINT = "Submit the SELECT that gives these rows."
WRITE_HINT = "Then submit done."

QUESTIONS: Mapping[str, str] = {
    "lookup": "What is the {number} of the {thing} named {x}?",
    "count": "How many {person}s live in {x}?",
    "highest": "What is the name of the {thing} with the highest {number}?",
    "total": "What is the total {number} of all {thing}s with {group} {x}?",
    "sorted": "List the names of all {thing}s with {group} {x}, from the lowest {number} to the "
    "highest.",
    "count_links": "How many {link}s does the {person} named {x} have?",
    "total_links": "What is the total {measure} of all {link}s of the {thing} named {x}?",
    "busiest_city": "Which city has the most {person}s?",
    "who": "List the names of all {person}s with a {link} of the {thing} named {x}, each name "
    "once.",
    "ranking": "For every {group}, give the {group} and the total {measure} of its {link}s, from "
    "the highest total to the lowest.",
    "merge": "Move every {link} of the {person} named {x} to the {person} named {y}, and then "
    "delete the {person} named {x}.",
    "restock": "Add {n} to the {number} of the {thing} named {x}, and record it in log: a new row "
    "with the next id, the name {x} and the change {n}.",
    "purge": "Delete every {link} where {measure} is below {n}, and then set the {number} of every "
    "{thing} that has no {link} left to 0.",
    "exchange": "Exchange the cities of the {person} named {x} and the {person} named {y}.",
    "shift": "At the same time, every {person} who lives in {x} moves to {y}, and every {person} "
    "who lives in {y} moves to {z}.",
}

Maker = Callable[[np.random.Generator, World], Draft | None]


def make_short(rng: np.random.Generator, difficulty: int) -> Draft | None:
    """Return one short task of difficulty 1, 2 or 3, or None when the dice fell badly."""
    kind = pick(rng, KINDS[difficulty])
    world = make_world(
        rng,
        pick(rng, FAMILIES),
        has_links=difficulty > 1 or bool(rng.integers(2)),
        has_log=kind == "restock" or rng.random() < 0.3,
    )
    return MAKERS[kind](rng, world)


def _ask(kind: str, world: World, hint: str, **words: object) -> str:
    return f"{QUESTIONS[kind].format(**vars(world.names), **words)} {hint}"


def _reading(
    kind: str,
    world: World,
    sql: str,
    *tables: str,
    is_ordered: bool = False,
    hint: str = READ_HINT,
    **words: object,
) -> Draft:
    # A join is tried out before it is submitted; a look at one table needs no trial.
    trial = (read(sql),) if len(tables) > 1 else ()
    plan = (*look(*tables), *trial, submit(sql))
    return Draft(kind, _ask(kind, world, hint, **words), world.tables, plan, is_ordered)


def _writing(
    kind: str, world: World, before: tuple[Step, ...], *changes: str, **words: object
) -> Draft:
    plan = (*before, *(write(sql) for sql in changes), submit())
    return Draft(kind, _ask(kind, world, WRITE_HINT, **words), world.tables, plan)


def _is_strict(values: Iterable[object]) -> bool:
    found = list(values)
    return len(set(found)) == len(found)


def _has_single_top(counts: Iterable[int]) -> bool:
    ranked = sorted(counts, reverse=True)
    return len(ranked) > 1 and ranked[0] > ranked[1]


# -------------------------------------------------------------------------- level 1: one table


def _lookup(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.things)[1]
    sql = f"SELECT {n.number} FROM {n.thing} WHERE name = '{x}'"
    return _reading("lookup", world, sql, n.thing, x=x)


def _count(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.people)[2]
    sql = f"SELECT COUNT(*) FROM {n.person} WHERE city = '{x}'"
    return _reading("count", world, sql, n.person, x=x)


def _highest(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    if not _has_single_top(thing[3] for thing in world.things):
        return None
    sql = f"SELECT name FROM {n.thing} ORDER BY {n.number} DESC LIMIT 1"
    return _reading("highest", world, sql, n.thing)


def _total(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.things)[2]
    sql = f"SELECT SUM({n.number}) FROM {n.thing} WHERE {n.group} = '{x}'"
    return _reading("total", world, sql, n.thing, x=x)


def _sorted(rng: np.random.Generator, world: World) -> Draft | None:
    n, x = world.names, pick(rng, world.things)[2]
    numbers = [thing[3] for thing in world.things if thing[2] == x]
    if len(numbers) < 2 or not _is_strict(numbers):
        return None
    sql = f"SELECT name FROM {n.thing} WHERE {n.group} = '{x}' ORDER BY {n.number}"
    return _reading("sorted", world, sql, n.thing, is_ordered=True, hint=ROWS_HINT, x=x)


# --------------------------------------------------------------------- level 2: join or group


def _count_links(rng: np.random.Generator, world: World) -> Draft | None:
    n, person = world.names, pick(rng, world.links)[1]
    x = world.people[person - 1][1]
    sql = (
        f"SELECT COUNT(*) FROM {n.link} JOIN {n.person} ON {n.person}.id = {n.link}.{n.person_key} "
        f"WHERE {n.person}.name = '{x}'"
    )
    return _reading("count_links", world, sql, n.person, n.link, x=x)


def _total_links(rng: np.random.Generator, world: World) -> Draft | None:
    n, thing = world.names, pick(rng, world.links)[2]
    x = world.things[thing - 1][1]
    sql = (
        f"SELECT SUM({n.link}.{n.measure}) FROM {n.link} JOIN {n.thing} ON {n.thing}.id = "
        f"{n.link}.{n.thing_key} WHERE {n.thing}.name = '{x}'"
    )
    return _reading("total_links", world, sql, n.thing, n.link, x=x)


def _busiest_city(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    if not _has_single_top(Counter(person[2] for person in world.people).values()):
        return None
    sql = f"SELECT city FROM {n.person} GROUP BY city ORDER BY COUNT(*) DESC LIMIT 1"
    return _reading("busiest_city", world, sql, n.person)


def _who(rng: np.random.Generator, world: World) -> Draft | None:
    n, thing = world.names, pick(rng, world.links)[2]
    x = world.things[thing - 1][1]
    sql = (
        f"SELECT DISTINCT {n.person}.name FROM {n.person} JOIN {n.link} ON {n.link}.{n.person_key} "
        f"= {n.person}.id JOIN {n.thing} ON {n.thing}.id = {n.link}.{n.thing_key} "
        f"WHERE {n.thing}.name = '{x}'"
    )
    return _reading("who", world, sql, n.person, n.thing, n.link, hint=ROWS_HINT, x=x)


def _ranking(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    totals: Counter[str] = Counter()
    for _, _, thing, measure in world.links:
        totals[world.things[thing - 1][2]] += measure
    # A group without links would be there for one reader and not for another.
    groups = {thing[2] for thing in world.things}
    if set(totals) != groups or not _is_strict(totals.values()):
        return None
    sql = (
        f"SELECT {n.thing}.{n.group}, SUM({n.link}.{n.measure}) FROM {n.link} JOIN {n.thing} ON "
        f"{n.thing}.id = {n.link}.{n.thing_key} GROUP BY {n.thing}.{n.group} ORDER BY "
        f"SUM({n.link}.{n.measure}) DESC"
    )
    return _reading("ranking", world, sql, n.thing, n.link, is_ordered=True, hint=ROWS_HINT)


# ------------------------------------------------------------------------------ level 3: writes


def _merge(rng: np.random.Generator, world: World) -> Draft | None:
    n, old = world.names, pick(rng, world.links)[1]
    new = pick(rng, [person[0] for person in world.people if person[0] != old])
    x, y = world.people[old - 1][1], world.people[new - 1][1]
    names = f"SELECT id, name FROM {n.person} WHERE name = '{x}' OR name = '{y}'"
    return _writing(
        "merge",
        world,
        (*look(n.person, n.link), read(names)),
        f"UPDATE {n.link} SET {n.person_key} = {new} WHERE {n.person_key} = {old}",
        f"DELETE FROM {n.person} WHERE id = {old}",
        x=x,
        y=y,
    )


def _restock(rng: np.random.Generator, world: World) -> Draft | None:
    n, x, amount = world.names, pick(rng, world.things)[1], between(rng, 1, 20)
    return _writing(
        "restock",
        world,
        look(n.thing, LOG),
        f"UPDATE {n.thing} SET {n.number} = {n.number} + {amount} WHERE name = '{x}'",
        f"INSERT INTO {LOG} (name, change) VALUES ('{x}', {amount})",
        x=x,
        n=amount,
    )


def _purge(rng: np.random.Generator, world: World) -> Draft | None:
    n, limit = world.names, between(rng, 3, 7)
    before = {thing for _, _, thing, _ in world.links}
    after = {thing for _, _, thing, measure in world.links if measure >= limit}
    if before == after:
        return None  # the order of the two changes would not matter
    return _writing(
        "purge",
        world,
        look(n.thing, n.link),
        f"DELETE FROM {n.link} WHERE {n.measure} < {limit}",
        f"UPDATE {n.thing} SET {n.number} = 0 WHERE id NOT IN (SELECT {n.thing_key} FROM {n.link})",
        n=limit,
    )


def _exchange(rng: np.random.Generator, world: World) -> Draft | None:
    n = world.names
    (_, x, one), (_, y, two) = pick_some(rng, world.people, 2)
    if one == two:
        return None
    return _writing(
        "exchange",
        world,
        (*look(n.person), read(f"SELECT * FROM {n.person} WHERE name = '{x}' OR name = '{y}'")),
        f"UPDATE {n.person} SET city = '{two}' WHERE name = '{x}'",
        f"UPDATE {n.person} SET city = '{one}' WHERE name = '{y}'",
        x=x,
        y=y,
    )


def _shift(rng: np.random.Generator, world: World) -> Draft | None:
    n, cities = world.names, sorted({person[2] for person in world.people})
    if len(cities) < 3:
        return None
    x, y, z = pick_some(rng, cities, 3)
    return _writing(
        "shift",
        world,
        look(n.person),
        f"UPDATE {n.person} SET city = '{z}' WHERE city = '{y}'",
        f"UPDATE {n.person} SET city = '{y}' WHERE city = '{x}'",
        x=x,
        y=y,
        z=z,
    )


MAKERS: Mapping[str, Maker] = {
    "lookup": _lookup,
    "count": _count,
    "highest": _highest,
    "total": _total,
    "sorted": _sorted,
    "count_links": _count_links,
    "total_links": _total_links,
    "busiest_city": _busiest_city,
    "who": _who,
    "ranking": _ranking,
    "merge": _merge,
    "restock": _restock,
    "purge": _purge,
    "exchange": _exchange,
    "shift": _shift,
}
KINDS: Mapping[int, tuple[str, ...]] = {
    1: ("lookup", "count", "highest", "total", "sorted"),
    2: ("count_links", "total_links", "busiest_city", "who", "ranking"),
    3: ("merge", "restock", "purge", "exchange", "shift"),
}
