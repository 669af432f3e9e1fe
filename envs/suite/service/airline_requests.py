"""What passengers want: questions, changes, and changes that the policy forbids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from treegrpo.envs.suite.service import airline, airline_world
from treegrpo.envs.suite.service.domain import Domain, Maker, Scene
from treegrpo.envs.suite.service.plan import Fact, Request, Step, between, chance, pick
from treegrpo.envs.suite.service.store import Record

_STATUSES = frozenset(airline_world.STATUSES)
_FARES = frozenset(airline_world.FARES)
_DAYS = frozenset(day.lower() for day in airline_world.DAYS)


def _looked_at(booking: str) -> Step:
    return Step("booking_details", {"booking": booking})


def _draw(scene: Scene, fits: Callable[[Record], bool]) -> str | None:
    """Return a fitting booking that no request is about yet, and mark it as used."""
    found = [key for key in scene.free("booking") if fits(scene.store.get("booking", key))]
    if not found:
        return None
    booking = pick(scene.rng, found)
    scene.used.add(booking)
    return booking


def _is(status: str, fare: str = "") -> Callable[[Record], bool]:
    return lambda row: row["status"] == status and fare in ("", row["fare"])


def _hide(scene: Scene, request: Request, topic: str, vague: str, sentence: str) -> Request:
    """Return the request, at times with one detail that is told only when asked."""
    if not scene.hides:
        return request
    return replace(request, text=vague, hidden={topic: sentence})


def _amount(scene: Scene, amount: int) -> Fact | None:
    return Fact(str(amount)) if scene.rules.tells_amounts else None


# ----------------------------------------------------------------------- questions and changes


def _day(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active"))
    if booking is None:
        return None
    day = scene.store.get("flight", scene.store.get("booking", booking)["flight"])["day"]
    request = Request(
        "day",
        scene.phrase(f"When do I fly with booking {booking}?", f"Which day is booking {booking}?"),
        subject=booking,
        report=f"Booking {booking} flies on {day}.",
        reads=(_looked_at(booking),),
        fact=Fact(day.lower(), _DAYS),
    )
    return _hide(scene, request, "booking", "When do I fly?", f"My booking is {booking}.")


def _cancel(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active", "flex"))
    if booking is None:
        return None
    row = scene.store.get("booking", booking)
    back = row["paid"] - row["refunded"]
    request = Request(
        "cancel",
        scene.phrase(
            f"Please cancel booking {booking}.", f"I cannot fly. Cancel booking {booking}."
        ),
        subject=booking,
        report=f"Booking {booking} is cancelled, {back} comes back.",
        reads=(_looked_at(booking),),
        writes=(Step("cancel_booking", {"booking": booking}),),
        fact=_amount(scene, back),
    )
    return _hide(scene, request, "booking", "I cannot fly. Cancel it.", f"My booking is {booking}.")


def _bags(scene: Scene) -> Request | None:
    booking = _draw(scene, lambda row: row["status"] == "active" and _room(scene, row) > 0)
    if booking is None:
        return None
    return _bags_for(scene, booking, between(scene.rng, 1, _room_of(scene, booking)))


def _room(scene: Scene, row: Record) -> int:
    return airline.most_bags(scene.rules, row) - row["bags"]


def _room_of(scene: Scene, booking: str) -> int:
    return _room(scene, scene.store.get("booking", booking))


def _bags_for(scene: Scene, booking: str, count: int) -> Request:
    cost, noun = count * scene.rules.bag_price, "bag" if count == 1 else "bags"
    request = Request(
        "bags",
        f"Please add {count} {noun} to booking {booking}.",
        subject=booking,
        report=f"Booking {booking} has {count} more {noun} for {cost}.",
        reads=(_looked_at(booking),),
        writes=(Step("add_baggage", {"booking": booking, "bags": count}),),
        fact=_amount(scene, cost),
        money=cost,
    )
    vague = f"I need more bags for booking {booking}."
    return _hide(scene, request, "bags", vague, f"I need {count} more {noun}.")


def _change(scene: Scene) -> Request | None:
    booking = _upgraded(scene) if chance(scene.rng, 0.7) else None
    booking = booking or _draw(scene, _is("active", "flex"))
    if booking is None:
        return None
    row = scene.store.get("booking", booking)
    flights = [key for key in _other_flights(scene, row) if _has_room(scene, key, row)]
    return _change_to(scene, booking, pick(scene.rng, flights)) if flights else None


def _upgraded(scene: Scene) -> str | None:
    """Return a booking that an earlier request made flex, so that it can be changed now."""
    rows = scene.store.rows("booking")
    return next((key for key, row in rows if row["upgraded"] and row["status"] == "active"), None)


def _other_flights(scene: Scene, row: Record) -> list[str]:
    """Return the other flights of the same route that are not cheaper."""
    old = scene.store.get("flight", row["flight"])
    return [
        key
        for key, new in scene.store.rows("flight")
        if key != row["flight"]
        and all(new[name] == old[name] for name in ("origin", "destination"))
        and new["price"] >= old["price"]
    ]


def _has_room(scene: Scene, flight: str, row: Record) -> bool:
    return bool(scene.store.get("flight", flight)["seats"] >= row["passengers"])


def _change_to(scene: Scene, booking: str, flight: str) -> Request:
    row, new = scene.store.get("booking", booking), scene.store.get("flight", flight)
    old, day = scene.store.get("flight", row["flight"]), new["day"]
    cost = (new["price"] - old["price"]) * row["passengers"]
    route = {"origin": new["origin"], "destination": new["destination"], "day": day}
    request = Request(
        "change",
        f"Please move booking {booking} to {day}.",
        subject=booking,
        report=f"Booking {booking} flies on {day}, the difference is {cost}.",
        reads=(_looked_at(booking), Step("search_flights", route)),
        writes=(Step("change_flight", {"booking": booking, "flight": flight}),),
        fact=_amount(scene, cost),
        money=cost,
    )
    vague = f"I want to fly on another day with booking {booking}."
    return _hide(scene, request, "day", vague, f"I want to fly on {day}.")


def _upgrade(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active", "basic"))
    if booking is None:
        return None
    cost = scene.rules.upgrade_price * scene.store.get("booking", booking)["passengers"]
    request = Request(
        "upgrade",
        scene.phrase(f"Please make booking {booking} flex.", f"Upgrade booking {booking} to flex."),
        subject=booking,
        report=f"Booking {booking} is flex now, {cost} to pay.",
        reads=(_looked_at(booking),),
        writes=(Step("upgrade_fare", {"booking": booking}),),
        fact=_amount(scene, cost),
        money=cost,
    )
    return _hide(scene, request, "booking", "I want to fly flex.", f"My booking is {booking}.")


# --------------------------------------------------------------------------------- forbidden


def _refuse(scene: Scene, wish: Request, kind: str, report: str, fact: Fact) -> Request:
    """Return a wish as one that has to be refused."""
    insists = scene.rules.level >= 5
    refused = replace(wish, kind=kind, report=report, fact=fact, insists=insists)
    return replace(refused, writes=(), money=0)


def _basic_cancel(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active", "basic"))
    if booking is None:
        return None
    wish = Request(
        "cancel", f"Please cancel booking {booking}.", booking, "", reads=(_looked_at(booking),)
    )
    report = f"Booking {booking} is basic, so I cannot cancel it."
    return _refuse(scene, wish, "basic_cancel", report, Fact("basic", _FARES))


def _flown_change(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("flown"))
    if booking is None:
        return None
    day = pick(scene.rng, airline_world.DAYS)
    text = f"Please move booking {booking} to {day}."
    wish = Request("change", text, booking, "", reads=(_looked_at(booking),))
    report = f"Booking {booking} is flown, so I cannot change it."
    return _refuse(scene, wish, "flown_change", report, Fact("flown", _STATUSES))


def _full_change(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active", "flex"))
    if booking is None:
        return None
    row = scene.store.get("booking", booking)
    flights = [key for key in _other_flights(scene, row) if not _has_room(scene, key, row)]
    if not flights:
        return None
    flight = pick(scene.rng, flights)
    report = f"Flight {flight} is full, so I cannot change booking {booking}."
    wish = _change_to(scene, booking, flight)
    return _refuse(scene, wish, "full_change", report, Fact("full"))


def _many_bags(scene: Scene) -> Request | None:
    booking = _draw(scene, _is("active"))
    if booking is None:
        return None
    row = scene.store.get("booking", booking)
    most = airline.most_bags(scene.rules, row)
    wish = _bags_for(scene, booking, max(1, most - row["bags"] + between(scene.rng, 1, 2)))
    report = f"Booking {booking} may have {most} bags in all, so I cannot add them."
    return _refuse(scene, wish, "many_bags", report, Fact(str(most)))


# --------------------------------------------------------------------------- changes of mind


def _revise(scene: Scene, request: Request) -> Request | None:
    """Return what the customer wants instead of a cancellation, of bags or of a change."""
    booking = request.subject
    row = scene.store.get("booking", booking)
    if request.kind == "change":
        taken = {str(step.arguments.get("flight")) for step in request.writes}
        flights = [key for key in _other_flights(scene, row) if key not in taken]
        flights = [key for key in flights if _has_room(scene, key, row)]
        if not flights:
            return None
        wish = _change_to(scene, booking, pick(scene.rng, flights))
        day = scene.store.get("flight", str(wish.writes[0].arguments["flight"]))["day"]
        return replace(wish, text=f"I want to fly on {day}.", hidden={})
    if request.kind in ("cancel", "bags") and _room(scene, row) > 1:
        taken_bags = [step.arguments.get("bags") for step in request.writes]
        counts = [n for n in range(1, _room(scene, row) + 1) if n not in taken_bags]
        wish = _bags_for(scene, booking, pick(scene.rng, counts))
        count = wish.writes[0].arguments["bags"]
        noun = "bag" if count == 1 else "bags"
        return replace(wish, text=f"I only want {count} more {noun}.", hidden={})
    return None


_MAKERS: Mapping[str, Maker] = {
    "day": _day,
    "cancel": _cancel,
    "bags": _bags,
    "change": _change,
    "upgrade": _upgrade,
    "basic_cancel": _basic_cancel,
    "flown_change": _flown_change,
    "full_change": _full_change,
    "many_bags": _many_bags,
}
_ALL = ("cancel", "bags", "change", "upgrade", "day")
AIRLINE = Domain(
    name="airline",
    noun="booking",
    draw_rules=airline.draw_rules,
    make_tables=airline_world.make_tables,
    policy=airline.policy,
    effects=airline.EFFECTS,
    breach=airline.breach,
    makers=_MAKERS,
    kinds={
        1: ("day", "cancel", "bags"),
        2: ("cancel", "bags", "change", "upgrade", "day"),
        3: _ALL,
        4: _ALL,
        5: _ALL,
    },
    forbidden=("basic_cancel", "flown_change", "full_change", "many_bags"),
    revise=_revise,
    sum_text="How much do I pay for these changes in all?",
    sum_report="In all you pay {total}.",
)
