"""Service desks: tools, the customer, breaches, reward, budgets, and the oracle."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import SnapshotUnsupported, UnknownOption
from treegrpo.envs.suite.service.airline_desk import AirlineDesk
from treegrpo.envs.suite.service.customer import APPEAL, CHANGE, GOODBYE, LEFT, NOTHING_NEW, YES
from treegrpo.envs.suite.service.desk import MAX_SAID_CHARS, ServiceDesk
from treegrpo.envs.suite.service.env import DESKS, make_service
from treegrpo.envs.suite.service.plan import Fact, words
from treegrpo.envs.suite.service.shop_desk import ShopDesk

DOMAINS = pytest.mark.parametrize("domain", list(DESKS))


def start(env: ServiceDesk, kind: str, level: int = 1) -> ServiceDesk:
    """Return the environment at the first task of a level whose first request is of the kind."""
    found = (n for n in range(level - 1, 400, 5) if env.tasks("train")[n].id.startswith(f"{kind}-"))
    env.reset(seed=0, options={"index": next(found)})
    return env


def call(env: ToolEnv, tool: str, **arguments: Any) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    return text, reward, info["errors"]


def identify(env: ServiceDesk) -> str:
    brief = env.task.data["brief"]
    return call(env, "find_customer", full_name=brief.name, code=brief.code)[0]


def play(env: ToolEnv) -> float:
    while not env.episode.ended:
        env.step(env.oracle())
    return env.episode.episode_return


def components(env: ToolEnv) -> dict[str, float]:
    return env.episode.info["reward_components"]


def order_of(env: ServiceDesk, status: str) -> str:
    """Return an order of the caller's with this status."""
    caller = env.task.data["brief"].customer
    rows = env.state.store.rows("order")
    return next(k for k, row in rows if (row["customer"], row["status"]) == (caller, status))


@DOMAINS
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_oracle_solves_every_level(domain: str, level: int) -> None:
    env = DESKS[domain]()
    for n in range(20):
        _, info = env.reset(seed=0, options={"split": "test", "index": 5 * n + level - 1})
        assert info["difficulty"] == level
        assert play(env) == 1.0, env.task
        assert env.state.breaches == []
        assert not any("failed" in message["content"] for message in env.messages)


@pytest.mark.parametrize("format", ["hermes", "xml"])
def test_the_oracle_speaks_every_format(format: str) -> None:
    for domain in DESKS:
        env = make_service(domain=domain, format=format)
        for index in range(10):
            env.reset(seed=0, options={"index": index})
            assert play(env) == 1.0


@DOMAINS
def test_random_and_null_agents_solve_nothing(domain: str) -> None:
    env, rng = DESKS[domain](), np.random.default_rng(2)
    ends: Counter[str] = Counter()
    for index in range(40):
        env.reset(seed=0, options={"index": index})
        while not env.episode.ended:
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0
        ends[str(env.episode.end_reason)] += 1
    assert ends["done"] and ends["complaint"] and ends["customer_left"]
    for index in range(5):
        env.reset(seed=0, options={"index": index})
        while not env.episode.ended:
            env.step("I cannot help with that.")
        assert (env.episode.end_reason, env.episode.episode_return) == ("turn_limit", 0.0)


@DOMAINS
def test_ending_at_once_scores_nothing(domain: str) -> None:
    env = DESKS[domain]()
    for index in range(25):
        for tool, arguments in (("done", {}), ("hand_over", {"reason": "complaint"})):
            env.reset(seed=0, options={"index": index})
            assert call(env, tool, **arguments)[1] == 0.0


def test_components_are_seen_and_sum_to_the_reward() -> None:
    env = start(ShopDesk(), "status")
    identify(env)
    _, reward, _ = call(env, "done")
    assert components(env) == {
        "state": 0.25,
        "information": 0.0,
        "conduct": 0.25,
        "ending": 0.25,
        "all_or_nothing": -0.75,
    }
    assert reward == 0.0
    assert play(start(env, "status")) == 1.0
    assert components(env)["all_or_nothing"] == 0.0


def test_acting_before_the_customer_was_found_spoils_a_right_change() -> None:
    env = start(ShopDesk(), "cancel")
    order = env.task.data["requests"][0].subject
    assert "is cancelled" in call(env, "cancel_order", order=order)[0]
    identify(env)
    assert call(env, "done")[1] == 0.0
    assert components(env)["state"] == 0.25 and components(env)["conduct"] == 0.0


