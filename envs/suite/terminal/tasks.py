"""Random tasks: one to three goals in a project, with files that must not be touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.terminal.disk import Disk, Repo
from treegrpo.envs.suite.terminal.goals import CHANGES, QUESTIONS, Goal
from treegrpo.envs.suite.terminal.real import has_history, relocated
from treegrpo.envs.suite.terminal.worlds import World
from treegrpo.envs.tasks import Task


@dataclass(frozen=True)
class Level:
    """How large a project is, and what may be asked in it.

    With `one_of`, the task has one goal of these; else `changes` goals that change files and
    one with an answer. `spare` folders have nothing to do with any goal.
    """

    depth: int
    files_per_folder: int
    spare: int
    one_of: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    num_changes: int = 0


_HARDER = ("fix_config", "restore", "clean_up", "report", "move", "rename")
LEVELS: Mapping[int, Level] = {
    1: Level(1, 4, 0, one_of=("find_text", "count_lines", "edit_key")),
    2: Level(1, 4, 1, one_of=("find_text", "busiest", "edit_key", "rename", "move")),
    3: Level(2, 3, 1, one_of=("fix_config", "restore", "clean_up", "report", "rename")),
    4: Level(2, 3, 2, changes=_HARDER, num_changes=1),
    5: Level(3, 3, 2, changes=_HARDER, num_changes=2),
}
DIFFICULTIES = tuple(LEVELS)
SPLITS = ("train", "validation", "test")
_TENTHS: Mapping[str, range] = {
    "test": range(2),
    "validation": range(2, 4),
    "train": range(4, 10),
}


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split; its content decides the split, so none is in two."""
    while True:
        world, goals = draft(rng, LEVELS[difficulty])
        question = ask(world.root, goals)
        content = digest([question, world.files])
        if split_of(content) != split:
            continue
        answers = [goal.answer for goal in goals if goal.answer is not None]
        return Task(
            id=f"{world.root.rpartition('/')[2]}-{content[:16]}",
            question=question,
            answer=answers[0] if answers else None,
            difficulty=difficulty,
            data={"disk": world.disk(), "goals": goals, "root": world.root},
        )


def make_real_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split for a real shell: drawn until it needs no history."""
    while True:
        task = make_task(rng, difficulty, split=split)
        if not has_history(task):
            return relocated(task)


def draft(rng: np.random.Generator, level: Level) -> tuple[World, tuple[Goal, ...]]:
    """Return a random project and the goals in it, those that change files first."""
    world = World(rng, level.depth, level.files_per_folder)
    if level.one_of:
        kinds = [world.pick(level.one_of)]
    else:
        kinds = [*world.some(level.changes, level.num_changes), world.pick(tuple(QUESTIONS))]
    goals = tuple({**CHANGES, **QUESTIONS}[kind](world) for kind in kinds)
    for _ in range(level.spare):
        _, folders = world.area()
        world.fill(folders[:3], ".txt")
    return world, goals


def split_of(content: str) -> str:
    """Return the only split that a task of this digest can be in."""
    tenth = int(content[:8], 16) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)


def ask(root: str, goals: tuple[Goal, ...]) -> str:
    """Return the text of a task."""
    if len(goals) == 1:
        return f"You are in {root}. {goals[0].ask} When all is done, submit."
    numbered = " ".join(f"({number}) {goal.ask}" for number, goal in enumerate(goals, 1))
    return f"You are in {root}. {numbered} When all is done, submit."


def is_solved(task: Task, disk: Disk, submission: str | None) -> bool:
    """Return whether every goal is reached, the answer right, and nothing else lost or changed."""
    if submission is None or (task.answer is not None and submission.strip() != task.answer):
        return False
    goals: tuple[Goal, ...] = task.data["goals"]
    if not all(goal.is_reached(disk) for goal in goals):
        return False
    start: Disk = task.data["disk"]
    changed = {path for goal in goals for path, _ in goal.wanted}
    now = disk.files()
    if any(now.get(path) != text for path, text in start.files().items() if path not in changed):
        return False
    return all(_is_kept(e, disk.get(p)) for p, e in start.entries.items() if isinstance(e, Repo))


def _is_kept(before: Repo, now: object) -> bool:
    """Return whether a history still has all of its commits."""
    return isinstance(now, Repo) and set(before.commits) <= set(now.commits)
