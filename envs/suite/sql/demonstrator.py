"""A player of the long tasks that errs in known, biased ways.

It follows the chain of jobs as the oracle does, but has favourite mistakes, each of which
dooms the episode: a warm start on its episodes leaves a policy that reinforcement learning has
to *correct*, not only sharpen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treegrpo.envs.suite.sql.database import Row
from treegrpo.envs.suite.sql.plan import Step, read, submit, write
from treegrpo.envs.tasks import Task

if TYPE_CHECKING:
    from treegrpo.envs.suite.sql.env import SQLEnv


@dataclass(frozen=True)
class Mistakes:
    """How often the demonstrator errs; probabilities per job.

    `mix_up`: "take" adds, "drop" sets the count to 0. `reverse`: "copy" goes in the wrong
    direction. `stop_early`: done is submitted after a job that is not the last.
    """

    mix_up: float = 0.6
    reverse: float = 0.15
    stop_early: float = 0.03


class Demonstrator:
    """Plays one long episode at a time with biased mistakes; call `begin` after each reset."""

    def __init__(self, mistakes: Mistakes, rng: np.random.Generator) -> None:
        """Keep the rates and the stream that decides when to err."""
        self._mistakes, self._rng = mistakes, rng
        self._script: Iterator[Step] = iter(())

    def begin(self, env: SQLEnv) -> None:
        """Start the episode that `env` was reset to; its horizon must be "long"."""
        self._script = self._play(env)

    def act(self, env: SQLEnv) -> str:
        """Return the next action; what it writes is what it was shown."""
        step = next(self._script)
        return env.encode_call(step.tool, **step.arguments)

    def _play(self, env: SQLEnv) -> Iterator[Step]:
        for job, change in _jobs(env.task):
            yield read(f"SELECT * FROM job WHERE id = {job[0]}")
            if job[1] == "copy":
                yield from self._copy(env, str(job[2]), str(job[3]))
            else:
                yield self._changed(change, str(job[1]), str(job[2]))
            if self._errs(self._mistakes.stop_early):
                break
        yield submit()

    def _changed(self, change: Step, kind: str, item: str) -> Step:
        """Return the plan's statement for a job, or the favourite mistake in its place."""
        if kind not in ("take", "drop") or not self._errs(self._mistakes.mix_up):
            return change
        if kind == "drop":
            return write(f"UPDATE stock SET count = 0 WHERE item = '{item}'")
        return write(change.arguments["sql"].replace("count - ", "count + "))

    def _copy(self, env: SQLEnv, item: str, source: str) -> Iterator[Step]:
        if self._errs(self._mistakes.reverse):
            item, source = source, item
        yield read(f"SELECT count FROM stock WHERE item = '{source}'")
        number = env.messages[-1]["content"].split()[-1]
        if number.lstrip("-").isdecimal():  # after an earlier mistake the item may be missing
            yield write(f"UPDATE stock SET count = {number} WHERE item = '{item}'")

    def _errs(self, rate: float) -> bool:
        return bool(self._rng.random() < rate)


def _jobs(task: Task) -> Iterator[tuple[Row, Step]]:
    """Yield the jobs of the chain in order: the row, and the plan's statement that does it."""
    rows = {row[0]: row for row in task.data["tables"][1].rows}
    plan: tuple[Step, ...] = task.data["plan"]
    current = int(plan[0].arguments["sql"].rpartition(" ")[2])
    for step in plan:
        if step.writes:
            row = rows[current]
            yield row, step
            current = int(str(row[4]))
