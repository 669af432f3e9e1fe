"""SQL, version 1: five levels in one environment, and the questions of public data sets.

env = make("treegrpo/SQL-v1")                    # generated databases
env = make("treegrpo/SQL-v1", path="spider")     # a folder of Spider or BIRD

A data set's databases are only read: there is nothing to change, and forks share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.suite.sql import levels
from treegrpo.envs.suite.sql.database import Database, quoted
from treegrpo.envs.suite.sql.env import DatabaseEnv, SQLState
from treegrpo.envs.suite.sql.folder import Gold, TaskFolder
from treegrpo.envs.suite.sql.plan import Step, pick, submit
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task

MIN_TOOL_CALLS = 12
"""Calls that even the shortest task allows."""


@dataclass
class Submission:
    """All that an episode on a data set's database can change."""

    submission: str | None = None


class SQLLevelsEnv(DatabaseEnv):
    """Questions about, and changes to, a SQLite database, at five levels.

    Args:
        path: a folder of Spider or BIRD; None for generated databases. Its questions are of
            levels 1, 2 and 4, and its databases cannot be changed.
        settings: of ToolEnv.

    Reward: 1 if the final database is exactly as asked and, for a question, the submitted
    query gives the right rows; else 0.
    """

    splits: ClassVar[tuple[str, ...]] = levels.SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tuple(levels.LEVELS)
    max_turns = 24
    max_tool_calls = 48

    def __init__(self, *, path: str | None = None, **settings: Any) -> None:
        """Make the environment; a folder's questions are read here.

        Raises:
            DataFileError: a file that cannot be read.
        """
        self._folder = None if path is None else TaskFolder(Path(path))
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the folder's tasks, or the generated ones of the split."""
        if self._folder is not None:
            return self._folder.tasks(split)
        return GeneratedTasks(
            partial(levels.make_task, split=split),
            name="SQL/levels",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        """Return a fresh database with the task's tables, or an empty submission.

        Raises:
            DataFileError: the gold query of a data set's task does not run.
        """
        if self._folder is not None:
            self._folder.gold_rows(cast("Gold", task.answer))
            return Submission()
        self.cap_tool_calls(max(MIN_TOOL_CALLS, 2 * len(task.data["plan"])))
        return super().setup(task, rng)

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> Mapping[str, float]:
        """Return 1 for a submission that reaches the goal exactly, else 0."""
        if self._folder is None:
            return super().score(cast("SQLState", state), transcript, task)
        said = cast("Submission", state).submission
        right = said is not None and self._folder.is_right(cast("Gold", task.answer), said)
        return {"match": float(right)}

    @property
    def _database(self) -> Database:
        if self._folder is None:
            return super()._database
        return self._folder.database(cast("Gold", self.task.answer))

    @property
    def _wants_rows(self) -> bool:
        return self._folder is not None or super()._wants_rows

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action; of a data set it knows the gold query."""
        if self._folder is None:
            return super().oracle()
        return self._encode(submit(cast("Gold", self.task.answer).sql))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a sensible call."""
        if self._folder is None or self._episode is None:
            return super().sample_action(rng)
        tables = self._database.tables()
        if not tables or rng.random() < 0.2:
            return ToolEnv.sample_action(self, rng)
        table = pick(rng, tables)
        sql = f"SELECT * FROM {quoted(table)}"
        steps = (
            Step("list_tables"),
            Step("schema", {"table": table}),
            Step("query", {"sql": sql}),
            submit(sql),
        )
        return self._encode(pick(rng, steps))
