"""The tasks of the shop: drawn from a shop's own products, put into words, put into a split.

level  things  asks for
1      1       an attribute
2      1       two attributes, an option, a price limit
3      1       two attributes, two options, a price limit; an address and a shipping
4      2       the same for each, at times a rating, and a given coupon
5      3       the same, a rating and a review; a login, the best coupon, a time to arrive
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.web_shop.catalogue import Product, Shop, money
from treegrpo.envs.suite.web_shop.draws import Draws
from treegrpo.envs.suite.web_shop.goals import Goal, Pairs, Wish, can_meet
from treegrpo.envs.suite.web_shop.session import Rules
from treegrpo.envs.suite.web_shop.shops import SHOPS, build_shop, listed
from treegrpo.envs.tasks import Task

DIFFICULTIES = (1, 2, 3, 4, 5)
BUDGETS = {1: 8, 2: 20, 3: 30, 4: 45, 5: 70}
"""Tool calls per level."""
PEOPLE = listed("Ada Ben Cleo Dan Eva Finn Hana Ivan Jill Kofi Lena Mia")
SURNAMES = listed("Berg Costa Duval Falk Haas Ito Klein Lund Moreno Novak")
STREETS = listed("Elm Oak Lake Mill Hill Park")
CITIES = listed("Oslo Lima Cairo Quito Riga Turin Busan Perth")
SECRETS = listed("dusk river candle marble violet copper")
PLURALS = frozenset({"boots", "headphones"})
_ORDINALS = ("First", "Second", "Third")
_SPLIT_OF_EIGHTH = ("test", "test", "validation", *["train"] * 5)


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split.

    The instruction's words decide the split, and each split has shops of its own, so neither
    an instruction nor a product is ever in two.
    """
    draws = Draws(rng)
    while True:
        number = draws.pick(SHOPS[split])
        goal, rules = _draw(draws, build_shop(number), difficulty)
        question = in_words(goal, rules)
        if split_of(question) == split:
            return Task(
                id=f"{split}-{difficulty}-{digest([question, number])[:16]}",
                question=question,
                answer=goal,
                difficulty=difficulty,
                data={"shop": number, "rules": rules, "max_calls": BUDGETS[difficulty]},
            )


def split_of(question: str) -> str:
    """Return the only split that an instruction of these words can be in."""
    return _SPLIT_OF_EIGHTH[int(digest(question)[:8], 16) % 8]


def _draw(draws: Draws, shop: Shop, level: int) -> tuple[Goal, Rules]:
    """Return a goal that the shop can meet, and how it sells."""
    things = max(1, level - 2)
    golds: list[Product] = []
    while len(golds) < things:
        product = draws.pick(shop.products)
        is_rated = level < 4 or bool(golds) or (product.stars or 0) >= 3
        if is_rated and _is_buyable(product) and product.kind not in [g.kind for g in golds]:
            golds.append(product)
    wishes = [_wish(draws, gold, level) for gold in golds]
    if level == 5 or (level == 4 and draws.chance(0.5)):
        wishes[0] = replace(wishes[0], min_stars=_rating(golds[0]))
    if level == 5:
        wishes[1] = replace(wishes[1], praise=golds[1].praise[0])
    for wish, gold in zip(wishes, golds, strict=True):
        assert can_meet(wish, gold), f"{gold.id} was to meet {wish}"
    return _checkout(draws, shop, tuple(wishes), level)


def _is_buyable(product: Product) -> bool:
    """Return whether the product, and a value of each option, is there."""
    has_values = all(any(not v.is_sold_out for v in vs) for vs in product.options.values())
    return has_values and not product.is_sold_out


def _rating(product: Product) -> float:
    """Return a rating to ask for that the product has."""
    return 4.0 if (product.stars or 0) >= 4 else 3.0


def _wish(draws: Draws, gold: Product, level: int) -> Wish:
    if level == 1:
        return Wish(gold.kind, gold.attributes[:1])
    names = draws.some(list(gold.options), 1 if level == 2 else 2)
    options: Pairs = tuple(
        (name, draws.pick([v.text for v in gold.options[name] if not v.is_sold_out]))
        for name in sorted(names)
    )
    limit = gold.price_with(dict(options)) + 100 * draws.between(0, 4)
    attributes = tuple(draws.some(gold.attributes, 2))
    return Wish(gold.kind, attributes, options, max_price=limit)


def _checkout(draws: Draws, shop: Shop, wishes: tuple[Wish, ...], level: int) -> tuple[Goal, Rules]:
    """Return the goal with what its level asks of the order as a whole."""
    if level < 3:
        return Goal(wishes), Rules()
    first = draws.pick(PEOPLE)
    street = f"{draws.between(1, 40)} {draws.pick(STREETS)} Road"
    address = (
        ("name", f"{first} {draws.pick(SURNAMES)}"),
        ("street", street),
        ("city", draws.pick(CITIES)),
    )
    goal = Goal(wishes, address)
    if level < 5:
        goal = replace(goal, shipping=draws.pick(list(shop.shippings)))
    if level == 4:
        kinds = [wish.kind for wish in wishes]
        valid = [code for code, offer in shop.offers.items() if offer.saving(0, kinds)]
        return replace(goal, coupon=draws.pick(valid)), Rules(has_cart=True)
    if level == 5:
        days = draws.pick(list(shop.shippings.values())).days + draws.between(0, 1)
        account = (first.lower(), f"{draws.pick(SECRETS)}{draws.between(10, 99)}")
        goal = replace(goal, is_best_coupon=True, max_days=days)
        return goal, Rules(has_cart=True, account=account)
    return goal, Rules(has_cart=True)


# The words of an instruction.


def in_words(goal: Goal, rules: Rules) -> str:
    """Return the instruction: every point of the goal in plain words."""
    if len(goal.wishes) == 1:
        sentences = [f"Buy {_thing(goal.wishes[0])}."]
    else:
        sentences = [f"Buy {len(goal.wishes)} things."]
        sentences += [
            f"{ordinal}, {_thing(wish)}."
            for ordinal, wish in zip(_ORDINALS, goal.wishes, strict=False)
        ]
    if rules.account:
        sentences.append(f"Log in as {rules.account[0]} with password {rules.account[1]}.")
    if goal.coupon:
        sentences.append(f"Use the coupon {goal.coupon}.")
    if goal.is_best_coupon:
        sentences.append("Use the coupon that saves the most.")
    if goal.address:
        sentences.append(f"Send to {', '.join(text for _, text in goal.address)}.")
    if goal.shipping:
        sentences.append(f"Shipping: {goal.shipping}.")
    if goal.max_days is not None:
        days = "1 day" if goal.max_days == 1 else f"{goal.max_days} days"
        sentences.append(f"Shipping: the cheapest that takes at most {days}.")
    return " ".join(sentences)


def _thing(wish: Wish) -> str:
    """Return one wish as words: "a quiet kettle, also steel, color red, at most $30"."""
    noun = f"{wish.attributes[0]} {wish.kind}"
    article = "" if wish.kind in PLURALS else "an " if noun[0] in "aeiou" else "a "
    parts = [article + noun, *(f"also {attribute}" for attribute in wish.attributes[1:])]
    parts += [f"{name} {text}" for name, text in wish.options]
    if wish.max_price is not None:
        parts.append(f"at most {money(wish.max_price)}")
    if wish.min_stars is not None:
        parts.append(f"at least {wish.min_stars:g} stars")
    if wish.praise is not None:
        parts.append(f"called {wish.praise} in a review")
    return ", ".join(parts)
