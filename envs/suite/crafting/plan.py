"""What it takes to make a goal: which recipes, how many crafts, how much of each resource.

All of it is exact arithmetic on the book; the generator and the oracle share it, so what the
oracle proves possible is what the generator gave stocks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations_with_replacement

from treegrpo.envs.suite.crafting.book import Book, Recipe


def best_recipes(book: Book) -> dict[str, Recipe]:
    """Return one recipe per item that can be made at all: the one with the fewest layers.

    Following them from any item never leads back to it, whatever circles the book has.
    """
    chosen: dict[str, Recipe] = {}
    known = {resource.name for resource in book.resources}
    while True:
        found: dict[str, Recipe] = {}
        for recipe in book.recipes:
            if recipe.item not in known and all(part in known for part, _ in recipe.parts):
                found.setdefault(recipe.item, recipe)
        if not found:
            return chosen
        chosen |= found
        known |= set(found)


def order_of(recipes: Mapping[str, Recipe], goal: str) -> list[str]:
    """Return the goal and everything it is made of, each name before its parts."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in done:
            for part, _ in recipes[name].parts if name in recipes else ():
                visit(part)
            done[name] = None

    visit(goal)
    return list(reversed(done))


def still_to_do(
    recipes: Mapping[str, Recipe],
    goal: tuple[str, int],
    held: Mapping[str, int],
    again: Mapping[str, int],
) -> dict[str, int]:
    """Return how much is left to do for a goal, each name before its parts.

    Args:
        recipes: one per item.
        goal: an item and how many of it.
        held: what there is already.
        again: crafts that have to be done once more per item, because they will break.

    Of an item it is the number of crafts, of a resource the number of pieces.
    """
    wanted: Counter[str] = Counter({goal[0]: goal[1]})
    work: dict[str, int] = {}
    for name in order_of(recipes, goal[0]):
        lack = max(0, wanted[name] - held.get(name, 0))
        if name not in recipes:
            work[name] = lack
            continue
        work[name] = -(-lack // recipes[name].makes) + again.get(name, 0)
        for part, count in recipes[name].parts:
            wanted[part] += count * work[name]
    return work


def worst_needs(book: Book, goal: tuple[str, int]) -> dict[str, int]:
    """Return how much of each resource suffices, however the breaks of an episode fall."""
    recipes = best_recipes(book)
    needs: dict[str, int] = {}
    for work in _courses(book, goal, recipes):
        for name, count in work.items():
            if name not in recipes:
                needs[name] = max(needs.get(name, 0), count)
    return needs


def num_steps(book: Book, goal: tuple[str, int]) -> tuple[int, int]:
    """Return the oracle's steps at best and at worst: looks at recipes, gathers, crafts.

    At best nothing breaks; at worst the costliest crafts do.
    """
    recipes = best_recipes(book)
    batches = {resource.name: resource.batch for resource in book.resources}
    steps = [
        sum(1 + n if name in recipes else -(-n // batches[name]) for name, n in work.items())
        for work in _courses(book, goal, recipes)
    ]
    return steps[0], max(steps)


def _courses(
    book: Book, goal: tuple[str, int], recipes: Mapping[str, Recipe]
) -> Iterator[dict[str, int]]:
    """Yield the work for a goal if nothing breaks, then for every way in which all breaks fall."""
    yield still_to_do(recipes, goal, {}, {})
    fragile = [n for n in order_of(recipes, goal[0]) if n in recipes and recipes[n].is_fragile]
    if fragile and book.breaks:
        for broken in combinations_with_replacement(fragile, book.breaks):
            yield still_to_do(recipes, goal, {}, Counter(broken))
