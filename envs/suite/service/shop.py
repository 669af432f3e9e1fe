"""The shop: what its policy says, what its tools do, and which writes break a rule.

The tools do whatever is possible, and nothing can be undone: to keep to the policy is the
agent's part. `breach` says afterwards which rule a write broke.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from treegrpo.envs.suite.service.plan import pick
from treegrpo.envs.suite.service.rules import REFUSE_LEVEL, Rules, numbered, shared_paragraphs
from treegrpo.envs.suite.service.store import Record, Refused, Store


def draw_rules(rng: np.random.Generator, level: int) -> Rules:
    """Return the rules of one task."""
    return Rules(level, return_days=pick(rng, (10, 20, 30)))


def policy(rules: Rules) -> str:
    """Return the policy as the agent reads it."""
    opening, closing = shared_paragraphs(rules, "order")
    middle = ["Only a pending order can be cancelled or get a new address."]
    if rules.tells_amounts:
        middle += [
            "Only an item of a delivered order can be exchanged, returned or refunded. Exchange "
            f"it for the same product in stock. Return it at most {rules.return_days} days after "
            "delivery. If it came broken, refund its price.",
            "Tell the customer the amount: what comes back, or at an exchange the difference in "
            "price.",
        ]
    if rules.level >= REFUSE_LEVEL:
        middle.append(
            "When you must refuse, say why: the status of the order, or how many days ago it was "
            "delivered."
        )
    return numbered([*opening, *middle, *closing])


# ------------------------------------------------------------------------------------- reads


def show_order(store: Store, key: str) -> str:
    """Return an order in one line.

    Raises:
        Refused: no such order.
    """
    order = store.get("order", key)
    days = f", {order['days']} days ago" if order["status"] == "delivered" else ""
    items = "; ".join(
        f"{item} {_name(store, item)} {_price(store, item)}" for item in order["items"]
    )
    return (
        f"{key}: customer {order['customer']}, {order['status']}{days}, to {order['address']}, "
        f"items: {items or 'none'}, paid {order['paid']}, refunded {order['refunded']}"
    )


def show_product(store: Store, product: str) -> str:
    """Return the variants of a product, one a line.

    Raises:
        Refused: no such product.
    """
    wanted = product.strip().lower()
    found = [(key, row) for key, row in store.rows("item") if row["product"] == wanted]
    if not found:
        known = dict.fromkeys(str(row["product"]) for _, row in store.rows("item"))
        raise Refused(f"there is no product '{product[:40]}'; products: {', '.join(known)}")
    return "\n".join(
        f"{key}: {row['color']} {row['product']}, {row['price']}, {row['stock']} in stock"
        for key, row in found
    )


def _name(store: Store, item: str) -> str:
    row = store.get("item", item)
    return f"{row['color']} {row['product']}"


def _price(store: Store, item: str) -> int:
    return int(store.get("item", item)["price"])


# ------------------------------------------------------------------------------------ writes


def cancel_order(store: Store, rules: Rules, order: str) -> str:
    """Cancel an order and pay everything back."""
    row = store.get("order", order)
    if row["status"] == "cancelled":
        raise Refused(f"order {order} is cancelled already")
    back = row["paid"] - row["refunded"]
    store.change("order", order, status="cancelled", refunded=row["paid"])
    return f"Order {order} is cancelled, {back} comes back."


def change_address(store: Store, rules: Rules, order: str, address: str) -> str:
    """Send an order elsewhere."""
    place = " ".join(address.split())
    if not 0 < len(place) <= 60:
        raise Refused("an address has 1 to 60 characters")
    store.change("order", order, address=place)
    return f"Order {order} goes to {place}."


def exchange_item(store: Store, rules: Rules, order: str, item: str, new_item: str) -> str:
    """Put another item in the place of one that was ordered."""
    row, new = _order_with(store, order, item), store.get("item", new_item)
    if new_item in row["items"]:
        raise Refused(f"order {order} holds {new_item} already")
    if new["stock"] < 1:
        raise Refused(f"item {new_item} is not in stock")
    items = [new_item if held == item else held for held in row["items"]]
    difference = new["price"] - _price(store, item)
    store.change("item", new_item, stock=new["stock"] - 1)
    store.change("item", item, stock=store.get("item", item)["stock"] + 1)
    store.change("order", order, items=items, paid=row["paid"] + difference)
    return f"{item} in order {order} is exchanged for {new_item}, difference {abs(difference)}."


def return_item(store: Store, rules: Rules, order: str, item: str) -> str:
    """Take an item back and pay its price back."""
    row, price = _order_with(store, order, item), _price(store, item)
    items = [held for held in row["items"] if held != item]
    store.change("order", order, items=items, refunded=row["refunded"] + price)
    return f"{item} of order {order} is returned, {price} comes back."


def refund(store: Store, rules: Rules, order: str, amount: int) -> str:
    """Pay an amount back; the items stay with the customer."""
    row = store.get("order", order)
    if not 0 < amount <= row["paid"] - row["refunded"]:
        raise Refused(f"order {order} has {row['paid'] - row['refunded']} left to refund")
    store.change("order", order, refunded=row["refunded"] + amount)
    return f"{amount} of order {order} comes back."


def _order_with(store: Store, order: str, item: str) -> Record:
    row = store.get("order", order)
    if item not in row["items"]:
        raise Refused(f"order {order} holds no item '{item[:40]}'")
    return row


EFFECTS = {
    "cancel_order": cancel_order,
    "change_address": change_address,
    "exchange_item": exchange_item,
    "return_item": return_item,
    "refund": refund,
}


def breach(
    store: Store, rules: Rules, customer: str, tool: str, arguments: Mapping[str, Any]
) -> str | None:
    """Return which rule a write is about to break, or None. Reads only."""
    order = store.get("order", arguments["order"])
    if order["customer"] != customer:
        return "another customer's order"
    wanted = "pending" if tool in ("cancel_order", "change_address") else "delivered"
    if order["status"] != wanted:
        return f"{tool} of an order that is {order['status']}"
    if tool == "return_item" and order["days"] > rules.return_days:
        return f"a return after {order['days']} days"
    if tool == "exchange_item":
        old, new = (store.get("item", arguments[name]) for name in ("item", "new_item"))
        if old["product"] != new["product"]:
            return "an exchange for another product"
    return None
