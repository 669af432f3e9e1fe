"""Long tasks: a chain of jobs on a stock list, 10 to 20 steps, none of which can be undone.

Each job's row names the item, what to do and the id of the next job, so the chain has to be
followed row by row. "copy" needs a second look, at a number that earlier jobs may have
changed. Old values are lost with every change: a wrong statement dooms the episode unless
the agent notices and still knows what stood there.

All texts use few words (`tasks.vocabulary`), so that a tiny model can learn them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from treegrpo.envs.suite.sql.database import Cell, Column, Row, Table
from treegrpo.envs.suite.sql.plan import (
    Draft,
    Step,
    between,
    listed,
    pick,
    pick_some,
    read,
    submit,
    write,
)

ITEMS = listed(
    "bolt nut screw nail gear belt pump valve hose clamp spring wheel rod plate chain lamp"
)
ACTIVE_ITEMS = 5
"""Jobs touch this many items, so that one job's outcome often matters to another."""
TOP_COUNT = 99
_TRIES = 4
STEPS: Mapping[int, tuple[int, int]] = {1: (10, 12), 2: (13, 16), 3: (17, 20)}
"""How many steps the oracle takes, by difficulty, the last one (submit) included."""
QUESTION = (
    "Do the jobs in table job one by one, from job {first}; next is the id of the following job, "
    "0 ends. add: raise the count of item in stock by value. take: lower it by value. set: make it "
    "value. new: insert item with count value. drop: delete item. copy: make it the count of the "
    "item that value names, as it is then. Then submit done."
)
KINDS = ("add", "take", "set", "new", "drop", "copy")


JOB_COLUMNS = (
    Column("id"),
    Column("kind", "TEXT"),
    Column("item", "TEXT"),
    Column("value", ""),  # a number, or for "copy" an item
    Column("next"),
)


@dataclass
class _Chain:
    """The jobs drawn so far, and the stock as it stands after them."""

    stock: dict[str, int]
    items: list[str]
    jobs: list[tuple[str, str, Cell]] = field(default_factory=list[tuple[str, str, Cell]])
    calls: list[tuple[Step, ...]] = field(default_factory=list[tuple[Step, ...]])


def make_long(rng: np.random.Generator, difficulty: int) -> Draft | None:
    """Return one chain of jobs, or None when the dice fell badly."""
    num_steps = between(rng, *STEPS[difficulty])
    # A copy takes three steps (job, count, change), any other job two, submit one.
    copies = [n for n in range(1, 5) if (num_steps - 1 - 3 * n) % 2 == 0 and 3 * n < num_steps - 2]
    num_copies = pick(rng, copies)
    num_others = (num_steps - 1 - 3 * num_copies) // 2
    stocked = pick_some(rng, ITEMS, between(rng, 6, 9))
    stock = {item: between(rng, 1, 60) for item in sorted(stocked)}
    chain = _Chain(stock=dict(stock), items=pick_some(rng, stocked, ACTIVE_ITEMS))
    kinds = ["copy"] * num_copies + [pick(rng, KINDS[:5]) for _ in range(num_others)]
    for position in rng.permutation(len(kinds)):
        if not any(_add_job(rng, chain, kinds[int(position)]) for _ in range(_TRIES)):
            return None
    return _draft(rng, chain, stock)


def _add_job(rng: np.random.Generator, chain: _Chain, kind: str) -> bool:
    """Add one random job of a kind; return False when the dice gave none that fits the stock."""
    present = [item for item in chain.items if item in chain.stock]
    missing = [item for item in chain.items if item not in chain.stock]
    pool = missing if kind == "new" else present
    if not pool or (kind in ("drop", "copy") and len(present) < 3):
        return False
    item = pick(rng, pool)
    old = chain.stock.get(item, 0)
    value: Cell = between(rng, 1, 20)
    if kind == "copy":
        value = pick(rng, [other for other in present if other != item])
        number = chain.stock[value]
        calls = (read(f"SELECT count FROM stock WHERE item = '{value}'"), _set(item, number))
    else:
        number = {"add": old + value, "take": old - value, "drop": 0}.get(kind, value)
        calls = (_change(kind, item, value),)
        value = 0 if kind == "drop" else value
    if not 0 <= number <= TOP_COUNT or (number == old and kind != "drop"):
        return False
    chain.stock[item] = number
    if kind == "drop":
        del chain.stock[item]
    chain.jobs.append((kind, item, value))
    chain.calls.append(calls)
    return True


def _set(item: str, number: int) -> Step:
    return write(f"UPDATE stock SET count = {number} WHERE item = '{item}'")


def _change(kind: str, item: str, value: int) -> Step:
    """Return the one statement that does a job other than a copy."""
    if kind == "new":
        return write(f"INSERT INTO stock VALUES ('{item}', {value})")
    if kind == "drop":
        return write(f"DELETE FROM stock WHERE item = '{item}'")
    if kind == "set":
        return _set(item, value)
    sign = "+" if kind == "add" else "-"
    return write(f"UPDATE stock SET count = count {sign} {value} WHERE item = '{item}'")


def _draft(rng: np.random.Generator, chain: _Chain, stock: dict[str, int]) -> Draft:
    # Jobs that no chain leads to stand between the others: the order must be read, not guessed.
    num_spare = between(rng, 2, 5)
    ids = pick_some(rng, range(10, TOP_COUNT + 1), len(chain.jobs) + num_spare)
    following = [*ids[1 : len(chain.jobs)], 0]
    rows: list[Row] = [
        (i, kind, item, value, after)
        for i, (kind, item, value), after in zip(ids, chain.jobs, following, strict=False)
    ]
    rows += [_spare_job(rng, chain.items, i, ids) for i in ids[len(chain.jobs) :]]
    plan: list[Step] = []
    for i, calls in zip(ids, chain.calls, strict=False):
        plan += [read(f"SELECT * FROM job WHERE id = {i}"), *calls]
    job = Table(
        "job",
        JOB_COLUMNS,
        tuple(sorted(rows, key=lambda row: int(str(row[0])))),
    )
    table = Table("stock", (Column("item", "TEXT"), Column("count")), tuple(stock.items()))
    question = QUESTION.format(first=ids[0])
    return Draft("jobs", question, (table, job), (*plan, submit()))


def _spare_job(rng: np.random.Generator, items: list[str], i: int, ids: list[int]) -> Row:
    return (i, pick(rng, KINDS[:3]), pick(rng, items), between(rng, 1, 20), pick(rng, ids))
