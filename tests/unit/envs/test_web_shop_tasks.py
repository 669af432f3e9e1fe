"""Tasks of WebShop: seeded, solvable, splits apart; and the share of a goal that is met."""

from dataclasses import replace

import pytest

from treegrpo.envs.suite.web_shop.catalogue import Offer, Product, Shipping, Shop, Value
from treegrpo.envs.suite.web_shop.env import WebShopEnv
from treegrpo.envs.suite.web_shop.goals import (
    Goal,
    Line,
    Order,
    Wish,
    best_coupons,
    can_meet,
    cheapest_shipping,
    points_of,
    share_met,
)
from treegrpo.envs.suite.web_shop.shops import FAMILY_OF, PRODUCTS_PER_KIND, SHOPS, build_shop
from treegrpo.envs.suite.web_shop.tasks import split_of

SPLITS = ("train", "validation", "test")
TASKS = {split: list(WebShopEnv().tasks(split)[:100]) for split in SPLITS}


def goal_of(split: str, index: int) -> Goal:
    goal = TASKS[split][index].answer
    assert isinstance(goal, Goal)
    return goal


def test_a_task_depends_on_split_and_index_alone() -> None:
    again = WebShopEnv().tasks("train")
    for index in (99, 3, 77):
        assert again[index] == TASKS["train"][index]


def test_no_task_is_in_two_splits() -> None:
    questions = {split: {task.question for task in TASKS[split]} for split in SPLITS}
    shops = {split: {task.data["shop"] for task in TASKS[split]} for split in SPLITS}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not questions[one] & questions[other]
        assert not shops[one] & shops[other] and not set(SHOPS[one]) & set(SHOPS[other])
    for split in SPLITS:
        assert {split_of(question) for question in questions[split]} == {split}
        assert len({task.id for task in TASKS[split]}) > 90


def test_levels_ask_for_more_and_more() -> None:
    sizes = [[goal_of("train", index).size for index in range(level, 100, 5)] for level in range(5)]
    means = [sum(level) / len(level) for level in sizes]
    assert means == sorted(means) and means[0] == 2
    for index in range(100):
        goal = goal_of("train", index)
        assert len(goal.wishes) == (1, 1, 1, 2, 3)[index % 5]
        assert len({wish.kind for wish in goal.wishes}) == len(goal.wishes)
        assert bool(goal.address) == (index % 5 >= 2)
        assert (goal.coupon is not None) == (index % 5 == 3)
        assert goal.is_best_coupon == (goal.max_days is not None) == (index % 5 == 4)


def test_every_wish_can_be_met_and_never_by_all() -> None:
    for split in SPLITS:
        for index in range(0, 100, 9):
            shop = build_shop(TASKS[split][index].data["shop"])
            for wish in goal_of(split, index).wishes:
                kind = [p for p in shop.products if p.kind == wish.kind]
                assert 0 < sum(can_meet(wish, p) for p in kind) < len(kind)


def test_every_point_of_a_goal_is_in_the_instruction() -> None:
    for task in TASKS["test"]:
        goal, words = task.answer, task.question
        for wish in goal.wishes:
            said = [wish.kind, *wish.attributes, *(f"{name} {text}" for name, text in wish.options)]
            assert all(text in words for text in said), words
            assert wish.max_price is None or f"at most ${wish.max_price // 100}" in words
            assert wish.praise is None or f"called {wish.praise} in a review" in words
        assert all(text in words for _, text in goal.address)
        account = task.data["rules"].account
        assert account is None or f"Log in as {account[0]} with password {account[1]}." in words


def test_shops_are_seeded_and_of_one_size() -> None:
    build_shop.cache_clear()
    one = build_shop(5).products
    build_shop.cache_clear()
    assert build_shop(5).products == one != build_shop(6).products
    assert len(one) == len(FAMILY_OF) * PRODUCTS_PER_KIND == len({p.id for p in one})
    for product in one:
        assert product.attributes[0] in product.title and product.kind in product.title
        assert len(set(product.attributes)) == 3


def test_every_shop_has_a_coupon_without_a_condition() -> None:
    for number in (0, 70, 100):
        offers = list(build_shop(number).offers.values())
        assert len(offers) == 3 and any(offer.saving(0, []) > 0 for offer in offers)


# The share that is met, on a shop made by hand.

