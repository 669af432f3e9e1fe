"""The airline: what its policy says, what its tools do, and which writes break a rule.

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

MAX_NEW_BAGS = 20


def draw_rules(rng: np.random.Generator, level: int) -> Rules:
    """Return the rules of one task."""
    return Rules(
        level,
        max_bags=pick(rng, (2, 3)),
        bag_price=pick(rng, (10, 20, 30)),
        upgrade_price=pick(rng, (15, 25, 35)),
    )


def policy(rules: Rules) -> str:
    """Return the policy as the agent reads it."""
    opening, closing = shared_paragraphs(rules, "booking")
    middle = [
        "Only an active booking of the flex fare can be cancelled.",
        f"An active booking of either fare can get bags, at most {rules.max_bags} per passenger "
        f"in all; each new bag costs {rules.bag_price}.",
    ]
    if rules.tells_amounts:
        middle += [
            "Only an active booking of the flex fare can change its flight: on the same route, if "
            "each passenger gets a seat.",
            f"An active basic booking can be upgraded to flex for {rules.upgrade_price} per "
            "passenger.",
            "Tell the customer the amount: what comes back or is to be paid; at a change of flight "
            "the difference in price.",
        ]
    if rules.level >= REFUSE_LEVEL:
        middle.append(
            "When you must refuse, say why: the booking is flown or basic, the flight is full, or "
            "how many bags the booking may have in all."
        )
    return numbered([*opening, *middle, *closing])


# ------------------------------------------------------------------------------------- reads


def show_booking(store: Store, key: str) -> str:
    """Return a booking in one line.

    Raises:
        Refused: no such booking.
    """
    row = store.get("booking", key)
    flight = store.get("flight", row["flight"])
    return (
        f"{key}: customer {row['customer']}, {row['status']}, {row['fare']}, flight "
        f"{row['flight']} from {flight['origin']} to {flight['destination']} on {flight['day']}, "
        f"passengers {row['passengers']}, bags {row['bags']}, paid {row['paid']}, refunded "
        f"{row['refunded']}"
    )


def find_flights(store: Store, origin: str, destination: str, day: str) -> list[str]:
    """Return the ids of the flights on a route on one day."""
    wanted = [text.strip().lower() for text in (origin, destination, day)]
    return [
        key
        for key, row in store.rows("flight")
        if [row[name].lower() for name in ("origin", "destination", "day")] == wanted
    ]


def show_flights(store: Store, origin: str, destination: str, day: str) -> str:
    """Return the flights on a route on one day, one a line."""
    lines: list[str] = []
    for key in find_flights(store, origin, destination, day):
        row = store.get("flight", key)
        route = f"{row['origin']} to {row['destination']} on {row['day']}"
        lines.append(f"{key}: {route}, price {row['price']}, {row['seats']} free seats")
    return "\n".join(lines) or "No flight."


# ------------------------------------------------------------------------------------ writes


def cancel_booking(store: Store, rules: Rules, booking: str) -> str:
    """Cancel a booking, free its seats and pay everything back."""
    row = _standing(store, booking)
    back = row["paid"] - row["refunded"]
    _seat(store, row["flight"], row["passengers"])
    store.change("booking", booking, status="cancelled", refunded=row["paid"])
    return f"Booking {booking} is cancelled, {back} comes back."


def change_flight(store: Store, rules: Rules, booking: str, flight: str) -> str:
    """Put a booking on another flight."""
    row, new = _standing(store, booking), store.get("flight", flight)
    if flight == row["flight"]:
        raise Refused(f"booking {booking} is on flight {flight} already")
    if new["seats"] < row["passengers"]:
        raise Refused(f"flight {flight} has {new['seats']} free seats")
    old = store.get("flight", row["flight"])
    difference = (new["price"] - old["price"]) * row["passengers"]
    _seat(store, row["flight"], row["passengers"])
    _seat(store, flight, -row["passengers"])
    store.change("booking", booking, flight=flight, paid=row["paid"] + difference)
    return f"Booking {booking} is on flight {flight}, difference {abs(difference)}."


def add_baggage(store: Store, rules: Rules, booking: str, bags: int) -> str:
    """Add bags to a booking."""
    row = _standing(store, booking)
    if not 0 < bags <= MAX_NEW_BAGS:
        raise Refused(f"1 to {MAX_NEW_BAGS} bags can be added")
    cost = bags * rules.bag_price
    store.change("booking", booking, bags=row["bags"] + bags, paid=row["paid"] + cost)
    return f"Booking {booking} has {row['bags'] + bags} bags, {cost} to pay."


def upgrade_fare(store: Store, rules: Rules, booking: str) -> str:
    """Turn a basic booking into a flex one."""
    row = _standing(store, booking)
    if row["fare"] != "basic":
        raise Refused(f"booking {booking} is flex already")
    cost = rules.upgrade_price * row["passengers"]
    store.change("booking", booking, fare="flex", upgraded=True, paid=row["paid"] + cost)
    return f"Booking {booking} is flex, {cost} to pay."


def _standing(store: Store, booking: str) -> Record:
    row = store.get("booking", booking)
    if row["status"] == "cancelled":
        raise Refused(f"booking {booking} is cancelled")
    return row


def _seat(store: Store, flight: str, count: int) -> None:
    store.change("flight", flight, seats=store.get("flight", flight)["seats"] + count)


EFFECTS = {
    "cancel_booking": cancel_booking,
    "change_flight": change_flight,
    "add_baggage": add_baggage,
    "upgrade_fare": upgrade_fare,
}


def breach(
    store: Store, rules: Rules, customer: str, tool: str, arguments: Mapping[str, Any]
) -> str | None:
    """Return which rule a write is about to break, or None. Reads only."""
    row = store.get("booking", arguments["booking"])
    if row["customer"] != customer:
        return "another customer's booking"
    if row["status"] != "active":
        return f"{tool} of a booking that is {row['status']}"
    if tool in ("cancel_booking", "change_flight") and row["fare"] == "basic":
        return f"{tool} of a basic booking"
    if tool == "add_baggage" and row["bags"] + arguments["bags"] > most_bags(rules, row):
        return "too many bags"
    if tool == "change_flight":
        old, new = store.get("flight", row["flight"]), store.get("flight", arguments["flight"])
        if any(old[name] != new[name] for name in ("origin", "destination")):
            return "a change to another route"
    return None


def most_bags(rules: Rules, booking: Record) -> int:
    """Return how many bags a booking may have in all."""
    return int(rules.max_bags * booking["passengers"])
