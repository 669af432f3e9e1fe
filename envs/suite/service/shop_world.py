"""Random shops: customers, products in several variants, orders in every state."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegrpo.envs.suite.service.plan import between, listed, pick, pick_some
from treegrpo.envs.suite.service.store import Tables

FIRST = listed("Ana Bo Carl Dina Emil Fay Gil Hugo Ines Jon Kira Leo Mona Nils Olga Paul")
LAST = listed("Berg Cole Diaz Engel Fox Gray Hill Iversen Jung Koch Lind Moss")
STREETS = listed("Elm Oak Lake Mill Park Rose Hill Bay")
PRODUCTS = listed("lamp chair mug clock bag rug vase desk fan kite")
COLORS = listed("red blue green black white gray")
STATUSES = ("pending", "shipped", "delivered", "cancelled")
CALLER_ORDERS = ("pending", "pending", "pending", "shipped", "shipped") + ("delivered",) * 4


def make_people(rng: np.random.Generator, count: int) -> dict[str, dict[str, Any]]:
    """Return customers with names and codes of their own, the caller first."""
    firsts, lasts = pick_some(rng, FIRST, count), pick_some(rng, LAST, count)
    ids, codes = pick_some(rng, range(10, 100), count), pick_some(rng, range(100, 1000), count)
    return {
        f"C{number}": {"name": f"{first} {last}", "code": str(code), "address": address(rng)}
        for number, first, last, code in zip(ids, firsts, lasts, codes, strict=True)
    }


def address(rng: np.random.Generator) -> str:
    """Return a random street with a number."""
    return f"{between(rng, 1, 60)} {pick(rng, STREETS)} Street"


def make_tables(rng: np.random.Generator) -> Tables:
    """Return a shop with four customers, twelve variants and twelve orders; the caller has nine."""
    people = make_people(rng, 4)
    variants = _variants(rng)
    caller, *others = people
    owners = [(caller, status) for status in CALLER_ORDERS]
    owners += [(other, pick(rng, STATUSES[:3])) for other in others]
    numbers = sorted(pick_some(rng, range(10, 100), len(owners)))
    order_of = rng.permutation(len(owners))
    orders = {
        f"O{number}": _order(rng, people, variants, *owners[int(position)])
        for number, position in zip(numbers, order_of, strict=True)
    }
    return {"customer": people, "item": variants, "order": orders}


def _variants(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    ids = iter(sorted(pick_some(rng, range(10, 100), 12)))
    return {
        f"V{next(ids)}": {
            "product": product,
            "color": color,
            "price": between(rng, 5, 60),
            "stock": pick(rng, (0, 2, 3, 5)),
        }
        for product in pick_some(rng, PRODUCTS, 4)
        for color in pick_some(rng, COLORS, 3)
    }


def _order(
    rng: np.random.Generator,
    people: dict[str, dict[str, Any]],
    variants: dict[str, dict[str, Any]],
    owner: str,
    status: str,
) -> dict[str, Any]:
    """Return an order of one or two products, one variant of each."""
    products = sorted({row["product"] for row in variants.values()})
    items = [
        pick(rng, [key for key, row in variants.items() if row["product"] == product])
        for product in pick_some(rng, products, between(rng, 1, 2))
    ]
    return {
        "customer": owner,
        "status": status,
        "days": between(rng, 1, 40) if status == "delivered" else 0,
        "address": people[owner]["address"],
        "items": items,
        "paid": sum(variants[item]["price"] for item in items),
        "refunded": 0,
    }
