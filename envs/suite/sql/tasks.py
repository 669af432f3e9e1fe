"""The tasks of the SQL environment: drafted, checked, put into a split, and their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.sql import jobs, questions, worlds
from treegrpo.envs.suite.sql.database import Database, Row
from treegrpo.envs.suite.sql.guard import SQLError
from treegrpo.envs.suite.sql.plan import Draft, Goal
from treegrpo.envs.tasks import Task

Horizon = Literal["short", "long"]
HORIZONS: Mapping[str, Callable[[np.random.Generator, int], Draft | None]] = {
    "short": questions.make_short,
    "long": jobs.make_long,
}
DIFFICULTIES = (1, 2, 3)
_TEST_SHARE = 4


def make_task(rng: np.random.Generator, difficulty: int, *, horizon: str, split: str) -> Task:
    """Return a random task of one split.

    Which split a task may be in follows from its content (question and rows), so no task can
    be in both, whatever the seeds.
    """
    while True:
        draft = HORIZONS[horizon](rng, difficulty)
        if draft is None or split_of(draft) != split:
            continue
        task = build(draft, difficulty)
        if task is not None:
            return task


def build(draft: Draft, difficulty: int) -> Task | None:
    """Return the task of a draft, or None if its gold answer is empty or its steps idle.

    The plan is carried out: `task.answer` is the goal, `task.data` holds the tables, the plan
    and the digest of the database after each write, the untouched one first.
    """
    database = Database.create(draft.tables)
    states = [database.digest()]
    for step in draft.plan:
        if step.writes:
            database.execute(step.arguments["sql"])
            states.append(database.digest())
    rows = None
    if len(states) == 1:
        rows = database.execute(draft.plan[-1].arguments["sql"], read_only=True).rows
        if not rows or any(cell is None for row in rows for cell in row):
            return None
    # Were two of the states equal, the oracle could not tell how far an episode has come.
    if len(set(states)) < len(states):
        return None
    return Task(
        id=f"{draft.kind}-{content_of(draft)[:16]}",
        question=draft.question,
        answer=Goal(states[-1], rows, draft.is_ordered),
        difficulty=difficulty,
        data={"tables": draft.tables, "plan": draft.plan, "states": tuple(states)},
    )


def split_of(draft: Draft) -> str:
    """Return the only split a task of this content can be in."""
    return "test" if int(content_of(draft)[:8], 16) % _TEST_SHARE == 0 else "train"


def content_of(draft: Draft) -> str:
    """Return a digest of what a task asks and of its rows, which decides its split."""
    return digest([draft.question, [[table.name, table.rows] for table in draft.tables]])


def is_right(goal: Goal, database: Database, submission: str) -> bool:
    """Return whether an episode that ended with `submission` reached the goal.

    The database must be as the goal says: changed as asked and in no other way. For a question
    the submitted query's rows must match the gold rows, as a list if the question asks for an
    order, else as a multiset. Reads only.
    """
    if database.digest() != goal.state:
        return False
    if goal.rows is None:
        return True
    try:
        result = database.execute(submission, read_only=True)
    except SQLError:
        return False
    return not result.has_more and are_same_rows(result.rows, goal.rows, is_ordered=goal.is_ordered)


def are_same_rows(found: Sequence[Row], gold: Sequence[Row], *, is_ordered: bool) -> bool:
    """Return whether rows match: as a list if the order counts, else as a multiset."""
    one, other = _spelled(found), _spelled(gold)
    return one == other if is_ordered else sorted(one) == sorted(other)


def _spelled(rows: Sequence[Row]) -> list[list[str]]:
    """Return rows as texts in which 2 and 2.0 are equal, and 2 and '2' are not."""
    return [
        [
            repr(round(float(cell), 6)) if isinstance(cell, (int, float)) else repr(cell)
            for cell in row
        ]
        for row in rows
    ]


def words(text: str) -> list[str]:
    """Return the words, numbers and single signs of a text, as a word-level model reads them."""
    return re.findall(r"[A-Za-z_]+|[0-9]+|[^\sA-Za-z0-9_]", text)


# Words of SQL, of the tools and of their replies; the rest comes from the generators' lists.
_SQL = (
    "SELECT DISTINCT FROM JOIN ON WHERE GROUP BY ORDER DESC LIMIT COUNT SUM INSERT INTO VALUES "
    "UPDATE SET DELETE AND OR NOT IN ( ) , . * = < + - '"
)
_TOOLS = "list_tables schema query submit table sql done"
_REPLIES = "INTEGER TEXT PRIMARY KEY REFERENCES ON DELETE CASCADE | row rows changed Submitted no"


def vocabulary(horizon: Horizon | None = None) -> set[str]:
    """Return every word that prompts, oracle actions and their replies can hold.

    Args:
        horizon: of one setting; None for both.

    Words are those of `words()`. The signs with which an action format wraps a call are the
    format's own and not in the set; nor are SQLite's error messages.
    """
    texts = [_SQL, _TOOLS, _REPLIES, "id"]
    if horizon != "short":
        texts += [jobs.QUESTION, " ".join(jobs.ITEMS + jobs.KINDS), "stock job item count"]
        texts += ["kind value next", " ".join(map(str, range(jobs.TOP_COUNT + 1)))]
    if horizon != "long":
        hints = (questions.READ_HINT, questions.ROWS_HINT, questions.WRITE_HINT)
        texts += [*questions.QUESTIONS.values(), *hints, *worlds.PEOPLE, *worlds.CITIES]
        texts += ["name city change s", worlds.LOG, *map(str, range(worlds.TOP_NUMBER + 1))]
        for family in worlds.FAMILIES:
            texts += [word for names in family.words() for word in names]
    return {word for text in texts for word in words(re.sub(r"{\w+}", " ", text))}
