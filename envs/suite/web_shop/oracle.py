"""The scripted expert of the shop: looks at products in the order of the results until one fits.

It decides by what the pages have shown: a row of results by its price, rating and stock, a
product by its page, a review by its reading. It works from any state, and so mends a cart that
holds the wrong things. On a public file it knows the product it is after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from treegrpo.envs.suite.web_shop.catalogue import Product
from treegrpo.envs.suite.web_shop.files import FileGoal
from treegrpo.envs.suite.web_shop.goals import (
    Goal,
    Line,
    Pairs,
    Wish,
    best_coupons,
    can_meet,
    cheapest_shipping,
    points_of,
    same_text,
)
from treegrpo.envs.suite.web_shop.pages import FILTERS, ROWS, found_by
from treegrpo.envs.suite.web_shop.session import Place
from treegrpo.envs.suite.web_shop.site import Site


@dataclass(frozen=True)
class Step:
    """One tool call."""

    tool: str
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])


def next_step(site: Site, goal: Goal | FileGoal) -> Step:
    """Return the expert's next call for a session as it stands."""
    if isinstance(goal, FileGoal):
        return _file_step(site, goal)
    missing, wrong = _compare(site, goal)
    if wrong is not None:
        return click(f"remove {wrong + 1}") if _is_at(site, "cart") else goto("cart")
    if missing:
        return _shop_for(site, missing[0])
    return _check_out(site, goal)


def click(element: str) -> Step:
    """Return the call that clicks."""
    return Step("click", {"element": element})


def goto(page: str) -> Step:
    """Return the call that opens a page."""
    return Step("goto", {"page": page})


def _is_at(site: Site, page: str) -> bool:
    return site.session.place.page == page


def _compare(site: Site, goal: Goal) -> tuple[list[Wish], int | None]:
    """Return the wishes that nothing in the cart meets, and the place of a thing to remove."""
    missing, spare = list(goal.wishes), list[int]()
    for position, line in enumerate(site.session.cart):
        met = next((wish for wish in missing if _meets(site, wish, line)), None)
        if met is None:
            spare.append(position)
        else:
            missing.remove(met)
    return missing, spare[0] if spare else None


def _meets(site: Site, wish: Wish, line: Line) -> bool:
    return points_of(wish, site.shop.by_id[line.product], line.options) == wish.size


# One wanted thing: search, look, choose, take.


def _shop_for(site: Site, wish: Wish) -> Step:
    place = site.session.place
    if place.page in ("product", "reviews"):
        step = _look(site, wish, site.shop.by_id[place.product])
        if step is not None:
            return step
    if place.page != "results" or place.query != _query(wish):
        return _return_to_results(site, wish)
    wanted = {"4 stars"} if wish.min_stars == 4 else set[str]()
    for name in FILTERS:
        if (name in place.filters) != (name in wanted):
            return click(name)
    found = found_by(site.shop, place)
    for position, product in enumerate(found):
        if product.id not in site.session.seen and _looks_right(wish, product):
            return _open(place, position, product)
    # All were seen: the one that fits was left without being taken.
    position, product = next((n, p) for n, p in enumerate(found) if can_meet(wish, p))
    return _open(place, position, product)


def _query(wish: Wish) -> str:
    return " ".join((*wish.attributes, wish.kind))


def _looks_right(wish: Wish, product: Product) -> bool:
    """Return whether a row of results does not rule the product out."""
    is_cheap = wish.max_price is None or product.price <= wish.max_price
    is_good = wish.min_stars is None or (product.stars or 0) >= wish.min_stars
    return wish.kind in product.title.split() and is_cheap and is_good and not product.is_sold_out


def _open(place: Place, position: int, product: Product) -> Step:
    number = position // ROWS + 1
    if number == place.number:
        return click(product.id)
    return click("next" if number > place.number else "previous")


def _look(site: Site, wish: Wish, product: Product) -> Step | None:
    """Return what to do with an open product, or None to leave it."""
    page, reviews = site.session.place.page, f"{product.id}/reviews"
    without_praise = Wish(
        wish.kind, wish.attributes, wish.options, wish.max_price, wish.min_stars, None
    )
    if not can_meet(without_praise, product):
        return None
    if wish.praise is not None and reviews not in site.session.seen:
        return click("reviews")
    if not can_meet(wish, product):
        return None
    if page == "reviews":
        return click(product.id)
    return _choose(site, wish.options, product) or _take(site)


def _choose(site: Site, options: Pairs, product: Product) -> Step | None:
    """Return the next click that brings the chosen options closer to the wanted ones."""
    chosen = dict(site.session.options_of(product.id))
    wanted = dict(options)
    for name, move in site.page().links.items():
        if move[0] != "choose":
            continue
        option, text = move[1:]
        if option in wanted:
            is_next = text == wanted[option] != chosen.get(option)
        else:  # a second click takes back what somebody else chose
            is_next = text == chosen.get(option)
        if is_next:
            return click(name)
    return None


def _take(site: Site) -> Step:
    return click("add to cart" if site.rules.has_cart else "buy now")


def _return_to_results(site: Site, wish: Wish) -> Step:
    """Return a step back where the results were the page before, else the search."""
    history = site.session.history
    # From the reviews of a product it is two pages back.
    recent = [place for place in history[-2:] if place.page == "results"]
    is_product = site.session.place.page in ("product", "reviews")
    if is_product and recent and recent[-1].query == _query(wish):
        return Step("back")
    return Step("search", {"query": _query(wish)})


# The order as a whole.


def _check_out(site: Site, goal: Goal) -> Step:
    session, shop = site.session, site.shop
    if goal.is_best_coupon and "offers" not in session.seen:
        return goto("offers")
    if site.rules.account and not session.is_logged_in:
        return _log_in(site, site.rules.account)
    if not _is_at(site, "checkout"):
        return click("checkout") if _is_at(site, "cart") else goto("checkout")
    coupon = goal.coupon or ""
    if goal.is_best_coupon:
        coupon = best_coupons(session.cart, shop)[0]
    for name, wanted in (*goal.address, ("coupon", coupon)):
        if not same_text(session.fields.get(name, ""), wanted):
            return Step("type", {"field": name, "text": wanted})
    way = goal.shipping
    if goal.max_days is not None:
        way = cheapest_shipping(shop, goal.max_days)
    if way is not None and session.shipping != way:
        return click(way)
    return click("place order")


def _log_in(site: Site, account: tuple[str, str]) -> Step:
    if not _is_at(site, "login"):
        return click("checkout") if _is_at(site, "cart") else goto("checkout")
    for name, wanted in zip(("user", "password"), account, strict=True):
        if site.session.fields.get(name) != wanted:
            return Step("type", {"field": name, "text": wanted})
    return click("log in")


def _file_step(site: Site, goal: FileGoal) -> Step:
    """Search the product's title, open it, choose the options, buy."""
    place, product = site.session.place, site.shop.by_id[goal.product]
    if place.page == "product" and place.product == goal.product:
        return _choose(site, goal.choices(product), product) or _take(site)
    if place.page == "results" and goal.product in site.page().links:
        return click(goal.product)
    return goto(goal.product) if place.page == "results" else Step("search", {"query": goal.title})
