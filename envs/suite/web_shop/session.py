"""What a visit to the shop has come to: where one is, what is chosen, in the cart, typed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from treegrpo.envs.suite.web_shop.goals import Line, Order, Pairs

PageName = Literal[
    "home", "results", "product", "reviews", "description", "cart", "offers", "login", "checkout"
]
MAX_HISTORY = 12
"""How many pages back() can go back."""
MAX_LINES = 6
"""How many things fit into the cart."""
MAX_FIELD_CHARS = 80


@dataclass(frozen=True)
class Place:
    """A page one can be at; results have a query, a number and filters, others a product."""

    page: PageName = "home"
    product: str = ""
    query: str = ""
    number: int = 1
    filters: tuple[str, ...] = ()

    def __deepcopy__(self, memo: object) -> Place:
        """Return itself: it never changes."""
        return self


@dataclass(frozen=True)
class Rules:
    """How the shop of a task sells.

    Without a cart, one click on a product's page orders it. With an account, checkout is open
    only to those who have logged in.
    """

    has_cart: bool = False
    account: tuple[str, str] | None = None


@dataclass
class Session:
    """The state of an episode.

    `chosen` holds the options chosen on each product's page, `fields` what was typed,
    `seen` the pages of products, their reviews and the offers that were shown.
    """

    place: Place = field(default_factory=Place)
    history: list[Place] = field(default_factory=list[Place])
    chosen: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    cart: list[Line] = field(default_factory=list[Line])
    fields: dict[str, str] = field(default_factory=dict[str, str])
    shipping: str | None = None
    is_logged_in: bool = False
    order: Order | None = None
    seen: list[str] = field(default_factory=list[str])

    def go(self, place: Place) -> None:
        """Move to a page; back() leads to the present one."""
        if place != self.place:
            self.history.append(self.place)
            del self.history[:-MAX_HISTORY]
            self.place = place

    def note(self, page: str) -> None:
        """Note that a page was shown."""
        if page not in self.seen:
            self.seen.append(page)

    def options_of(self, product: str) -> Pairs:
        """Return the options chosen for a product, in the order of their names."""
        return tuple(sorted(self.chosen.get(product, {}).items()))
