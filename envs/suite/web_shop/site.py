"""The shop's site: what search, click, type, back and goto do to a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from treegrpo.envs.errors import suggest
from treegrpo.envs.suite.web_shop.catalogue import Shop
from treegrpo.envs.suite.web_shop.goals import Line, Order, coupon_saving
from treegrpo.envs.suite.web_shop.pages import ADDRESS, FILTERS, Page, page_of
from treegrpo.envs.suite.web_shop.session import (
    MAX_FIELD_CHARS,
    MAX_LINES,
    PageName,
    Place,
    Rules,
    Session,
)

ORDERED = "Order placed."
MAX_NAMED = 12
"""How many clickable things an error message names."""


class SiteError(ValueError):
    """Something that cannot be done on this page; the text is meant for the agent."""


class Site:
    """One shop as one session sees it; holds nothing of its own."""

    def __init__(self, shop: Shop, rules: Rules, session: Session) -> None:
        """Borrow the session: every action changes it."""
        self.shop, self.rules, self.session = shop, rules, session

    def page(self) -> Page:
        """Return the page the session is at."""
        return page_of(self.shop, self.rules, self.session)

    def search(self, query: str) -> None:
        """Show the first page of results."""
        words = " ".join(query.split())[:MAX_FIELD_CHARS]
        if not words:
            raise SiteError("the search is empty; give words such as the name of a thing")
        self.session.go(Place("results", query=words))

    def click(self, element: str) -> None:
        """Do what the named element of the page does.

        Raises:
            SiteError: no such element here, or it refuses.
        """
        links = self.page().links
        said = " ".join(element.split()).lower()
        bare = said.removeprefix("[").removesuffix("]").strip()
        name = next((name for name in links if name.lower() in (said, bare)), None)
        if name is None:
            known = ", ".join(f"[{name}]" for name in list(links)[:MAX_NAMED]) or "nothing"
            raise SiteError(f"there is no [{element[:40]}] here; this page has {known}")
        verb, *rest = links[name]
        _VERBS[verb](self, *rest)

    def type_in(self, field: str, text: str) -> None:
        """Fill a field of the page; what was in it is replaced."""
        fields = self.page().fields
        wanted = field.strip().removeprefix("<").removesuffix(">").strip().lower()
        if wanted not in fields:
            known = ", ".join(f"<{name}>" for name in fields) or "no field"
            raise SiteError(f"there is no <{field[:40]}> here; this page has {known}")
        clean = " ".join(text.split())[:MAX_FIELD_CHARS]
        self.session.fields[wanted] = clean.upper() if wanted == "coupon" else clean

    def back(self) -> None:
        """Return to the page before."""
        if not self.session.history:
            raise SiteError("there is no page to go back to")
        self.session.place = self.session.history.pop()

    def goto(self, page: str) -> None:
        """Open a page by its name, or a product by its id."""
        name = page.strip().removeprefix("[").removesuffix("]")
        product = self.shop.by_id.get(name) or self.shop.by_id.get(name.lower())
        if product is not None:
            _open(self, product.id)
            return
        known = ["home", "cart", "checkout"] if self.rules.has_cart else ["home"]
        known += ["offers"] if self.rules.has_cart and self.shop.offers else []
        known += ["login"] if self.rules.account else []
        name = name.lower()
        if name not in known:
            hint = suggest(name[:40], known)
            raise SiteError(
                f"there is no page '{name[:40]}'; pages are {', '.join(known)}, or a product's "
                f"id.{hint}"
            )
        if name == "checkout" and not self.session.cart:
            raise SiteError("the cart is empty; add something before checkout")
        if name == "checkout" and self.rules.account and not self.session.is_logged_in:
            name = "login"
        self.session.go(Place(cast("PageName", name)))
        if name == "offers":
            self.session.note(name)


# What clicks do.


def _open(site: Site, product: str) -> None:
    site.session.go(Place("product", product=product))
    site.session.note(product)


def _read(site: Site, page: str) -> None:
    product = site.session.place.product
    site.session.go(Place(cast("PageName", page), product=product))
    site.session.note(f"{product}/{page}")


def _page(site: Site, number: str) -> None:
    site.session.go(replace(site.session.place, number=int(number)))


def _filter(site: Site, name: str) -> None:
    on = set(site.session.place.filters) ^ {name}
    filters = tuple(known for known in FILTERS if known in on)
    site.session.go(replace(site.session.place, number=1, filters=filters))


def _choose(site: Site, option: str, text: str) -> None:
    """Choose a value; a second click on it takes the choice back."""
    chosen = site.session.chosen.setdefault(site.session.place.product, {})
    if chosen.get(option) == text:
        del chosen[option]
    else:
        chosen[option] = text


def _line(site: Site) -> Line:
    product = site.session.place.product
    return Line(product, site.session.options_of(product))


def _add(site: Site) -> None:
    if len(site.session.cart) >= MAX_LINES:
        raise SiteError(f"the cart is full with {MAX_LINES} things; remove one first")
    site.session.cart.append(_line(site))
    site.session.go(Place("cart"))


def _remove(site: Site, number: str) -> None:
    del site.session.cart[int(number) - 1]


def _login(site: Site) -> None:
    given = (site.session.fields.get("user", ""), site.session.fields.get("password", ""))
    if given != site.rules.account:
        raise SiteError("user or password is wrong; type both as you were given them")
    site.session.is_logged_in = True
    site.session.go(Place("checkout" if site.session.cart else "home"))


def _ship(site: Site, way: str) -> None:
    site.session.shipping = way


def _buy(site: Site) -> None:
    site.session.order = Order((_line(site),))


def _order(site: Site) -> None:
    """Place the order, final, if the form is complete."""
    session = site.session
    missing = [name for name in ADDRESS if not session.fields.get(name)]
    if missing:
        raise SiteError(f"type something into {', '.join(f'<{name}>' for name in missing)}")
    if session.shipping is None:
        raise SiteError(f"click a shipping: {', '.join(f'[{w}]' for w in site.shop.shippings)}")
    code = session.fields.get("coupon", "") or None
    if code is not None and not coupon_saving(code, session.cart, site.shop):
        raise SiteError(f"coupon '{code}' is not valid for this cart; type another or nothing")
    if not session.cart:
        raise SiteError("the cart is empty; add something first")
    address = tuple((name, session.fields[name]) for name in ADDRESS)
    session.order = Order(tuple(session.cart), address, code, session.shipping)


_VERBS: Mapping[str, Callable[..., None]] = {
    "open": _open,
    "read": _read,
    "page": _page,
    "filter": _filter,
    "choose": _choose,
    "add": _add,
    "remove": _remove,
    "login": _login,
    "ship": _ship,
    "buy": _buy,
    "order": _order,
    "goto": Site.goto,
}
