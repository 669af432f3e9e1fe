"""Tasks: where they come from (a list, a file, a seeded generator), and how one is chosen."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, overload

import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import UnknownOption

CHOICES = ("index", "task_id", "difficulty")
"""The reset options that choose a task within its split; at most one of them is given."""

NUM_TASKS: Mapping[str, int] = MappingProxyType(
    {"train": 1_000_000, "validation": 1_000, "test": 1_000}
)
"""How many tasks an environment with three splits generates for each."""

_MAX_SEARCHED = 10_000


@dataclass(frozen=True)
class Task:
    """One problem: what is asked, what is right, and anything setup() needs.

    `answer` and `data` never reach the agent. Tasks are shared between forks, so they are
    never changed.
    """

    id: str
    question: str
    answer: Any = None
    difficulty: int = 1
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


class GeneratedTasks(Sequence[Task]):
    """The tasks of one split, made on demand: task i depends on (name, split, i) alone.

    Difficulties take turns by index, so any run of consecutive tasks is balanced.
    """

    def __init__(
        self,
        make_task: Callable[[np.random.Generator, int], Task],
        *,
        name: str,
        split: str,
        size: int,
        difficulties: Sequence[int],
    ) -> None:
        """Keep the recipe; nothing is generated yet."""
        self._make_task = make_task
        self._name, self._split, self._size = name, split, size
        self.difficulties = tuple(difficulties)

    def __len__(self) -> int:
        """Return the number of tasks of the split."""
        return self._size

    def __iter__(self) -> Iterator[Task]:
        """Yield every task in order."""
        return (self[i] for i in range(self._size))

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        """Return task `index`, the same in every process."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(f"task {index} of {self._size}")
        rng = np.random.default_rng(stable_seed(self._name, self._split, index))
        return self._make_task(rng, self.difficulties[index % len(self.difficulties)])


def choose_index(
    tasks: Sequence[Task], options: Mapping[str, Any], rng: np.random.Generator
) -> int:
    """Return the index of the task that the options ask for; `rng` settles what they leave open.

    Raises:
        UnknownOption: no such task, or two options that each choose one.
    """
    given = [name for name in CHOICES if name in options]
    if len(given) > 1:
        raise UnknownOption(
            f"Reset options {' and '.join(given)} asked for together; each alone chooses the "
            "task. Give one of them."
        )
    if "index" in options:
        return _valid_index(tasks, options["index"])
    if "task_id" in options:
        return _index_of(tasks, options["task_id"])
    if not tasks:
        raise UnknownOption("A task was asked for; the split has none.")
    start = int(rng.integers(len(tasks)))
    if "difficulty" in options:
        return _next_of_difficulty(tasks, start, options["difficulty"])
    return start


def _valid_index(tasks: Sequence[Task], index: Any) -> int:
    try:
        position = operator.index(index)
    except TypeError:
        raise UnknownOption(f"Task index {index!r} asked for; an index is an integer.") from None
    if not tasks:
        raise UnknownOption(f"Task index {position} asked for; the split has none.")
    if not 0 <= position < len(tasks):
        count = f"which are {len(tasks):,} tasks" if len(tasks) > 1 else "which is 1 task"
        raise UnknownOption(
            f"Task index {position} asked for; the split has 0 to {len(tasks) - 1}, {count}. "
            "Choose among these."
        )
    return position


def _index_of(tasks: Sequence[Task], task_id: Any) -> int:
    # Generated tasks are made one by one, a million of them at times.
    searched = min(len(tasks), _MAX_SEARCHED) if isinstance(tasks, GeneratedTasks) else len(tasks)
    for index in range(searched):
        if tasks[index].id == task_id:
            return index
    raise UnknownOption(
        f"Task '{task_id}' asked for; none of the split's first {searched} tasks has this id. "
        "Give its index instead."
    )


def _next_of_difficulty(tasks: Sequence[Task], start: int, difficulty: Any) -> int:
    generated = isinstance(tasks, GeneratedTasks)
    known = tasks.difficulties if generated else tuple(task.difficulty for task in tasks)
    for offset in range(min(len(tasks), 2 * len(known))):
        index = (start + offset) % len(tasks)
        if known[index % len(known)] == difficulty:
            return index
    raise UnknownOption(
        f"Difficulty {difficulty} asked for; the split has "
        f"{', '.join(map(str, sorted(set(known))))}."
    )
