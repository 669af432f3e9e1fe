"""Random shops: 240 products of 16 kinds, three coupons, three ways of shipping.

Everything follows from the shop's number. Which numbers belong to which split is fixed, so a
product seen in training is never sold in a test shop.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.suite.web_shop.catalogue import Offer, Product, Review, Shipping, Shop, Value
from treegrpo.envs.suite.web_shop.draws import Draws

SHOPS: Mapping[str, range] = {
    "train": range(64),
    "validation": range(64, 80),
    "test": range(80, 112),
}
"""The numbers of the shops of each split."""
PRODUCTS_PER_KIND = 15


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


@dataclass(frozen=True)
class Family:
    """Kinds that share their attributes and options."""

    kinds: tuple[str, ...]
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]


COLORS = listed("red blue green black white gray")
SIZES = listed("small medium large")
FAMILIES = (
    Family(
        listed("kettle lamp pan stool"),
        listed("steel wooden ceramic compact foldable quiet"),
        {"color": COLORS, "size": SIZES},
    ),
    Family(
        listed("shirt jacket scarf boots"),
        listed("cotton woolen linen waterproof lined stretchy"),
        {"color": COLORS, "size": SIZES},
    ),
    Family(
        listed("tent backpack bottle hammock"),
        listed("light padded insulated recycled waterproof foldable"),
        {"color": COLORS, "size": SIZES},
    ),
    Family(
        listed("keyboard headphones speaker mouse"),
        listed("wireless silent slim backlit recycled portable"),
        {"color": COLORS, "plug": listed("usb jack bluetooth")},
    ),
)
FAMILY_OF = {kind: family for family in FAMILIES for kind in family.kinds}
BRANDS = listed("Arlo Besta Corvo Dunmar Eldi Fenwa Gorlan Hilva Irmo Juno Kasko Lunda")
PRAISE = listed("sturdy pretty handy reliable comfortable")
COMPLAINTS = ("The box was torn.", "It came late.", "I expected more.")
CODES = listed("FERN TULIP MAPLE CLOVER ASTER BIRCH")
WAYS = listed("slow normal fast")


@functools.lru_cache(maxsize=112)
def build_shop(number: int) -> Shop:
    """Return shop `number`, the same in every process."""
    draws = Draws(np.random.default_rng(stable_seed("WebShop", number)))
    kinds = list(FAMILY_OF) * PRODUCTS_PER_KIND
    codes = draws.some(range(100, 1000), len(kinds))
    products = [
        _product(draws, f"p{code}", kind)
        for code, kind in zip(codes, draws.some(kinds, len(kinds)), strict=True)
    ]
    return Shop(products, _offers(draws), _shippings(draws))


def _product(draws: Draws, id: str, kind: str) -> Product:
    """Return a random product; the first of its three attributes stands in its title."""
    family = FAMILY_OF[kind]
    attributes = draws.some(family.attributes, 3)
    praise = draws.some(PRAISE, 1)
    is_sold_out = draws.chance(0.08)
    return Product(
        id=id,
        title=f"{attributes[0]} {kind} {draws.pick(BRANDS)}",
        kind=kind,
        price=100 * draws.between(8, 60),
        attributes=tuple(attributes),
        options={name: _values(draws, texts) for name, texts in family.options.items()},
        features=tuple(attributes),
        stars=draws.between(5, 10) / 2,
        reviews=(
            Review(float(draws.between(4, 5)), f"Very {praise[0]}."),
            Review(float(draws.between(1, 3)), draws.pick(COMPLAINTS)),
        ),
        praise=tuple(praise),
        is_sold_out=is_sold_out,
    )


def _values(draws: Draws, texts: tuple[str, ...]) -> tuple[Value, ...]:
    """Return three values in the list's order: one in four costs extra, one in seven is gone."""
    chosen = sorted(draws.some(range(len(texts)), 3))
    return tuple(
        Value(
            texts[i],
            extra=100 * draws.between(3, 9) if draws.chance(0.25) else 0,
            is_sold_out=draws.chance(0.15),
        )
        for i in chosen
    )


def _offers(draws: Draws) -> tuple[Offer, ...]:
    """Return a coupon without a condition, one from a total, one for a kind."""
    codes = [f"{name}{draws.between(2, 9)}" for name in draws.some(CODES, 3)]
    low, middle, high = (100 * draws.between(*span) for span in ((2, 3), (4, 6), (7, 9)))
    return (
        Offer(codes[0], low),
        Offer(codes[1], high, from_total=1000 * draws.between(5, 12)),
        Offer(codes[2], middle, kind=draws.pick(list(FAMILY_OF))),
    )


def _shippings(draws: Draws) -> tuple[Shipping, ...]:
    """Return three ways; the faster one costs more."""
    days = (draws.between(6, 9), draws.between(3, 5), draws.between(1, 2))
    prices = (draws.between(0, 3), draws.between(4, 7), draws.between(8, 14))
    return tuple(
        Shipping(name, day, 100 * price)
        for name, day, price in zip(WAYS, days, prices, strict=True)
    )
