"""What customers of the shop want: questions, changes, and changes that the policy forbids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treegrpo.envs.suite.service import shop, shop_world
from treegrpo.envs.suite.service.domain import Domain, Maker, Scene
from treegrpo.envs.suite.service.plan import Fact, Request, Step, pick
from treegrpo.envs.suite.service.store import Record

_STATUSES = frozenset(shop_world.STATUSES)


def _looked_at(order: str) -> Step:
    return Step("order_details", {"order": order})


def _about(scene: Scene, order: str, text: str, vague: str) -> dict[str, Any]:
    """Return text and hidden facts of a request whose order is at times told only when asked."""
    if not scene.hides:
        return {"text": text}
    return {"text": vague, "hidden": {"order": f"It is order {order}."}}


def _amount(scene: Scene, amount: int) -> Fact | None:
    return Fact(str(amount)) if scene.rules.tells_amounts else None


def _draw(
    scene: Scene, *, fits: Callable[[Record], bool] | None = None, **wanted: Any
) -> str | None:
    """Return a fitting order that no request is about yet, and mark it as used."""
    found = scene.free("order", **wanted)
    found = [key for key in found if fits is None or fits(scene.store.get("order", key))]
    if not found:
        return None
    order = pick(scene.rng, found)
    scene.used.add(order)
    return order


# --------------------------------------------------------------------------------- questions


def _status(scene: Scene) -> Request | None:
    order = _draw(scene)
    if order is None:
        return None
    status = str(scene.store.get("order", order)["status"])
    text = scene.phrase(f"What is the status of order {order}?", f"How is order {order} doing?")
    return Request(
        "status",
        **_about(scene, order, text, "What is the status of my order?"),
        subject=order,
        report=f"Order {order} is {status}.",
        reads=(_looked_at(order),),
        fact=Fact(status, _STATUSES),
    )


def _paid(scene: Scene) -> Request | None:
    order = _draw(scene)
    if order is None:
        return None
    paid = scene.store.get("order", order)["paid"]
    return Request(
        "paid",
        **_about(scene, order, f"How much did I pay for order {order}?", "How much did I pay?"),
        subject=order,
        report=f"You paid {paid} for order {order}.",
        reads=(_looked_at(order),),
        fact=Fact(str(paid)),
    )


def _price(scene: Scene) -> Request | None:
    _, row = pick(scene.rng, list(scene.store.rows("item")))
    name = f"{row['color']} {row['product']}"
    return Request(
        "price",
        scene.phrase(f"What does the {name} cost?", f"How much is the {name}?"),
        subject=name,
        report=f"The {name} costs {row['price']}.",
        reads=(Step("product_details", {"product": row["product"]}),),
        fact=Fact(str(row["price"])),
    )


# ----------------------------------------------------------------------------------- changes


def _cancel(scene: Scene) -> Request | None:
    order = _draw(scene, status="pending")
    if order is None:
        return None
    back = scene.store.get("order", order)["paid"]
    text = scene.phrase(
        f"Please cancel order {order}.", f"I do not want order {order} any more. Cancel it."
    )
    return Request(
        "cancel",
        **_about(scene, order, text, "Please cancel my order."),
        subject=order,
        report=f"Order {order} is cancelled, {back} comes back.",
        reads=(_looked_at(order),),
        writes=(Step("cancel_order", {"order": order}),),
        fact=_amount(scene, back),
        money=back,
    )


def _address(scene: Scene) -> Request | None:
    order = _draw(scene, status="pending")
    if order is None:
        return None
    place = shop_world.address(scene.rng)
    text, hidden = f"Please send order {order} to {place}.", {}
    if scene.hides:
        text = f"Order {order} must go to another address."
        hidden = {"address": f"The new address is {place}."}
    return Request(
        "address",
        text,
        subject=order,
        hidden=hidden,
        report=f"Order {order} goes to {place}.",
        reads=(_looked_at(order),),
        writes=(Step("change_address", {"order": order, "address": place}),),
    )


def _exchange(scene: Scene) -> Request | None:
    order = _draw(scene, status="delivered")
    if order is None:
        return None
    item = pick(scene.rng, scene.store.get("order", order)["items"])
    new = _other_variants(scene, item)
    return _exchange_for(scene, order, item, pick(scene.rng, new)) if new else None


def _other_variants(scene: Scene, item: str) -> list[str]:
    """Return the variants of the same product that are in stock."""
    product = scene.store.get("item", item)["product"]
    return [
        key
        for key, row in scene.store.rows("item")
        if row["product"] == product and row["stock"] and key != item
    ]


def _exchange_for(scene: Scene, order: str, item: str, new: str) -> Request:
    old_row, new_row = scene.store.get("item", item), scene.store.get("item", new)
    product, color = new_row["product"], new_row["color"]
    difference = abs(new_row["price"] - old_row["price"])
    text, hidden = f"I want the {product} of order {order} in {color}.", {}
    if scene.hides:
        text = f"I want the {product} of order {order} in another color."
        hidden = {"color": f"I want it in {color}."}
    return Request(
        "exchange",
        text,
        subject=order,
        hidden=hidden,
        report=f"The {product} of order {order} is exchanged, the difference is {difference}.",
        reads=(_looked_at(order), Step("product_details", {"product": product})),
        writes=(Step("exchange_item", {"order": order, "item": item, "new_item": new}),),
        fact=_amount(scene, difference),
    )


def _return(scene: Scene) -> Request | None:
    limit = scene.rules.return_days
    order = _draw(scene, status="delivered", fits=lambda row: row["days"] <= limit)
    return None if order is None else _return_of(scene, order)


def _return_of(scene: Scene, order: str) -> Request:
    item = pick(scene.rng, scene.store.get("order", order)["items"])
    product, price = (scene.store.get("item", item)[name] for name in ("product", "price"))
    text = f"I want to return the {product} of order {order}."
    return Request(
        "return",
        **_about(scene, order, text, f"I want to return a {product}."),
        subject=order,
        report=f"The {product} of order {order} is returned, {price} comes back.",
        reads=(_looked_at(order),),
        writes=(Step("return_item", {"order": order, "item": item}),),
        fact=_amount(scene, price),
        money=price,
    )


def _broken(scene: Scene) -> Request | None:
    order = _draw(scene, status="delivered")
    if order is None:
        return None
    item = pick(scene.rng, scene.store.get("order", order)["items"])
    product, price = (scene.store.get("item", item)[name] for name in ("product", "price"))
    text = f"The {product} of order {order} came broken."
    return Request(
        "broken",
        **_about(scene, order, text, f"A {product} came broken."),
        subject=order,
        report=f"For the {product} of order {order} you get {price} back.",
        reads=(_looked_at(order),),
        writes=(Step("refund", {"order": order, "amount": price}),),
        fact=_amount(scene, price),
        money=price,
    )


# --------------------------------------------------------------------------------- forbidden


def _late_cancel(scene: Scene) -> Request | None:
    return _refused(scene, "late_cancel", "Please cancel order {order}.", "cancel it")


def _late_address(scene: Scene) -> Request | None:
    text = f"Please send order {{order}} to {shop_world.address(scene.rng)}."
    return _refused(scene, "late_address", text, "change the address")


def _refused(scene: Scene, kind: str, text: str, act: str) -> Request | None:
    """Return a request that comes too late: the order has left already."""
    order = _draw(scene, status="shipped") or _draw(scene, status="delivered")
    if order is None:
        return None
    status = str(scene.store.get("order", order)["status"])
    return Request(
        kind,
        text.format(order=order),
        subject=order,
        report=f"Order {order} is {status}, so I cannot {act}.",
        reads=(_looked_at(order),),
        fact=Fact(status, _STATUSES),
        insists=scene.rules.level >= 5,
    )


def _late_return(scene: Scene) -> Request | None:
    limit = scene.rules.return_days
    order = _draw(scene, status="delivered", fits=lambda row: row["days"] > limit)
    if order is None:
        return None
    wish, days = _return_of(scene, order), scene.store.get("order", order)["days"]
    return Request(
        "late_return",
        wish.text,
        subject=order,
        hidden=wish.hidden,
        report=f"Order {order} came {days} days ago, so I cannot take the return.",
        reads=wish.reads,
        fact=Fact(str(days)),
        insists=scene.rules.level >= 5,
    )


# --------------------------------------------------------------------------- changes of mind


def _revise(scene: Scene, request: Request) -> Request | None:
    """Return what the customer wants instead of a cancellation, an address or an exchange."""
    order = request.subject
    if request.kind in ("cancel", "address"):
        place = shop_world.address(scene.rng)
        if any(place in str(step.arguments) for step in request.writes):
            return None
        return Request(
            "address",
            scene.phrase(f"Just send it to {place}.", f"Let it go to {place} instead."),
            subject=order,
            report=f"Order {order} goes to {place}.",
            writes=(Step("change_address", {"order": order, "address": place}),),
        )
    if request.kind == "exchange":
        item, before = (str(request.writes[0].arguments[key]) for key in ("item", "new_item"))
        others = [key for key in _other_variants(scene, item) if key != before]
        if others:
            wish = _exchange_for(scene, order, item, pick(scene.rng, others))
            color = scene.store.get("item", str(wish.writes[0].arguments["new_item"]))["color"]
            return _told_openly(wish, f"I want it in {color}.")
    return None


def _told_openly(wish: Request, text: str) -> Request:
    return Request(
        wish.kind,
        text,
        subject=wish.subject,
        report=wish.report,
        writes=wish.writes,
        fact=wish.fact,
        money=wish.money,
    )


_MAKERS: Mapping[str, Maker] = {
    "status": _status,
    "paid": _paid,
    "price": _price,
    "cancel": _cancel,
    "address": _address,
    "exchange": _exchange,
    "return": _return,
    "broken": _broken,
    "late_cancel": _late_cancel,
    "late_address": _late_address,
    "late_return": _late_return,
}
_ALL = ("cancel", "address", "exchange", "return", "broken", "price")
SHOP = Domain(
    name="shop",
    noun="order",
    draw_rules=shop.draw_rules,
    make_tables=shop_world.make_tables,
    policy=shop.policy,
    effects=shop.EFFECTS,
    breach=shop.breach,
    makers=_MAKERS,
    kinds={
        1: ("status", "paid", "cancel", "address"),
        2: ("cancel", "exchange", "return", "broken", "price"),
        3: _ALL,
        4: _ALL,
        5: _ALL,
    },
    forbidden=("late_cancel", "late_address", "late_return"),
    revise=_revise,
    sum_text="How much money comes back to me in all?",
    sum_report="In all {total} comes back.",
)
