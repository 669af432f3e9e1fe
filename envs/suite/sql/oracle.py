"""The scripted expert: follows the task's plan, and mends the database when it is off the plan.

It is not a policy that could be played fairly: it knows the plan and reads the database as it
stands. Its actions, though, are what a careful agent would do with what it was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treegrpo.envs.suite.sql.database import Cell, Database, Row
from treegrpo.envs.suite.sql.plan import Step, write
from treegrpo.envs.tasks import Task


def next_step(
    task: Task, database: Database, said: Sequence[str], encode: Callable[[Step], str]
) -> Step:
    """Return the expert's next call for an episode as it stands.

    Args:
        task: with the plan and the digests of the database after each of its writes.
        database: as it is now; only read.
        said: every action of the agent so far.
        encode: spells a step as an action, to find it among those said.

    On the plan: its next write, preceded by the reads that were not done since the last
    write. Off the plan: one statement that brings the database closer to the goal, so success
    is reached from every state, budget permitting.
    """
    plan: tuple[Step, ...] = task.data["plan"]
    states: tuple[str, ...] = task.data["states"]
    if database.digest() not in states:
        return write(mend(database, _goal_of(task)))
    done = states.index(database.digest())
    writes = [position for position, step in enumerate(plan) if step.writes]
    start, recent = 0, list(said)
    if done:
        start = writes[done - 1] + 1
        last = encode(plan[start - 1])
        recent = recent[_last_index(recent, last) + 1 :]
    for step in plan[start:-1]:
        if step.writes or encode(step) not in recent:
            return step
    return plan[-1]


def mend(database: Database, target: Database) -> str:
    """Return one statement that makes an unlike row of `database` like that of `target`.

    Parents come before children for rows to add, children before parents for rows to drop.
    """
    now, wanted = database.dump(), target.dump()
    for table in wanted:
        there = {row[0]: row for row in now[table]}
        for row in wanted[table]:
            if repr(there.get(row[0])) != repr(row):  # 1 and 1.0 differ, as in the digest
                return _put(database, table, row, is_there=row[0] in there)
    for table in reversed(wanted):
        keys = {row[0] for row in wanted[table]}
        for row in now[table]:
            if row[0] not in keys:
                return f"DELETE FROM {table} WHERE {_key(database, table)} = {literal(row[0])}"
    raise AssertionError("asked to mend a database that is right")


def literal(cell: Cell) -> str:
    """Return a value as it is written in SQL."""
    if cell is None:
        return "NULL"
    if isinstance(cell, bytes):
        return f"X'{cell.hex()}'"
    if isinstance(cell, str):
        if not cell.isprintable():  # a zero byte, or what is not UTF-8, cannot stand in a statement
            return f"CAST(X'{cell.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
        return "'" + cell.replace("'", "''") + "'"
    return repr(cell).replace("inf", "9e999")


def _goal_of(task: Task) -> Database:
    target = Database.create(task.data["tables"])
    for step in task.data["plan"]:
        if step.writes:
            target.execute(step.arguments["sql"])
    return target


def _put(database: Database, table: str, row: Row, *, is_there: bool) -> str:
    values = [literal(cell) for cell in row]
    if not is_there:
        return f"INSERT INTO {table} VALUES ({', '.join(values)})"
    names = database.columns(table)
    changes = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
    return f"UPDATE {table} SET {', '.join(changes[1:])} WHERE {changes[0]}"


def _key(database: Database, table: str) -> str:
    return database.columns(table)[0]


def _last_index(items: Sequence[str], item: str) -> int:
    """Return the position of the last occurrence, or -1."""
    return max((i for i, other in enumerate(items) if other == item), default=-1)