PEN = Product(
    "p1",
    "steel pen",
    "pen",
    500,
    ("steel", "slim"),
    {"color": (Value("red"), Value("blue", extra=200), Value("gray", is_sold_out=True))},
    stars=4.0,
    praise=("sturdy",),
)
CUP = Product("c1", "glass cup", "cup", 900, ("glass",), {}, stars=2.5)
SHOP = Shop(
    (PEN, CUP),
    (Offer("A", 100), Offer("B", 300, from_total=1200), Offer("C", 300, kind="cup")),
    (Shipping("slow", 6, 0), Shipping("normal", 3, 400), Shipping("fast", 1, 900)),
)
WISH = Wish("pen", ("steel", "slim"), (("color", "red"),), 600, 4.0, "sturdy")
ADDRESS = (("name", "Ada Berg"), ("city", "Oslo"))
GOAL = Goal((WISH, Wish("cup", ("glass",))), ADDRESS, coupon="B", shipping="normal")
RED, CUP_LINE = Line("p1", (("color", "red"),)), Line("c1")
ORDER = Order((CUP_LINE, RED), ADDRESS, "B", "normal")


def test_an_order_that_meets_everything_scores_one_exactly() -> None:
    assert (WISH.size, GOAL.size) == (7, 13)
    assert share_met(GOAL, ORDER, SHOP) == 1.0


@pytest.mark.parametrize(
    ("order", "points"),
    [
        (replace(ORDER, lines=(CUP_LINE, Line("p1", (("color", "blue"),)))), 11),
        (replace(ORDER, lines=(CUP_LINE, Line("p1"))), 12),
        (replace(ORDER, lines=(CUP_LINE,)), 6),
        (replace(ORDER, lines=(RED,)), 11),
        (replace(ORDER, address=(("name", "ada  BERG"), ("city", "Oslo"))), 13),
        (replace(ORDER, address=(("name", "Ada"), ("city", "Lima"))), 11),
        (replace(ORDER, coupon=None), 12),
        (replace(ORDER, coupon="A", shipping="fast"), 11),
        (replace(ORDER, lines=()), 4),
    ],
)
def test_each_point_counts_once(order: Order, points: int) -> None:
    assert share_met(GOAL, order, SHOP) == points / 13


def test_things_that_nobody_wanted_cost_points() -> None:
    for extra in (1, 4):
        order = replace(ORDER, lines=(CUP_LINE, *[CUP_LINE] * extra, RED))
        assert share_met(GOAL, order, SHOP) == 13 / (13 + extra)


def test_a_thing_of_another_kind_earns_nothing() -> None:
    assert points_of(replace(WISH, kind="cup"), PEN, RED.options) == 0
    assert points_of(WISH, PEN, ()) == 6
    assert points_of(WISH, PEN, (("color", "blue"),)) == 5
    assert points_of(WISH, replace(PEN, stars=None, praise=()), RED.options) == 5


def test_a_wish_is_met_only_by_what_is_there() -> None:
    assert can_meet(WISH, PEN)
    assert not can_meet(WISH, replace(PEN, is_sold_out=True))
    assert not can_meet(replace(WISH, options=(("color", "gray"),)), PEN)
    assert not can_meet(replace(WISH, options=(("color", "pink"),)), PEN)
    assert not can_meet(replace(WISH, max_price=499), PEN)


def test_the_best_coupon_depends_on_the_cart() -> None:
    assert best_coupons([RED], SHOP) == ["A"]
    assert best_coupons([CUP_LINE], SHOP) == ["C"]
    assert best_coupons([CUP_LINE, RED], SHOP) == ["B", "C"]
    assert best_coupons([RED], Shop((PEN,))) == []
    goal = Goal((Wish("cup"),), is_best_coupon=True)
    for code, share in (("C", 1.0), ("A", 0.5), (None, 0.5)):
        assert share_met(goal, Order((CUP_LINE,), coupon=code), SHOP) == share


def test_the_cheapest_shipping_in_time() -> None:
    assert [cheapest_shipping(SHOP, days) for days in (9, 5, 2, 0)] == [
        "slow",
        "normal",
        "fast",
        None,
    ]
    goal = Goal((Wish("cup"),), max_days=5)
    for way, share in (("normal", 1.0), ("fast", 0.5), ("slow", 0.5)):
        assert share_met(goal, Order((CUP_LINE,), shipping=way), SHOP) == share
