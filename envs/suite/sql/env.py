"""A database to question and to change, with no way back: the suite's stateful environment.

    env = make("treegrpo/SQL-v0", horizon="long")

Statements are really executed, so every step leaves its mark on the episode's own database,
and a fork taken between two statements has a database of its own from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.suite.sql import oracle, tasks
from treegrpo.envs.suite.sql.database import Cell, Database, Result
from treegrpo.envs.suite.sql.guard import SQLError
from treegrpo.envs.suite.sql.plan import DONE, Goal, Step, pick
from treegrpo.envs.tasks import GeneratedTasks, Task
from treegrpo.envs.tools import tool

MAX_ROWS = 20
MAX_CELL_CHARS = 60


@dataclass
class SQLState:
    """An episode's database, and what the agent submitted."""

    database: Database
    submission: str | None = None


class DatabaseEnv(ToolEnv):
    """Tools, score and agents of every version; a version adds its tasks."""

    system_prompt: ClassVar[str] = (
        "Work on the SQLite database with the tools, one statement per call. Changes cannot be "
        "undone. Submit once, at the end."
    )

    def setup(self, task: Task, rng: np.random.Generator) -> SQLState:
        """Return a fresh database with the task's tables."""
        return SQLState(Database.create(task.data["tables"]))

    def score(
        self, state: SQLState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 for a submission that reaches the goal exactly, else 0."""
        goal = cast("Goal", task.answer)
        submitted = state.submission is not None
        right = submitted and tasks.is_right(goal, state.database, str(state.submission))
        return {"match": float(right)}

    # ------------------------------------------------------------------------------ the tools

    @tool
    def list_tables(self) -> str:
        """List the tables of the database."""
        return ", ".join(self._database.tables())

    @tool
    def schema(self, table: str) -> str:
        """Show the columns of a table, their types and what they refer to.

        Args:
            table: name of the table.
        """
        return self._database.describe(table)

    @tool(effects="write")
    def query(self, sql: str) -> str:
        """Run one SELECT, INSERT, UPDATE or DELETE statement; a change is final.

        Args:
            sql: the statement.
        """
        return show(self._database.execute(sql, max_rows=MAX_ROWS))

    @tool(effects="write")
    def submit(self, sql: str = DONE) -> str:
        """End the task: give the SELECT that answers the question, or done after changes.

        Args:
            sql: the SELECT statement, or done.
        """
        said = sql.strip()
        if not self._wants_rows:
            if said.lower() not in (DONE, ""):
                raise SQLError(f"this task asks for changes; submit {DONE} after the last one")
        else:
            self._database.execute(said, read_only=True)
        self.state.submission = said
        self.finish("submitted")
        return "Submitted."

    @property
    def _database(self) -> Database:
        return cast("SQLState", self.state).database

    @property
    def _wants_rows(self) -> bool:
        """Whether the task is a question, answered by rows, and not a change."""
        return cast("Goal", self.task.answer).rows is not None

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        said = [m["content"] for m in self.episode.messages if m["role"] == "assistant"]
        return self._encode(oracle.next_step(self.task, self._database, said, self._encode))

    def _encode(self, step: Step) -> str:
        return self.encode_call(step.tool, **step.arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a sensible call, often one that writes."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        table = pick(rng, self._database.tables())
        rows, names = self._database.dump()[table], self._database.columns(table)
        key = oracle.literal(pick(rng, rows)[0]) if rows else "0"
        number = int(rng.integers(10))
        where = f"WHERE {names[0]} = {key}"
        steps = (
            Step("list_tables"),
            Step("schema", {"table": table}),
            Step("query", {"sql": f"SELECT * FROM {table} {where}"}),
            Step("query", {"sql": f"UPDATE {table} SET {names[-1]} = {number} {where}"}),
            Step("query", {"sql": f"DELETE FROM {table} {where}"}),
            Step("submit", {"sql": pick(rng, (DONE, f"SELECT * FROM {table}"))}),
        )
        return self._encode(pick(rng, steps))


class SQLEnv(DatabaseEnv):
    """Questions about, and changes to, a generated SQLite database.

    Args:
        horizon: "short" (3 to 7 steps for the oracle, levels 1 to 3: one table, joins and
            groups, writes) or "long" (a chain of jobs, 10 to 20 steps, every change final).

    Reward: 1 if the final database is exactly as asked and, for a question, the submitted
    query gives the right rows; else 0.
    """

    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES

    def __init__(self, *, horizon: str = "short", **settings: Any) -> None:
        """Make the environment; other settings are ToolEnv's."""
        if horizon not in tasks.HORIZONS:
            raise UnknownOption(
                f"horizon '{horizon}' asked for; SQL has: {', '.join(tasks.HORIZONS)}."
                f"{suggest(str(horizon), tasks.HORIZONS)}"
            )
        self.horizon = horizon
        self.max_turns = 24 if horizon == "long" else 12
        self.max_tool_calls = 2 * self.max_turns
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, made one by one."""
        return GeneratedTasks(
            partial(tasks.make_task, horizon=self.horizon, split=split),
            name=f"SQL/{self.horizon}",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )


def show(result: Result) -> str:
    """Return a result as text: a header and rows, or how many rows were changed."""
    if result.changed is not None and not result.columns:
        return f"{result.changed} {'row' if result.changed == 1 else 'rows'} changed."
    lines = [" | ".join(map(_show_cell, result.columns))]
    lines += [" | ".join(_show_cell(cell) for cell in row) for row in result.rows]
    if not result.rows:
        lines.append("(no rows)")
    if result.has_more:
        lines.append(f"(only the first {len(result.rows)} rows are shown)")
    return "\n".join(lines)


def _show_cell(cell: Cell) -> str:
    text = "NULL" if cell is None else cell if isinstance(cell, str) else oracle.literal(cell)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n")
    return text if len(text) <= MAX_CELL_CHARS else text[:MAX_CELL_CHARS] + "..."
