"""The pages of the shop as short texts, with what can be clicked and typed on each.

`[name]` can be clicked, `<name>` is a field. Names are unique on a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from treegrpo.envs.suite.web_shop.catalogue import Product, Shop, money, rating
from treegrpo.envs.suite.web_shop.goals import coupon_saving, total_of
from treegrpo.envs.suite.web_shop.session import PageName, Place, Rules, Session

ROWS = 5
"""How many products a page of results shows."""
ADDRESS = ("name", "street", "city")
MAX_FEATURES_CHARS = 400
Move = tuple[str, ...]

FILTERS: Mapping[str, Callable[[Product], bool]] = {
    "max 20": lambda product: product.price <= 2000,
    "max 40": lambda product: product.price <= 4000,
    "4 stars": lambda product: product.stars is not None and product.stars >= 4,
    "in stock": lambda product: not product.is_sold_out,
}
"""What narrows a search; a click switches one on or off."""


@dataclass
class Page:
    """A page: its lines, what each click does, and its fields."""

    lines: list[str]
    links: dict[str, Move] = field(default_factory=dict[str, Move])
    fields: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The page as the agent sees it."""
        return "\n".join(self.lines)

    def link(self, name: str, *move: str) -> str:
        """Return the text of something that can be clicked, and note what it does."""
        self.links[name] = move
        return f"[{name}]"


def page_of(shop: Shop, rules: Rules, session: Session) -> Page:
    """Return the page that the session is at."""
    page = _MAKERS[session.place.page](shop, rules, session)
    if rules.has_cart and session.place.page not in ("cart", "checkout", "login"):
        page.lines.append(f"{page.link('cart', 'goto', 'cart')} {len(session.cart)}")
    return page


def found_by(shop: Shop, place: Place) -> list[Product]:
    """Return all products of a page of results and its neighbours."""
    found = shop.search(place.query)
    return [p for p in found if all(FILTERS[name](p) for name in place.filters)]


def price_tag(product: Product) -> str:
    """Return price, rating and whether it is sold out, as a row of results shows them."""
    parts = [money(product.price)]
    parts += [rating(product.stars)] if product.stars is not None else []
    parts += ["sold out"] if product.is_sold_out else []
    return ", ".join(parts)


def _home(shop: Shop, rules: Rules, session: Session) -> Page:
    page = Page(["Welcome to the shop. Use search."])
    if shop.offers and rules.has_cart:
        page.lines.append(page.link("offers", "goto", "offers"))
    return page


