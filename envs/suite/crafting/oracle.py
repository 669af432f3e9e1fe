"""The scripted expert: looks up every recipe on the way to the goal, gathers, then crafts.

It uses what `recipes` shows and nothing else, and counts anew before each call, so it goes on
from any state, breaks and wasted parts included, as long as the stocks allow it.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.envs.suite.crafting.book import Book, Workshop
from treegrpo.envs.suite.crafting.plan import best_recipes, order_of, still_to_do

Call = tuple[str, dict[str, str]]


def next_call(book: Book, shop: Workshop, goal: tuple[str, int], looked_up: Sequence[str]) -> Call:
    """Return the expert's next tool and arguments.

    Args:
        book: of the task.
        shop: as it stands; only read.
        goal: an item and how many of it.
        looked_up: the names whose recipes were asked for so far.

    Where the goal is out of reach it gathers in vain, or looks at the inventory.
    """
    recipes = best_recipes(book)
    for name in order_of(recipes, goal[0]):
        if name in recipes and name not in looked_up:
            return "recipes", {"item": name}
    work = still_to_do(recipes, goal, shop.held, {})
    for name in reversed(work):  # parts before what is made of them
        if work[name]:
            return ("craft", {"item": name}) if name in recipes else ("gather", {"resource": name})
    return "inventory", {}
