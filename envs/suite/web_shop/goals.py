"""What is wanted, what was ordered, and what share of the one the other meets.

The share counts points, after WebShop's score (arXiv 2207.01206): one for the kind of each
wanted thing and, if it is right, one for each attribute, option value, price limit, rating and
review asked for; one for each field of the address, the coupon and the shipping. Differences:
(1) the kind counts a point of its own; (2) words must be equal, not similar; (3) each thing
ordered that nobody wanted adds a point that cannot be earned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from treegrpo.envs.suite.web_shop.catalogue import Product, Shop

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Wish:
    """One wanted thing; options are pairs such as ("color", "red")."""

    kind: str
    attributes: tuple[str, ...] = ()
    options: Pairs = ()
    max_price: int | None = None
    min_stars: float | None = None
    praise: str | None = None

    @property
    def size(self) -> int:
        """The points that it is worth."""
        limits = (self.max_price, self.min_stars, self.praise)
        asked = sum(limit is not None for limit in limits)
        return 1 + len(self.attributes) + len(self.options) + asked


@dataclass(frozen=True)
class Goal:
    """All that an instruction asks for.

    `coupon` is a code, `is_best_coupon` asks for the one that saves the most; `shipping` is a
    name, `max_days` asks for the cheapest that arrives in time.
    """

    wishes: tuple[Wish, ...]
    address: Pairs = ()
    coupon: str | None = None
    is_best_coupon: bool = False
    shipping: str | None = None
    max_days: int | None = None

    @property
    def size(self) -> int:
        """The points that there are."""
        asked = (self.coupon, self.shipping, self.max_days)
        checks = sum(one is not None for one in asked) + self.is_best_coupon
        return sum(wish.size for wish in self.wishes) + len(self.address) + checks


@dataclass(frozen=True)
class Line:
    """One thing in a cart or an order, with the options chosen."""

    product: str
    options: Pairs = ()

    def __deepcopy__(self, memo: object) -> Line:
        """Return itself: it never changes."""
        return self


@dataclass(frozen=True)
class Order:
    """What was ordered; made once, at the end."""

    lines: tuple[Line, ...]
    address: Pairs = ()
    coupon: str | None = None
    shipping: str | None = None

    def __deepcopy__(self, memo: object) -> Order:
        """Return itself: it never changes."""
        return self


def share_met(goal: Goal, order: Order, shop: Shop) -> float:
    """Return the share of the goal's points that an order earns, 1.0 if and only if all."""
    earned = _best_match(goal.wishes, order.lines, shop)
    given = dict(order.address)
    earned += sum(same_text(given.get(name, ""), wanted) for name, wanted in goal.address)
    if goal.coupon is not None:
        earned += order.coupon == goal.coupon
    if goal.is_best_coupon:
        earned += order.coupon is not None and order.coupon in best_coupons(order.lines, shop)
    if goal.shipping is not None:
        earned += order.shipping == goal.shipping
    if goal.max_days is not None:
        earned += order.shipping == cheapest_shipping(shop, goal.max_days)
    return earned / (goal.size + max(0, len(order.lines) - len(goal.wishes)))


def points_of(wish: Wish, product: Product, options: Pairs) -> int:
    """Return the points that one thing earns; none if it is of another kind."""
    if product.kind != wish.kind:
        return 0
    chosen = dict(options)
    points = 1 + sum(attribute in product.attributes for attribute in wish.attributes)
    points += sum(chosen.get(name) == text for name, text in wish.options)
    if wish.max_price is not None:
        points += product.price_with(chosen) <= wish.max_price
    if wish.min_stars is not None:
        points += product.stars is not None and product.stars >= wish.min_stars
    if wish.praise is not None:
        points += wish.praise in product.praise
    return points


def can_meet(wish: Wish, product: Product) -> bool:
    """Return whether the product, with the wanted options, is there and earns all points."""
    values = [product.value(name, text) for name, text in wish.options]
    if product.is_sold_out or any(value is None or value.is_sold_out for value in values):
        return False
    return points_of(wish, product, wish.options) == wish.size


def best_coupons(lines: Sequence[Line], shop: Shop) -> list[str]:
    """Return the codes that save the most on these things; none if no coupon is valid."""
    saves = {code: coupon_saving(code, lines, shop) for code in shop.offers}
    most = max(saves.values(), default=0)
    return [code for code, saved in saves.items() if saved == most and saved > 0]


def coupon_saving(code: str, lines: Sequence[Line], shop: Shop) -> int:
    """Return what a coupon saves on these things: 0 if it is unknown or not valid."""
    offer = shop.offers.get(code)
    kinds = [shop.by_id[line.product].kind for line in lines]
    return 0 if offer is None else offer.saving(total_of(lines, shop), kinds)


def total_of(lines: Sequence[Line], shop: Shop) -> int:
    """Return the price of all things together."""
    return sum(shop.by_id[line.product].price_with(dict(line.options)) for line in lines)


def cheapest_shipping(shop: Shop, max_days: int) -> str | None:
    """Return the name of the cheapest shipping that takes at most so many days."""
    in_time = [way for way in shop.shippings.values() if way.days <= max_days]
    return min(in_time, key=lambda way: way.price).name if in_time else None


def same_text(given: str, wanted: str) -> bool:
    """Return whether two texts are equal but for case and spaces."""
    return given.lower().split() == wanted.lower().split()


def _best_match(wishes: Sequence[Wish], lines: Sequence[Line], shop: Shop) -> int:
    """Return the most points over all ways to give each wish a line of its own."""
    table = [
        [points_of(wish, shop.by_id[line.product], line.options) for line in lines]
        for wish in wishes
    ]
    places = list(range(len(lines))) + [-1] * max(0, len(wishes) - len(lines))
    return max(
        sum(row[place] for row, place in zip(table, way, strict=True) if place >= 0)
        for way in permutations(places, len(wishes))
    )
