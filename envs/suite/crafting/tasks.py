"""Random crafting tasks: names and recipes drawn anew, stocks that just suffice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.crafting.book import Amounts, Book, Recipe, Resource
from treegrpo.envs.suite.crafting.plan import num_steps, worst_needs
from treegrpo.envs.tasks import Task


def _listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


RESOURCES = _listed(
    "clay reed wool sand flint wax iron moss salt bark tin amber silk coal slate pine"
)
ITEMS = _listed(
    "lamp rope bell drum kite sail ring mask brush chest wheel fork crown flute boot cup tray "
    "hook net ladder clock fan belt pot saw comb tile dart sled horn"
)


@dataclass(frozen=True)
class Level:
    """How large the tasks of a level are.

    `items` are on the way to the goal, `spare` ones are not but use the same resources;
    `steps` is the least and the most that the oracle takes, the most with all `breaks` of the
    `fragile` recipes.
    """

    items: int
    resources: int
    spare: int
    steps: tuple[int, int]
    max_count: int
    fragile: int = 0
    breaks: int = 0


LEVELS: Mapping[int, Level] = {
    1: Level(1, 4, 3, (4, 4), max_count=2),
    2: Level(2, 4, 3, (6, 8), max_count=2),
    3: Level(4, 5, 3, (12, 15), max_count=2),
    4: Level(5, 5, 3, (16, 24), max_count=2, fragile=1, breaks=1),
    5: Level(7, 6, 4, (24, 36), max_count=2, fragile=2, breaks=2),
}
DIFFICULTIES = tuple(LEVELS)
_TENTHS: Mapping[str, range] = {
    "test": range(2),
    "validation": range(2, 4),
    "train": range(4, 10),
}
SPLITS = ("train", "validation", "test")


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split.

    Its content (goal, recipes, resources) decides the split, so no task can be in two.
    """
    level = LEVELS[difficulty]
    while True:
        book, goal = draft(rng, level)
        least, most = num_steps(book, goal)
        if least < level.steps[0] or most > level.steps[1] or split_of(book, goal) != split:
            continue
        return build(stocked(book, goal), goal, difficulty)


def build(book: Book, goal: tuple[str, int], difficulty: int, *, name: str | None = None) -> Task:
    """Return the task to make a goal; by default its id is that of its content."""
    content = digest([goal, book])
    names = [f"Gather: {', '.join(sorted(resource.name for resource in book.resources))}."]
    names.append(f"Craft: {', '.join(sorted(book.items))}.")
    if book.breaks:
        times = "once" if book.breaks == 1 else f"{book.breaks} times"
        names.append(f"Fragile crafts break at most {times}.")
    return Task(
        id=name or f"{goal[0]}-{content[:16]}",
        question=f"{' '.join(names)} Make {goal[1]} {goal[0]}.",
        answer=goal,
        difficulty=difficulty,
        data={"book": book},
    )


def split_of(book: Book, goal: tuple[str, int]) -> str:
    """Return the only split a generated task of this goal and these recipes can be in."""
    tenth = int(digest([goal, book.recipes])[:8], 16) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)


def draft(rng: np.random.Generator, level: Level) -> tuple[Book, tuple[str, int]]:
    """Return a random book, its resources not stocked yet, and a goal.

    Items are numbered from the goal down: each is a part of one with a smaller number.
    """
    items = _pick(rng, ITEMS, level.items + level.spare)
    resources = _pick(rng, RESOURCES, level.resources)
    needed = items[: level.items]
    parts = [dict[str, int]() for _ in items]
    for number in range(1, level.items):
        # Mostly one of the last few, so that the graph is deep rather than broad.
        parent = int(rng.integers(max(0, number - 3), number))
        parts[parent][needed[number]] = int(rng.integers(1, 3))
    for number, own in enumerate(parts):
        later = needed[number + 1 :] if rng.random() < 0.3 else []
        for name in _pick(rng, [*resources, *later], max(0, 2 - len(own))):
            own[name] = int(rng.integers(1, level.max_count + 1))
    fragile = set(_pick(rng, needed[-3:], level.fragile))
    recipes = [
        Recipe(item, _amounts(own), 1 if item == items[0] else 1 + int(rng.random() < 0.25))
        for item, own in zip(items, parts, strict=True)
    ]
    recipes = [replace(recipe, is_fragile=recipe.item in fragile) for recipe in recipes]
    endless = (Resource(name, int(rng.integers(2, 4)), 0) for name in sorted(resources))
    ordered = sorted(recipes, key=lambda recipe: recipe.item)
    return Book(tuple(ordered), tuple(endless), level.breaks), (items[0], 1)


def stocked(book: Book, goal: tuple[str, int]) -> Book:
    """Return the book with as much of each resource as the worst case needs, no piece more.

    What only spare items need is there, too: one batch.
    """
    needs = worst_needs(book, goal)
    stocks = (replace(one, stock=needs.get(one.name, one.batch)) for one in book.resources)
    return replace(book, resources=tuple(stocks))


def _amounts(parts: Mapping[str, int]) -> Amounts:
    return tuple(sorted(parts.items()))


def _pick(rng: np.random.Generator, names: list[str] | tuple[str, ...], count: int) -> list[str]:
    """Return `count` different names in random order."""
    return [names[int(i)] for i in rng.permutation(len(names))[:count]]
