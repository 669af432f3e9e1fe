"""Crafting's tasks: one book each, stocks that just suffice, splits apart, exact plans."""

import re
from collections import Counter

import numpy as np
import pytest

from treegrpo.envs.suite.crafting.book import Book, Recipe, Resource
from treegrpo.envs.suite.crafting.env import CraftingEnv
from treegrpo.envs.suite.crafting.plan import best_recipes, num_steps, order_of, worst_needs
from treegrpo.envs.suite.crafting.tasks import (
    ITEMS,
    LEVELS,
    RESOURCES,
    SPLITS,
    draft,
    split_of,
    stocked,
)

ENV = CraftingEnv()
TASKS = {split: list(ENV.tasks(split)[:100]) for split in SPLITS}
LAMP = Book(
    (
        Recipe("lamp", (("glass", 3), ("wick", 1))),
        Recipe("glass", (("sand", 2), ("coal", 1)), 2, is_fragile=True),
        Recipe("wick", (("wool", 2),)),
    ),
    (Resource("sand", 3, 9), Resource("coal", 2, 9), Resource("wool", 2, 9)),
    breaks=2,
)


def test_a_task_depends_on_split_and_index_alone() -> None:
    for split in SPLITS:
        again = CraftingEnv().tasks(split)
        for index in (99, 3, 57):
            assert again[index] == TASKS[split][index]


def test_no_task_is_in_two_splits_or_twice_in_one() -> None:
    ids = [task.id for tasks in TASKS.values() for task in tasks]
    contents = [str((t.answer, t.data["book"].recipes)) for ts in TASKS.values() for t in ts]
    assert len(ids) == len(set(ids)) == len(set(contents)) == 300


def test_the_recipes_decide_the_split_whatever_the_seed() -> None:
    for split, tasks in TASKS.items():
        assert {split_of(task.data["book"], task.answer) for task in tasks} == {split}
    rng = np.random.default_rng(0)
    drawn = Counter(split_of(*draft(rng, LEVELS[3])) for _ in range(200))
    assert min(drawn[split] for split in SPLITS) > 20


def test_the_oracle_s_steps_are_those_of_the_level() -> None:
    for task in TASKS["train"]:
        least, most = num_steps(task.data["book"], task.answer)
        low, high = LEVELS[task.difficulty].steps
        assert low <= least <= most <= high


def test_levels_have_the_items_they_state_and_no_circles() -> None:
    for task in TASKS["train"]:
        book, level = task.data["book"], LEVELS[task.difficulty]
        recipes = best_recipes(book)
        crafted = [name for name in order_of(recipes, task.answer[0]) if name in recipes]
        assert len(crafted) == level.items
        assert len(book.items) == level.items + level.spare == len(recipes)
        assert sum(recipe.is_fragile for recipe in book.recipes) == level.fragile
        assert set(book.items) <= set(ITEMS)
        assert {resource.name for resource in book.resources} <= set(RESOURCES)


def test_stocks_are_what_the_worst_case_needs() -> None:
    for task in TASKS["validation"]:
        book = task.data["book"]
        assert stocked(book, task.answer) == book
        needs = worst_needs(book, task.answer)
        for resource in book.resources:
            assert resource.stock == needs.get(resource.name, resource.batch)


def test_plans_count_by_hand() -> None:
    """3 glass take 2 crafts (4 sand, 2 coal), 4 with two breaks (8 sand, 4 coal)."""
    assert worst_needs(LAMP, ("lamp", 1)) == {"sand": 8, "coal": 4, "wool": 2}
    # Looks 3; crafts 1 + 2 + 1; gathers of sand 2, coal 1, wool 1.
    assert num_steps(LAMP, ("lamp", 1)) == (3 + 4 + 4, 3 + 6 + 3 + 2 + 1)
    assert order_of(best_recipes(LAMP), "lamp")[0] == "lamp"


def test_of_several_recipes_the_one_without_a_circle_is_taken() -> None:
    book = Book(
        (
            Recipe("bar", (("block", 1),), 9),
            Recipe("block", (("bar", 9),)),
            Recipe("bar", (("ore", 1),)),
        ),
        (Resource("ore", 1, 9),),
    )
    assert best_recipes(book) == {"bar": book.recipes[2], "block": book.recipes[1]}


@pytest.mark.parametrize("split", SPLITS)
def test_the_question_names_everything_but_no_recipe(split: str) -> None:
    for task in TASKS[split]:
        book = task.data["book"]
        for name in [*book.items, *(resource.name for resource in book.resources)]:
            assert name in task.question
        assert task.question.endswith(f"Make 1 {task.answer[0]}.")
        assert not re.search(r"[3-9]", task.question)
