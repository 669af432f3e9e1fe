"""The shop's pages and what clicks do, on a shop made by hand."""

import pytest

from treegrpo.envs.suite.web_shop.catalogue import (
    MAX_FOUND,
    Offer,
    Product,
    Review,
    Shipping,
    Shop,
    Value,
    money,
    rating,
)
from treegrpo.envs.suite.web_shop.goals import Line, Order
from treegrpo.envs.suite.web_shop.pages import ROWS
from treegrpo.envs.suite.web_shop.session import MAX_LINES, Rules, Session
from treegrpo.envs.suite.web_shop.site import Site, SiteError

COLORS = (Value("red"), Value("blue", extra=350), Value("gray", is_sold_out=True))
MUG = Product(
    "m1",
    "clay mug Vesta",
    "mug",
    800,
    ("clay",),
    {"color": COLORS},
    features=("clay", "hand made"),
    stars=4.5,
    reviews=(Review(5, "Very pretty."), Review(1, "It broke.")),
    praise=("pretty",),
)
BOWL = Product("b1", "clay bowl Vesta", "bowl", 2500, ("clay",), {}, stars=3, is_sold_out=True)
TRAYS = tuple(Product(f"t{n}", f"tray number {n}", "tray", 100 * n, (), {}) for n in range(1, 13))
SHOP = Shop(
    (MUG, BOWL, *TRAYS),
    (Offer("TEN", 1000, from_total=3000), Offer("MUGS", 200, kind="mug")),
    (Shipping("slow", 5, 0), Shipping("fast", 1, 900)),
)
EXPRESS, CART = Rules(), Rules(has_cart=True)
MEMBERS = Rules(has_cart=True, account=("ada", "dusk42"))


def visit(rules: Rules = CART) -> Site:
    return Site(SHOP, rules, Session())


def shown(site: Site) -> str:
    return site.page().text


def test_results_are_ranked_and_turned() -> None:
    site = visit(EXPRESS)
    site.search("  clay   MUG ")
    assert shown(site).splitlines() == [
        'Results for "clay MUG", page 1 of 1',
        "[m1] clay mug Vesta, $8, 4.5 stars",
        "[b1] clay bowl Vesta, $25, 3 stars, sold out",
        "filter: [max 20] [max 40] [4 stars] [in stock]",
    ]
    site.search("tray")
    assert len(site.page().links) == ROWS + 1 + 4 and "previous" not in site.page().links
    site.click("next")
    site.click("next")
    assert "page 3 of 3" in shown(site) and "next" not in site.page().links
    site.click("previous")
    assert "page 2 of 3" in shown(site)


def test_filters_narrow_and_widen() -> None:
    site = visit()
    site.search("clay")
    site.click("max 20")
    assert "[m1]" in shown(site) and "[b1]" not in shown(site) and "[max 20] on" in shown(site)
    site.click("Max 20")
    site.click("in stock")
    assert "[b1]" not in shown(site) and "[max 20] on" not in shown(site)
    site.search("clay")
    assert "[b1]" in shown(site) and " on" not in shown(site)
    site.click("4 stars")
    assert "[m1]" in shown(site) and "[b1]" not in shown(site)


def test_a_search_without_a_match_says_so() -> None:
    site = visit()
    site.search("zeppelin")
    assert "Nothing found." in shown(site)


def test_a_search_gives_a_limited_list() -> None:
    many = [Product(f"x{n}", f"tray {n}", "tray", 1, (), {}) for n in range(MAX_FOUND + 5)]
    assert len(Shop(many).search("tray")) == MAX_FOUND
    assert [p.id for p in Shop(many).search("tray")[:3]] == ["x0", "x1", "x2"]


@pytest.mark.parametrize("title", ["x", "the", "!!"])
def test_a_shop_of_titles_without_words_finds_nothing(title: str) -> None:
    assert Shop([Product("a", title, "", 1, (), {})]).search("the tray \ud800") == ()


def test_a_product_page_shows_options_extras_and_stock() -> None:
    site = visit()
    site.goto("m1")
    assert shown(site).splitlines() == [
        "m1: clay mug Vesta, $8, 4.5 stars",
        "Features: clay, hand made",
        "color: [red], [blue] +$3.50, gray sold out",
        "[add to cart] [reviews]",
        "[cart] 0",
    ]
    site.click("[blue]")
    assert "Chosen: color blue. Price: $11.50" in shown(site)
    site.click("red")
    assert "Chosen: color red. Price: $8" in shown(site)
    site.click("red")
    assert "Chosen" not in shown(site)
    with pytest.raises(SiteError, match=r"there is no \[gray\] here; this page has \[red\]"):
        site.click("gray")