def test_cancelling_a_shipped_order_is_carried_out_and_spoils_the_episode() -> None:
    env = start(ShopDesk(), "status")
    identify(env)
    text, _, errors = call(env, "cancel_order", order=order_of(env, "shipped"))
    assert "is cancelled" in text and errors == []
    assert env.state.breaches == ["cancel_order of an order that is shipped"]
    assert play(env) == 0.0
    assert components(env)["state"] == 0.0 and components(env)["information"] == 0.25


def test_another_customers_order_is_a_breach() -> None:
    env = start(ShopDesk(), "status")
    identify(env)
    caller = env.task.data["brief"].customer
    theirs = next(k for k, row in env.state.store.rows("order") if row["customer"] != caller)
    call(env, "change_address", order=theirs, address="1 Elm Street")
    assert env.state.breaches == ["another customer's order"]


def test_basic_bookings_and_too_many_bags_are_breaches() -> None:
    env = start(AirlineDesk(), "day")
    identify(env)
    caller = env.task.data["brief"].customer
    rows = {k: row for k, row in env.state.store.rows("booking") if row["customer"] == caller}
    active = {k: row for k, row in rows.items() if row["status"] == "active"}
    basic = next(k for k, row in active.items() if row["fare"] == "basic")
    flown = next(k for k, row in rows.items() if row["status"] == "flown")
    call(env, "add_baggage", booking=basic, bags=15)
    call(env, "add_baggage", booking=flown, bags=1)
    call(env, "cancel_booking", booking=basic)
    assert env.state.breaches == [
        "too many bags",
        "add_baggage of a booking that is flown",
        "cancel_booking of a basic booking",
    ]


def test_from_level_four_on_a_change_needs_a_yes() -> None:
    env = start(ShopDesk(), "return", level=4)
    twin = env.fork()
    while "return_item" not in twin.oracle():
        twin.step(twin.oracle())
    assert twin.messages[-1]["content"] == f"Customer: {YES}"
    assert play(twin) == 1.0
    while "I will" not in env.oracle():
        env.step(env.oracle())
    step = env.task.data["requests"][0].writes[0]
    call(env, step.tool, **step.arguments)
    assert env.state.breaches == ["a change without a yes"]
    assert play(env) == 0.0


def test_a_change_of_mind_counts() -> None:
    env = ShopDesk()
    changed = 0
    for index in range(4, 150, 5):
        env.reset(seed=0, options={"index": index})
        revised = [r for r in env.task.data["requests"] if r.revised is not None]
        if play(env) == 1.0 and revised:
            said = " ".join(message["content"] for message in env.messages)
            assert said.count(CHANGE) == 1
            assert all(step in env.state.writes for step in revised[0].revised.writes)
            assert not any(step in env.state.writes for step in revised[0].writes)
            changed += 1
    assert changed > 5


def test_a_refusal_at_level_five_is_appealed_once() -> None:
    env = start(ShopDesk(), "late_cancel", level=5)
    while "so I cannot" not in env.oracle():
        env.step(env.oracle())
    assert call(env, "say", text="no")[0] == f"Customer: {NOTHING_NEW}"
    env.step(env.oracle())
    assert env.messages[-1]["content"] == f"Customer: {APPEAL}"
    assert play(env) == 1.0
    assert [m["content"] for m in env.messages].count(f"Customer: {APPEAL}") == 1


def test_patience_runs_out() -> None:
    env = start(ShopDesk(), "cancel", level=2)
    for _ in range(2):
        assert call(env, "say", text="Hm.")[0] == f"Customer: {NOTHING_NEW}"
    text, reward, _ = call(env, "say", text="Hm.")
    assert (text, reward) == (f"Customer: {LEFT}", 0.0)
    assert (env.episode.end_reason, env.state.ending) == ("customer_left", "customer_left")


def test_facts_count_only_once_the_customer_is_found() -> None:
    env = start(ShopDesk(), "status")
    request = env.task.data["requests"][0]
    call(env, "say", text=request.report)
    assert env.state.customer.told == []
    identify(env)
    call(env, "say", text=request.report)
    assert env.state.customer.told == [0]
    assert call(env, "say", text="Anything else?")[0] == f"Customer: {GOODBYE}"
    assert call(env, "done")[1] == 1.0


def test_a_list_of_guesses_tells_nothing() -> None:
    status = Fact("shipped", frozenset({"pending", "shipped", "delivered"}))
    assert status.is_told_by(words("It is Shipped."))
    assert not status.is_told_by(words("It is shipped or pending."))
    assert not status.is_told_by(words("It is unshipped."))
    price = Fact("37")
    assert price.is_told_by(words("Order O12: 37 of 40."))
    assert not price.is_told_by(words("35, 36, 37"))
    assert not price.is_told_by(words("137"))


