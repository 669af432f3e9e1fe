"""An instruction from WebShop's public files, and what share of it an order meets.

The score follows WebShop (arXiv 2207.01206, section 3): attributes, options and the price
limit count a point each, and the share is multiplied by how well the type of the product
matches. Differences: (1) two texts match when the words of one are all in the other, in place
of a fuzzy ratio above 85; (2) all but the little words of titles are compared, in place of the
nouns that a parser finds; (3) a wanted option counts once, however many chosen ones match it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from treegrpo.envs.suite.web_shop.catalogue import Product, Shop
from treegrpo.envs.suite.web_shop.goals import Order, Pairs

EXACT_OPTIONS = frozenset({"size"})
LITTLE_WORDS = frozenset(
    ("a", "an", "and", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with")
)
"""What does not tell the type of a product."""


@dataclass(frozen=True)
class FileGoal:
    """One instruction; `options` are values, as the files give them, of unnamed options."""

    id: str
    text: str
    product: str
    title: str
    kind: str
    categories: tuple[str, ...]
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    max_price: int | None

    def choices(self, product: Product) -> Pairs:
        """Return the (option, value) pairs of the product that meet wanted options."""
        found: dict[str, str] = {}
        for wanted in self.options:
            for name, values in product.options.items():
                texts = [value.text for value in values if not value.is_sold_out]
                exact = [text for text in texts if text == wanted]
                alike = [text for text in texts if _is_option_met(name, text, wanted)]
                if name not in found and (exact or alike):
                    found[name] = (exact or alike)[0]
                    break
        return tuple(found.items())


def file_share(goal: FileGoal, order: Order, shop: Shop) -> float:
    """Return the share of the instruction that the order's one product meets, 0 to 1."""
    line = order.lines[0]
    product, chosen = shop.by_id[line.product], dict(line.options)
    points = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
    points += sum(
        any(_is_option_met(name, text, wanted) for name, text in chosen.items())
        for wanted in goal.options
    )
    of = len(goal.attributes) + len(goal.options)
    if goal.max_price is not None:
        points, of = points + (product.price_with(chosen) <= goal.max_price), of + 1
    return _type_share(goal, product) * (points / of)


def _type_share(goal: FileGoal, product: Product) -> float:
    """Return 1 for the same type, less for a title of other words (0, 0.1 or 0.5)."""
    wanted = _words(goal.title) - LITTLE_WORDS
    share = len(wanted & _words(product.title)) / len(wanted) if wanted else 0.2
    is_same = product.id == goal.product or (goal.kind != "" and product.kind == goal.kind)
    is_near = len(set(goal.categories) & set(product.categories)) >= 2
    if share == 0.0:
        return 0.0
    if share < 0.1:
        return 0.1
    return 1.0 if is_same or is_near or share > 0.2 else 0.5


def _has_attribute(product: Product, wanted: str) -> bool:
    if any(_is_like(attribute, wanted) for attribute in product.attributes):
        return True
    text = " ".join((product.title, *product.features, product.description)).lower()
    return wanted.lower() in text


def _is_option_met(name: str, text: str, wanted: str) -> bool:
    if name.lower() in EXACT_OPTIONS:
        return text.lower() == wanted.lower()
    return _is_like(text, wanted)


def _is_like(one: str, other: str) -> bool:
    """Return whether the words of one text are all in the other."""
    words, others = _words(one), _words(other)
    return bool(words and others) and (words <= others or others <= words)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