def _results(shop: Shop, rules: Rules, session: Session) -> Page:
    place = session.place
    found = found_by(shop, place)
    pages = max(1, -(-len(found) // ROWS))
    page = Page([f'Results for "{place.query}", page {place.number} of {pages}'])
    for product in found[(place.number - 1) * ROWS : place.number * ROWS]:
        link = page.link(product.id, "open", product.id)
        page.lines.append(f"{link} {product.title}, {price_tag(product)}")
    if not found:
        page.lines.append("Nothing found.")
    turns: list[str] = []
    if place.number > 1:
        turns.append(page.link("previous", "page", str(place.number - 1)))
    if place.number < pages:
        turns.append(page.link("next", "page", str(place.number + 1)))
    filters = [
        page.link(name, "filter", name) + (" on" if name in place.filters else "")
        for name in FILTERS
    ]
    page.lines.append(" ".join([*turns, "filter:", *filters]))
    return page


def _product(shop: Shop, rules: Rules, session: Session) -> Page:
    product = shop.by_id[session.place.product]
    page = Page([f"{product.id}: {product.title}, {price_tag(product)}"])
    if product.features:
        features = ", ".join(product.features)
        is_long = len(features) > MAX_FEATURES_CHARS
        page.lines.append(f"Features: {features[:MAX_FEATURES_CHARS]}{'...' if is_long else ''}")
    page.lines += _options(page, product)
    chosen = session.options_of(product.id)
    if chosen:
        texts = ", ".join(f"{name} {text}" for name, text in chosen)
        page.lines.append(f"Chosen: {texts}. Price: {money(product.price_with(dict(chosen)))}")
    buttons: list[str] = []
    if not product.is_sold_out:
        buy = ("add to cart", "add") if rules.has_cart else ("buy now", "buy")
        buttons.append(page.link(*buy))
    if product.reviews:
        buttons.append(page.link("reviews", "read", "reviews"))
    if product.description:
        buttons.append(page.link("description", "read", "description"))
    page.lines.append(" ".join(buttons))
    return page


def _options(page: Page, product: Product) -> Iterable[str]:
    """Yield a line for each option, its values clickable unless they are sold out."""
    count = Counter(value.text for values in product.options.values() for value in values)
    taken = {"add to cart", "buy now", "reviews", "description", "cart"}
    for option, values in product.options.items():
        shown: list[str] = []
        for value in values:
            is_unique = count[value.text] == 1 and value.text not in taken
            name = value.text if is_unique else f"{option}: {value.text}"
            extra = f" +{money(value.extra)}" if value.extra else ""
            if value.is_sold_out:
                shown.append(f"{name} sold out")
            else:
                shown.append(page.link(name, "choose", option, value.text) + extra)
        yield f"{option}: {', '.join(shown)}"


def _reviews(shop: Shop, rules: Rules, session: Session) -> Page:
    product = shop.by_id[session.place.product]
    page = Page([f"Reviews of {product.title}"])
    page.lines += [f"{rating(review.stars)}: {review.text}" for review in product.reviews]
    page.lines.append(page.link(product.id, "open", product.id))
    return page


def _description(shop: Shop, rules: Rules, session: Session) -> Page:
    product = shop.by_id[session.place.product]
    page = Page([f"Description of {product.title}", product.description])
    page.lines.append(page.link(product.id, "open", product.id))
    return page


def _cart(shop: Shop, rules: Rules, session: Session) -> Page:
    page = Page(["Cart"])
    for number, line in enumerate(session.cart, start=1):
        product = shop.by_id[line.product]
        texts = "".join(f", {text}" for _, text in line.options)
        price = money(product.price_with(dict(line.options)))
        remove = page.link(f"remove {number}", "remove", str(number))
        page.lines.append(f"{number}. {product.id} {product.title}{texts}, {price} {remove}")
    page.lines.append(f"Total: {money(total_of(session.cart, shop))}")
    page.lines.append(page.link("checkout", "goto", "checkout"))
    return page


def _offers(shop: Shop, rules: Rules, session: Session) -> Page:
    page = Page(["Coupons, one for an order"])
    for offer in shop.offers.values():
        total = f" from a total of {money(offer.from_total)}" if offer.from_total else ""
        kind = f" with {offer.kind} in the cart" if offer.kind else ""
        page.lines.append(f"{offer.code}: {money(offer.saves)} off{total}{kind}")
    return page


def _login(shop: Shop, rules: Rules, session: Session) -> Page:
    names = ("user", "password")
    page = Page(["Log in", *_fields(session, names)], fields=names)
    page.lines.append(page.link("log in", "login"))
    return page


def _checkout(shop: Shop, rules: Rules, session: Session) -> Page:
    names = (*ADDRESS, "coupon")
    page = Page(["Checkout", *_fields(session, names)], fields=names)
    ways: list[str] = []
    for way in shop.shippings.values():
        days = "1 day" if way.days == 1 else f"{way.days} days"
        chosen = " chosen" if way.name == session.shipping else ""
        ways.append(f"{page.link(way.name, 'ship', way.name)} {days} {money(way.price)}{chosen}")
    page.lines.append(f"Shipping: {', '.join(ways)}")
    total = total_of(session.cart, shop)
    code = session.fields.get("coupon", "")
    saved = coupon_saving(code, session.cart, shop)
    way = shop.shippings.get(session.shipping or "")
    sent = way.price if way else 0
    note = f", coupon saves {money(saved)}" if code else ""
    page.lines.append(f"Things {money(total)}{note}, to pay {money(total + sent - saved)}")
    page.lines.append(page.link("place order", "order"))
    return page


def _fields(session: Session, names: Iterable[str]) -> list[str]:
    return [f"<{name}> {session.fields.get(name) or '(empty)'}" for name in names]


_MAKERS: Mapping[PageName, Callable[[Shop, Rules, Session], Page]] = {
    "home": _home,
    "results": _results,
    "product": _product,
    "reviews": _reviews,
    "description": _description,
    "cart": _cart,
    "offers": _offers,
    "login": _login,
    "checkout": _checkout,
}