def test_values_of_one_name_are_told_apart() -> None:
    both = {"cup": (Value("red"), Value("cart")), "lid": (Value("red"), Value("next"))}
    site = Site(Shop([Product("c1", "cup", "cup", 1, (), both)]), CART, Session())
    site.goto("c1")
    assert {"cup: red", "lid: red", "cup: cart", "next", "cart"} <= set(site.page().links)
    site.click("lid: red")
    assert site.session.chosen == {"c1": {"lid": "red"}}


def test_sold_out_products_cannot_be_bought() -> None:
    for rules in (EXPRESS, CART):
        site = visit(rules)
        site.goto("b1")
        assert not {"buy now", "add to cart"} & set(site.page().links)


def test_reviews_are_a_page_of_their_own() -> None:
    site = visit()
    site.goto("M1")
    assert "pretty" not in shown(site)
    site.click("reviews")
    assert shown(site).splitlines()[1:3] == ["5 stars: Very pretty.", "1 star: It broke."]
    assert site.session.seen == ["m1", "m1/reviews"]
    site.click("m1")
    assert shown(site).startswith("m1: ")


def test_back_goes_the_way_one_came() -> None:
    site = visit()
    site.search("clay")
    site.click("4 stars")
    before = shown(site)
    site.click("m1")
    site.click("reviews")
    site.back()
    site.back()
    assert shown(site) == before
    site.back()
    site.back()
    assert shown(site).startswith("Welcome")


def test_an_express_shop_orders_with_one_click() -> None:
    site = visit(EXPRESS)
    site.goto("m1")
    site.click("red")
    site.click("buy now")
    assert site.session.order == Order((Line("m1", (("color", "red"),)),))
    for page in ("cart", "checkout", "offers", "login"):
        with pytest.raises(SiteError, match="pages are home, or a product's id"):
            visit(EXPRESS).goto(page)


def fill_cart(site: Site, count: int = 1) -> None:
    for _ in range(count):
        site.goto("m1")
        site.click("add to cart")


def test_a_cart_holds_so_much_and_lets_go() -> None:
    site = visit()
    fill_cart(site, MAX_LINES)
    site.goto("m1")
    with pytest.raises(SiteError, match=f"the cart is full with {MAX_LINES} things"):
        site.click("add to cart")
    site.goto("cart")
    assert "Total: $48" in shown(site)
    site.click("remove 2")
    assert len(site.session.cart) == MAX_LINES - 1


def test_an_order_needs_a_complete_form() -> None:
    site = visit()
    fill_cart(site)
    site.click("checkout")
    with pytest.raises(SiteError, match="type something into <name>, <street>, <city>"):
        site.click("place order")
    for field in ("name", "<Street>", "city"):
        site.type_in(field, "  a   b ")
    with pytest.raises(SiteError, match=r"click a shipping: \[slow\], \[fast\]"):
        site.click("place order")
    site.click("fast")
    site.type_in("coupon", "ten")
    with pytest.raises(SiteError, match="coupon 'TEN' is not valid for this cart"):
        site.click("place order")
    assert "Things $8, coupon saves $0, to pay $17" in shown(site)
    site.type_in("coupon", "mugs")
    assert "coupon saves $2, to pay $15" in shown(site)
    site.click("place order")
    address = (("name", "a b"), ("street", "a b"), ("city", "a b"))
    assert site.session.order == Order((Line("m1"),), address, "MUGS", "fast")


def test_an_emptied_cart_cannot_be_ordered() -> None:
    site = visit()
    fill_cart(site)
    site.click("checkout")
    for field in ("name", "street", "city"):
        site.type_in(field, "x")
    site.click("slow")
    site.goto("cart")
    site.click("remove 1")
    site.back()
    with pytest.raises(SiteError, match="the cart is empty"):
        site.click("place order")


def test_members_log_in_before_checkout() -> None:
    site = visit(MEMBERS)
    fill_cart(site)
    site.click("checkout")
    assert shown(site).startswith("Log in")
    site.type_in("user", "ada")
    site.type_in("password", "dusk")
    with pytest.raises(SiteError, match="user or password is wrong"):
        site.click("log in")
    site.type_in("password", "dusk42")
    site.click("log in")
    assert shown(site).startswith("Checkout")
    with pytest.raises(SiteError, match="there is no <user> here; this page has <name>"):
        site.type_in("user", "eve")


def test_offers_are_listed() -> None:
    site = visit()
    site.click("offers")
    assert shown(site).splitlines()[1:3] == [
        "TEN: $10 off from a total of $30",
        "MUGS: $2 off with mug in the cart",
    ]


def test_amounts_and_ratings_as_text() -> None:
    assert [money(c) for c in (0, 700, 750, 5, -300)] == ["$0", "$7", "$7.50", "$0.05", "-$3"]
    assert [rating(stars) for stars in (1, 1.5, 4.0)] == ["1 star", "1.5 stars", "4 stars"]
