"""The rules of crafting: a book of recipes, and what gathering and crafting do to a workshop.

The book never changes and is shared by every fork; the workshop is an episode's state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

BREAK_CHANCE = 0.3
"""How often a fragile craft breaks, while the episode's breaks last."""
Amounts = tuple[tuple[str, int], ...]


class CraftError(ValueError):
    """A call that does nothing; the text is meant for the agent."""


@dataclass(frozen=True)
class Recipe:
    """What one craft of an item uses up and how many it makes; a fragile one may break."""

    item: str
    parts: Amounts
    makes: int = 1
    is_fragile: bool = False


@dataclass(frozen=True)
class Resource:
    """What is gathered: at most `batch` at a time, `stock` in all."""

    name: str
    batch: int
    stock: int


@dataclass(frozen=True)
class Book:
    """Every recipe and resource of a task; no name is both an item and a resource.

    `breaks` is how many fragile crafts of an episode break at most.
    """

    recipes: tuple[Recipe, ...]
    resources: tuple[Resource, ...]
    breaks: int = 0

    @property
    def items(self) -> list[str]:
        """The names of the items, each once, in the order of their recipes."""
        return list(dict.fromkeys(recipe.item for recipe in self.recipes))

    def recipes_of(self, item: str) -> list[Recipe]:
        """Return the recipes that make an item; none for a resource.

        Raises:
            CraftError: no such item.
        """
        found = [recipe for recipe in self.recipes if recipe.item == item]
        if not found and all(resource.name != item for resource in self.resources):
            raise CraftError(f"nothing is called '{item[:40]}'")
        return found

    def resource(self, name: str) -> Resource:
        """Return the resource of that name.

        Raises:
            CraftError: no such resource, or an item.
        """
        for resource in self.resources:
            if resource.name == name:
                return resource
        self.recipes_of(name)
        raise CraftError(f"'{name}' cannot be gathered; craft it")


@dataclass(slots=True)
class Workshop:
    """An episode's state: what is held, what is left to gather, the breaks still to come."""

    held: dict[str, int] = field(default_factory=dict[str, int])
    left: dict[str, int] = field(default_factory=dict[str, int])
    breaks_left: int = 0


def open_workshop(book: Book) -> Workshop:
    """Return an empty workshop with all resources still to be gathered."""
    return Workshop({}, {resource.name: resource.stock for resource in book.resources}, book.breaks)


def gather(book: Book, shop: Workshop, name: str) -> str:
    """Move one batch of a resource, or what is left of it, to what is held; return the reply.

    Raises:
        CraftError: no resource of that name, or none left.
    """
    resource = book.resource(name)
    count = min(resource.batch, shop.left[name])
    if not count:
        raise CraftError(f"no {name} is left to gather")
    shop.left[name] -= count
    shop.held[name] = shop.held.get(name, 0) + count
    return f"Gathered {count} {name}, {shop.left[name]} left."


def craft(book: Book, shop: Workshop, item: str, rng: np.random.Generator) -> str:
    """Craft an item once and return the reply; the parts are gone whatever comes of it.

    Of several recipes the first is taken whose parts are all held. If there is none, the held
    parts of the first recipe are spoiled.

    Raises:
        CraftError: nothing that can be crafted, or not one part is held: nothing changes.
    """
    recipes = book.recipes_of(item)
    if not recipes:
        raise CraftError(f"'{item}' cannot be crafted; gather it")
    for recipe in recipes:
        if all(shop.held.get(part, 0) >= count for part, count in recipe.parts):
            return _complete(shop, recipe, rng)
    return _spoil(shop, recipes[0])


def _complete(shop: Workshop, recipe: Recipe, rng: np.random.Generator) -> str:
    _take(shop, recipe.parts)
    if recipe.is_fragile and shop.breaks_left and rng.random() < BREAK_CHANCE:
        shop.breaks_left -= 1
        return f"It broke: {listed(recipe.parts)} lost."
    shop.held[recipe.item] = shop.held.get(recipe.item, 0) + recipe.makes
    return f"Made {recipe.makes} {recipe.item}."


def _spoil(shop: Workshop, recipe: Recipe) -> str:
    held = [(part, min(count, shop.held.get(part, 0))) for part, count in recipe.parts]
    lacks = [
        (part, count - has) for (part, count), (_, has) in zip(recipe.parts, held, strict=True)
    ]
    missing = listed((part, count) for part, count in lacks if count)
    lost = tuple((part, count) for part, count in held if count)
    if not lost:
        raise CraftError(f"{missing} missing, and no part is held")
    _take(shop, lost)
    return f"Failed: {missing} missing, {listed(lost)} spoiled."


def _take(shop: Workshop, parts: Amounts) -> None:
    for part, count in parts:
        shop.held[part] -= count
        if not shop.held[part]:
            del shop.held[part]


def describe(book: Book, shop: Workshop, name: str) -> str:
    """Return a line for each recipe of an item, or a line on a resource.

    Raises:
        CraftError: no such name.
    """
    recipes = book.recipes_of(name)
    if not recipes:
        return f"{name}: gather {book.resource(name).batch} at a time, {shop.left[name]} left."
    raw = {resource.name for resource in book.resources}
    lines: list[str] = []
    for recipe in recipes:
        parts = (
            f"{count} {part} ({'gather' if part in raw else 'craft'})"
            for part, count in recipe.parts
        )
        fragile = " Fragile." if recipe.is_fragile else ""
        lines.append(f"{name}: {', '.join(parts)}. Makes {recipe.makes}.{fragile}")
    return "\n".join(lines)


def listed(amounts: Iterable[tuple[str, int]]) -> str:
    """Return "2 clay, 1 rope" for amounts, "nothing" for none."""
    return ", ".join(f"{count} {name}" for name, count in amounts) or "nothing"
