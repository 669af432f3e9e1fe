"""A shop and what it sells: immutable, shared by every episode and every fork.

Money is in whole cents. Search is BM25 over titles, kinds, features and descriptions, ties
broken by the product's position, so the same words give the same list everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import bm25s  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

MAX_FOUND = 50
"""How many products a search gives at most."""


@dataclass(frozen=True)
class Value:
    """One value of an option, such as the colour red: what it adds to the price, if it is there."""

    text: str
    extra: int = 0
    is_sold_out: bool = False


@dataclass(frozen=True)
class Review:
    """What a buyer wrote."""

    stars: float
    text: str


@dataclass(frozen=True)
class Product:
    """One product as the shop knows it.

    `kind` is what it is (a kettle); `attributes` is what the score compares, `features` what
    its page says; `praise` are words that stand in its reviews only.
    """

    id: str
    title: str
    kind: str
    price: int
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[Value, ...]]
    features: tuple[str, ...] = ()
    stars: float | None = None
    reviews: tuple[Review, ...] = ()
    praise: tuple[str, ...] = ()
    description: str = ""
    categories: tuple[str, ...] = ()
    is_sold_out: bool = False

    def value(self, option: str, text: str) -> Value | None:
        """Return the value of an option, or None if the product does not come so."""
        return next((v for v in self.options.get(option, ()) if v.text == text), None)

    def price_with(self, chosen: Mapping[str, str]) -> int:
        """Return the price with the chosen values' extras."""
        values = (self.value(option, text) for option, text in chosen.items())
        return self.price + sum(value.extra for value in values if value is not None)


@dataclass(frozen=True)
class Offer:
    """A coupon: what it saves, and what it asks of the cart."""

    code: str
    saves: int
    from_total: int = 0
    kind: str | None = None

    def saving(self, total: int, kinds: Sequence[str]) -> int:
        """Return what it saves on a cart of that total and those kinds: 0 if it is not valid."""
        fits = total >= self.from_total and (self.kind is None or self.kind in kinds)
        return self.saves if fits else 0


@dataclass(frozen=True)
class Shipping:
    """A way to have an order sent."""

    name: str
    days: int
    price: int


class Shop:
    """Products, coupons and ways of shipping; nothing of it ever changes."""

    def __init__(
        self,
        products: Sequence[Product],
        offers: Sequence[Offer] = (),
        shippings: Sequence[Shipping] = (),
    ) -> None:
        """Keep the parts; the index is built by the first search."""
        self.products = tuple(products)
        self.offers = {offer.code: offer for offer in offers}
        self.shippings = {shipping.name: shipping for shipping in shippings}
        self.by_id = {product.id: product for product in self.products}
        # Siblings of a fork repeat each other's searches a great deal.
        self._cached = functools.lru_cache(maxsize=4096)(self._search)

    def search(self, query: str) -> tuple[Product, ...]:
        """Return the best products for the words of a query, best first."""
        return self._cached(query)

    @functools.cached_property
    def _bm25(self) -> Any | None:
        """The index, or None if no product has a word to be found by."""
        tokens = _tokens([_words_of(product) for product in self.products])
        if not any(tokens):
            return None
        index: Any = bm25s.BM25()
        index.index(tokens, show_progress=False)
        return index

    def _search(self, query: str) -> tuple[Product, ...]:
        index = self._bm25
        if index is None:
            return ()
        words = [word for word in _tokens([query])[0] if word in index.vocab_dict]
        if not words:
            return ()
        scores = cast("np.ndarray[Any, np.dtype[np.float32]]", index.get_scores(words))
        order = np.lexsort((np.arange(len(scores)), -scores))[:MAX_FOUND]
        return tuple(self.products[int(i)] for i in order if scores[i] > 0)


def money(cents: int) -> str:
    """Return an amount as text: $7, $7.50, -$3."""
    sign, whole, rest = "-" if cents < 0 else "", abs(cents) // 100, abs(cents) % 100
    return f"{sign}${whole}.{rest:02d}" if rest else f"{sign}${whole}"


def rating(stars: float) -> str:
    """Return a rating as text: 1 star, 4.5 stars."""
    return "1 star" if stars == 1 else f"{stars:g} stars"


def _words_of(product: Product) -> str:
    parts = (product.title, product.kind, *product.features, product.description)
    return " ".join(parts)


def _tokens(texts: list[str]) -> list[list[str]]:
    return cast(
        "list[list[str]]",
        bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False),  # pyright: ignore[reportUnknownMemberType]
    )
