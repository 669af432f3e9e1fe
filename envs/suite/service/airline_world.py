"""Random airlines: passengers, flights on a few routes, bookings of either fare."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegrpo.envs.suite.service.plan import between, listed, pick, pick_some
from treegrpo.envs.suite.service.shop_world import make_people
from treegrpo.envs.suite.service.store import Tables

CITIES = listed("Oslo Rome Lima Cairo Quito Riga Turin Perth")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday")
STATUSES = ("active", "flown", "cancelled")
FARES = ("basic", "flex")
CALLER_BOOKINGS = (
    *[("active", "flex")] * 4,
    *[("active", "basic")] * 3,
    ("flown", "flex"),
    ("flown", "basic"),
)


def make_tables(rng: np.random.Generator) -> Tables:
    """Return four customers, twelve flights and twelve bookings; the caller has nine of them."""
    people, flights = make_people(rng, 4), _flights(rng)
    caller, *others = people
    owners = [(caller, *kind) for kind in CALLER_BOOKINGS]
    owners += [(other, "active", pick(rng, FARES)) for other in others]
    numbers = sorted(pick_some(rng, range(10, 100), len(owners)))
    order_of = rng.permutation(len(owners))
    bookings = {
        f"B{number}": _booking(rng, flights, *owners[int(position)])
        for number, position in zip(numbers, order_of, strict=True)
    }
    return {"customer": people, "flight": flights, "booking": bookings}


def _flights(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    cities = pick_some(rng, CITIES, 4)
    routes = ((cities[0], cities[1]), (cities[1], cities[2]), (cities[0], cities[3]))
    ids = iter(sorted(pick_some(rng, range(10, 100), 12)))
    return {
        f"F{next(ids)}": {
            "origin": origin,
            "destination": destination,
            "day": day,
            "price": between(rng, 4, 20) * 10,
            "seats": pick(rng, (0, 1, 4, 6, 9)),
        }
        for origin, destination in routes
        for day in sorted(pick_some(rng, DAYS, 4), key=DAYS.index)
    }


def _booking(
    rng: np.random.Generator,
    flights: dict[str, dict[str, Any]],
    owner: str,
    status: str,
    fare: str,
) -> dict[str, Any]:
    flight, passengers = pick(rng, list(flights)), between(rng, 1, 3)
    return {
        "customer": owner,
        "status": status,
        "fare": fare,
        "upgraded": False,
        "flight": flight,
        "passengers": passengers,
        "bags": between(rng, 0, passengers),
        "paid": flights[flight]["price"] * passengers,
        "refunded": 0,
    }
