"""WebShopEnv: tools, budgets, rewards, its oracle, and what the agent can see."""

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.suite.web_shop.env import WebShopEnv
from treegrpo.envs.suite.web_shop.session import MAX_FIELD_CHARS, MAX_HISTORY, Session
from treegrpo.envs.suite.web_shop.site import ORDERED
from treegrpo.envs.suite.web_shop.tasks import BUDGETS

LEVELS = (1, 2, 3, 4, 5)


def start(level: int, number: int = 0, split: str = "test", **settings: str) -> WebShopEnv:
    """Return an environment at a task of one level."""
    env = WebShopEnv(**settings)
    _, info = env.reset(seed=0, options={"split": split, "index": 5 * number + level - 1})
    assert info["difficulty"] == level
    return env


def call(env: WebShopEnv, tool: str, **arguments: str) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    return text, reward, info["errors"]


def play(env: WebShopEnv, until: str = "") -> float:
    """Let the oracle go on, to the end or to an action that holds a text; return the return."""
    while not env.episode.ended:
        action = env.oracle()
        if until and until in action:
            break
        env.step(action)
    return env.episode.episode_return


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_solves_every_level_without_a_failed_call(level: int) -> None:
    for number in range(5):
        for split in ("train", "validation", "test"):
            env = start(level, number, split)
            assert play(env) == 1.0, env.messages
            assert env.episode.end_reason == "ordered"
            assert not any("failed" in message["content"] for message in env.messages)
            assert env.episode.tool_calls < BUDGETS[level]


@pytest.mark.parametrize("format", ["hermes", "xml"])
def test_the_oracle_speaks_every_format(format: str) -> None:
    for level in LEVELS:
        assert play(start(level, format=format)) == 1.0


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_goes_on_from_where_a_random_agent_left_it(level: int) -> None:
    rng, lost = np.random.default_rng(7), 0
    for number in range(6):
        env = start(level, number)
        env.max_tool_calls = env.max_turns = env.episode.max_tool_calls = 200
        for _ in range(25):
            action = env.sample_action(rng)
            if "buy now" not in action and "place order" not in action:
                env.step(action)
        lost += env.state != Session()
        assert play(env) == 1.0, env.messages
    assert lost == 6


def test_doing_nothing_and_random_calls_solve_nothing() -> None:
    env, rng = WebShopEnv(), np.random.default_rng(3)
    ends: Counter[str] = Counter()
    returns: list[float] = []
    for index in range(40):
        env.reset(seed=0, options={"index": index})
        while not env.episode.ended:
            env.step("" if index % 4 == 0 else env.sample_action(rng))
        if index % 4 == 0:
            assert env.episode.end_reason == "turn_limit" and env.episode.episode_return == 0.0
        ends[str(env.episode.end_reason)] += 1
        returns.append(env.episode.episode_return)
    assert max(returns) < 1.0 and sum(returns) / len(returns) < 0.05
    assert ends["ordered"] > 0 and ends["tool_call_limit"] > 0


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_sets_the_budget_of_calls(level: int) -> None:
    env = start(level)
    for _ in range(100):
        if not env.episode.ended:
            assert call(env, "search", query="lamp")[1] == 0.0
    assert env.episode.tool_calls == BUDGETS[level] == env.episode.max_tool_calls
    assert env.episode.truncated and env.episode.end_reason is not None


def test_a_fork_before_the_order_can_still_change_its_mind() -> None:
    env = start(4)
    play(env, until="place order")
    other = env.fork()
    assert call(other, "type", field="city", text="Nowhere")[2] == []
    assert play(env) == 1.0
    text, reward, _ = call(other, "click", element="place order")
    assert text == ORDERED and 0.8 < reward < 1.0
    assert env.state.order != other.state.order


def test_an_order_ends_the_episode_and_of_another_kind_scores_nothing() -> None:
    env = start(1)
    wanted = env.task.answer.wishes[0].kind
    products = env._site.shop.products
    other = next(p for p in products if p.kind != wanted and not p.is_sold_out)
    call(env, "goto", page=other.id)
    text, reward, terminated, _, info = env.step(env.encode_call("click", element="buy now"))
    assert (text, reward, terminated) == (ORDERED, 0.0, True)
    assert info["reward_components"] == {"match": 0.0} and info["end_reason"] == "ordered"


@pytest.mark.parametrize(
    ("tool", "arguments", "reply"),
    [
        ("search", {"query": "  "}, "the search is empty"),
        ("click", {"element": "buy it"}, "there is no [buy it] here; this page has [offers]"),
        ("click", {"element": "\x00\ud800"}, "there is no ["),
        ("click", {"element": ""}, "there is no [] here"),
        ("type", {"field": "name", "text": "Ada"}, "there is no <name> here; this page has no"),
        ("back", {}, "there is no page to go back to"),
        ("goto", {"page": "chekout"}, "pages are home, cart, checkout, offers, login"),
        ("goto", {"page": "chekout"}, "Did you mean 'checkout'?"),
        ("goto", {"page": "checkout"}, "the cart is empty; add something before checkout"),
        ("goto", {"page": "p9999"}, "or a product's id."),
    ],
)
def test_what_cannot_be_done_is_told(tool: str, arguments: dict[str, str], reply: str) -> None:
    env = start(5)
    before = json.dumps(asdict(env.state))
    text, reward, errors = call(env, tool, **arguments)
    assert reply in text and (reward, errors) == (0.0, ["tool_error"])
    assert json.dumps(asdict(env.state)) == before


@pytest.mark.parametrize(
    "action",
    [
        '{"name": "click", "arguments": {}}',
        '{"name": "click", "arguments": {"element": ["a"]}}',
        '{"name": "type", "arguments": {"field": "city"}}',
        '{"name": "type", "arguments": {"field": {"a": 1}, "text": null}}',
        '{"name": "goto", "arguments": {"page": "home", "now": true}}',
    ],
)
def test_wrong_arguments_are_told(action: str) -> None:
    env = start(3)
    text, _, _, _, info = env.step(f"<tool_call>\n{action}\n</tool_call>")
    assert text.startswith("Bad arguments: ") and info["errors"] == ["bad_arguments"]


def test_huge_texts_are_cut_and_visits_stay_small() -> None:
    env = start(5)
    play(env, until='"city"')
    for _ in range(8):
        assert call(env, "type", field="city", text="x" * 5_000)[2] == []
        call(env, "search", query="y" * 5_000)
        call(env, "goto", page="checkout")
    assert len(env.state.fields["city"]) == MAX_FIELD_CHARS
    assert len(env.state.history) == MAX_HISTORY
    assert len(env.snapshot().to_bytes()) < 200_000


def test_pages_are_short() -> None:
    longest = 0
    for number in range(4):
        for level in LEVELS:
            env = start(level, number)
            play(env)
            longest = max(longest, *(len(m["content"]) for m in env.messages))
    assert longest < 700


def test_what_is_right_is_not_shown() -> None:
    """Nothing that the agent sees before it acts names a product, and no info holds the goal."""
    for level in LEVELS:
        env = WebShopEnv()
        text, info = env.reset(seed=0, options={"index": level - 1})
        assert not any(product in text for product in env._site.shop.by_id)
        assert "Goal(" not in repr(info) and "Wish(" not in repr(info)


def test_files_need_data() -> None:
    for name in ("attributes", "instructions"):
        with pytest.raises(UnknownOption, match=f"{name}='x.json' of WebShop asked for, but no"):
            WebShopEnv(**{name: "x.json"})