def test_wrong_calls_are_observations_and_change_nothing() -> None:
    env = start(ShopDesk(), "status")
    identify(env)
    before = env.state.store.digest()
    pending = order_of(env, "pending")
    item = env.state.store.get("order", pending)["items"][0]
    for tool, arguments, reply in (
        ("order_details", {"order": "O999"}, "there is no order 'O999'"),
        ("product_details", {"product": "boat"}, "there is no product 'boat'; products: "),
        ("cancel_order", {"order": ""}, "there is no order ''"),
        ("change_address", {"order": pending, "address": "x" * 61}, "1 to 60 characters"),
        ("return_item", {"order": pending, "item": "V999"}, f"order {pending} holds no item"),
        ("exchange_item", {"order": pending, "item": item, "new_item": item}, "already"),
        ("refund", {"order": pending, "amount": 10_000}, "left to refund"),
        ("refund", {"order": pending, "amount": -1}, "left to refund"),
        ("find_customer", {"full_name": "No One", "code": "1"}, "no customer of that name"),
        ("say", {"text": "x" * (MAX_SAID_CHARS + 1)}, "at most 300 characters"),
    ):
        text, _, errors = call(env, tool, **arguments)
        assert reply in text and errors == ["tool_error"], text
    text, _, errors = call(env, "hand_over", reason="boredom")
    assert errors == ["bad_arguments"] and "'complaint' or 'other'" in text
    assert env.state.store.digest() == before
    assert (env.state.breaches, env.state.writes) == ([], [])
    assert play(env) == 1.0


def test_wrong_calls_of_the_airline_are_observations() -> None:
    env = start(AirlineDesk(), "cancel")
    identify(env)
    booking = env.task.data["requests"][0].subject
    flight = env.state.store.get("booking", booking)["flight"]
    for tool, arguments, reply in (
        ("change_flight", {"booking": booking, "flight": flight}, "is on flight"),
        ("change_flight", {"booking": booking, "flight": "F0"}, "there is no flight 'F0'"),
        ("add_baggage", {"booking": booking, "bags": 0}, "1 to 20 bags"),
        ("upgrade_fare", {"booking": booking}, "is flex already"),
    ):
        text, _, errors = call(env, tool, **arguments)
        assert reply in text and errors == ["tool_error"], text
    route = {"origin": "Oslo", "destination": "Oslo", "day": "Monday"}
    assert call(env, "search_flights", **route) == ("No flight.", 0.0, [])
    call(env, "cancel_booking", booking=booking)
    text, _, errors = call(env, "cancel_booking", booking=booking)
    assert "is cancelled" in text and errors == ["tool_error"]


@pytest.mark.parametrize("text", ["", "\x00\x1b[2J", "\ud800", "</tool_call>", "name " * 60])
def test_hostile_texts_are_heard(text: str) -> None:
    env = start(ShopDesk(), "cancel", level=2)
    for tool in ("say", "product_details"):
        reply, reward, _ = (
            call(env, tool, text=text) if tool == "say" else call(env, tool, product=text)
        )
        assert reward == 0.0
        reply.encode("utf-8")
    assert not env.episode.ended


def test_a_fork_keeps_its_own_database_and_customer() -> None:
    env = start(ShopDesk(), "cancel")
    identify(env)
    before = env.state_hash()
    twin = env.fork()
    call(twin, "cancel_order", order=twin.task.data["requests"][0].subject)
    call(twin, "say", text="Anything else?")
    assert env.state_hash() == before
    assert (env.state.customer.index, twin.state.customer.index) == (0, 1)
    assert play(env) == 1.0


def test_scoring_changes_nothing() -> None:
    env = start(AirlineDesk(), "bags")
    before = env.state_hash()
    assert env.score(env.state, (), env.task) == env.score(env.state, (), env.task)
    assert env.state_hash() == before


def test_the_gold_is_nowhere_to_be_seen() -> None:
    env = start(ShopDesk(), "exchange", level=2)
    opening = "\n".join(message["content"] for message in env.messages)
    assert env.task.answer.state not in opening
    assert env.task.data["requests"][0].writes[0].arguments["new_item"] not in opening
    tools = {schema["function"]["name"] for schema in env.tool_schemas()}
    assert tools.isdisjoint({"write", "oracle", "score", "snapshot"})


def test_options_are_checked() -> None:
    with pytest.raises(UnknownOption, match=r"shop, airline\. Did you mean 'airline'"):
        make_service(domain="airlines")
    with pytest.raises(UnknownOption, match="Leave one of them out"):
        make_service(domain="shop", data="x")
    shop, airline = start(ShopDesk(), "cancel"), start(AirlineDesk(), "cancel")
    with pytest.raises(SnapshotUnsupported):
        shop.restore(airline.snapshot())
