"""The viewer's page: its data, its escaping, its caps, its policy."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.viewer_fixture import HOSTILE, call, hostile_tree, wide_tree
from treegrpo.leaderboards.site import viewer_data
from treegrpo.leaderboards.site.viewer import ViewerPage, content_policy, render_viewer
from treegrpo.leaderboards.site.viewer_data import MAX_DATA_BYTES, page_data, script_json
from treegrpo.leaderboards.site.viewer_model import Link, ViewerNode, ViewerTree
from treegrpo.leaderboards.site.viewer_text import (
    Action,
    Call,
    clean_text,
    clean_word,
    read_action,
)

LOADING = ("src", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href")


class Markup(HTMLParser):
    """What a browser would build of a page: its tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def page_of(*trees: ViewerTree, **around: Any) -> str:
    given: dict[str, Any] = {"title": "A run", "source": "trees.jsonl", **around}
    return render_viewer(ViewerPage(trees=trees, **given))


def data_of(*trees: ViewerTree) -> dict[str, Any]:
    return json.loads(page_data(trees, "trees.jsonl"))


def chain(*nodes: dict[str, Any]) -> ViewerTree:
    """Return a tree of one branch; what a node does not say is empty."""
    built = [
        ViewerNode(str(i), str(i - 1) if i else None, i, **fields) for i, fields in enumerate(nodes)
    ]
    return ViewerTree("t", tuple(built))


# ---- the data


def test_the_data_hold_every_step_once_with_its_parent_before_it() -> None:
    tree = wide_tree(200)
    nodes = data_of(tree)["trees"][0]["nodes"]
    assert [node["id"] for node in nodes] == [node.id for node in tree.nodes]
    assert nodes[0]["parent"] == -1
    number = {node.id: i for i, node in enumerate(tree.nodes)}
    parents = [number[str(node.parent)] for node in tree.nodes[1:]]
    assert [node["parent"] for node in nodes[1:]] == parents
    assert all(parent < i for i, parent in enumerate(parents, start=1))


def test_a_step_says_all_that_is_known_and_nothing_that_is_not() -> None:
    known: dict[str, Any] = {
        "action": "Look." + call("search", query="Sund", k=3),
        "observation": "Maren.",
        "reward": 0.25,
        "reward_parts": {"right": "0.25"},
        "credit": -0.5,
        "value": 0.0,
        "outcome": "wrong",
        "end_reason": "turn_limit",
        "tokens": 0,
        "weight_version": 3,
        "state_hash": "ab",
    }
    assert data_of(chain({}, known))["trees"][0]["nodes"] == [
        {"id": "0", "parent": -1, "step": 0},
        {
            "id": "1", "parent": 0, "step": 1, "thought": "Look.",
            "calls": [["search", "query: Sund\nk: 3"]], "seen": "Maren.",
            "parts": [["right", "0.25"]], "outcome": "wrong", "reason": "turn limit",
            "state": "ab", "reward": 0.25, "credit": -0.5, "value": 0.0, "tokens": 0,
            "weights": 3,
        },
    ]  # fmt: skip


def test_the_scale_is_the_largest_credit_of_the_page() -> None:
    assert data_of(chain({}, {"credit": -1.5}), chain({}, {"credit": 0.5}))["scale"] == 1.5
    assert data_of(chain({}, {}))["scale"] == 0.0


def test_a_long_observation_is_cut_and_counted() -> None:
    node = data_of(chain({}, {"observation": "x" * 1_000_000}))["trees"][0]["nodes"][1]
    assert node["seen"] == "x" * 20_000
    assert node["seen_cut"] == 980_000


def test_a_long_action_is_cut_and_counted() -> None:
    text = "y" * 30_000 + "".join(call("a", q="z" * 21_000) for _ in range(10))
    node = data_of(chain({}, {"action": text}))["trees"][0]["nodes"][1]
    assert len(node["thought"]) == 20_000
    # Of 100,000 characters that are read, the last call is cut off in its middle and is thought.
    assert len(node["calls"]) == 3
    assert node["action_cut"] >= len(text) - 100_000 + 3 * 1_000


def test_more_calls_than_are_shown_are_counted() -> None:
    text = "".join(call("a", q=i) for i in range(11))
    node = data_of(chain({}, {"action": text}))["trees"][0]["nodes"][1]
    assert (len(node["calls"]), node["more_calls"]) == (8, 3)


def test_texts_are_cut_further_before_trees_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(viewer_data, "MAX_DATA_BYTES", 600_000)
    long = [chain({"observation": "x" * 5_000}, {"observation": "y" * 5_000})] * 200
    data = data_of(*long)
    assert (len(data["trees"]), data["left_out"]) == (200, 0)
    assert data["trees"][0]["nodes"][0]["seen"] == "x" * 1_000


def test_a_page_stays_below_its_cap_and_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(viewer_data, "MAX_DATA_BYTES", 20_000)
    text = page_data([wide_tree(60)] * 8, "trees.jsonl")
    data = json.loads(text)
    assert len(text) <= 20_000
    assert (len(data["trees"]), data["left_out"]) == (1, 7)
    one = json.loads(page_data([wide_tree(900)], "trees.jsonl"))["trees"][0]
    assert (len(one["nodes"]) + one["left_out"], one["left_out"] > 0) == (900, True)


def test_ten_thousand_steps_fit_below_the_cap() -> None:
    tree = wide_tree(10_000)
    assert len(page_data([tree], "trees.jsonl")) <= MAX_DATA_BYTES


# ---- hostile text


def test_hostile_text_cannot_leave_the_data() -> None:
    page = page_of(hostile_tree(), title=HOSTILE, headline=HOSTILE, facts=((HOSTILE, HOSTILE),))
    names = [tag for tag, _ in Markup(page).tags]
    assert (names.count("script"), names.count("style"), names.count("img")) == (2, 1, 0)
    attributes = [name for _, found in Markup(page).tags for name in found]
    assert not [name for name in attributes if name.startswith("on")]
    kept = {c for c in page if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\ud800"}
    assert kept == {"\n"}
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert json.loads(data)["trees"][0]["title"].startswith("</script><script>")


@given(st.text(max_size=200))
def test_data_can_never_end_their_element(text: str) -> None:
    safe = script_json([text])
    assert safe.isascii() and not set("<>&") & set(safe)
    assert json.loads(safe) == [text]


def test_a_page_loads_nothing() -> None:
    page = page_of(wide_tree(20), links=(Link("All steps", "../index.html"),))
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import", page)
    links = [found["href"] for tag, found in Markup(page).tags if tag == "a"]
    assert links == ["../index.html"]
    for tag, attributes in Markup(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not set(attributes) & set(LOADING)
        assert "style" not in attributes  # the policy would refuse it


def test_the_policy_allows_exactly_the_pages_own_style_and_script() -> None:
    page = page_of(wide_tree(3))
    policy = content_policy(page)
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; ")
    for tag in ("style", "script"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        found = b64encode(sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{found}'" in policy
    assert "unsafe" not in policy


def test_pages_of_transcripts_are_kept_from_search_engines() -> None:
    found = [a for tag, a in Markup(page_of(wide_tree(3))).tags if a.get("name") == "robots"]
    assert found == [{"name": "robots", "content": "noindex, nofollow"}]


def test_the_script_writes_text_only_as_text() -> None:
    page = page_of(wide_tree(3))
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in page


# ---- texts


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("one\r\ntwo\rthree\tfour\n", "one\ntwo\nthree\tfour"),
        ("\x1b[31mred", "\u241b[31mred"),
        ("a\u202eb\u200bc\ud800", "a\ufffdb\ufffdc\ufffd"),
        ("caf\u00e9 \u4f60\u597d", "caf\u00e9 \u4f60\u597d"),
    ],
)
def test_hidden_characters_are_shown(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


def test_a_word_is_short_and_on_one_line() -> None:
    assert clean_word("a\n b\t" + "c" * 100) == "a b " + "c" * 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (call("search", query="Ana"), Action("", (Call("search", "query: Ana"),))),
        ("I look. " + call("a", x="1", y=2), Action("I look.", (Call("a", "x: 1\ny: 2"),))),
        ("<think>hm</think>" + call("tables"), Action("hm", (Call("tables", ""),))),
        (call("a", q="b") * 2, Action("", (Call("a", "q: b"), Call("a", "q: b")))),
        (call("a", q={"b": [1]}), Action("", (Call("a", 'q: {\n "b": [\n  1\n ]\n}'),))),
        ('<tool_call>{"name": "a"}', Action("", (Call("a", ""),))),  # as environments read it
        ("<search>home of Ana</search>", Action("", (Call("search", "home of Ana"),))),
        ("<move><to>b</to></move>", Action("", (Call("move", "to: b"),))),
        ("<tool_call>{broken</tool_call>", Action("<tool_call>{broken</tool_call>", ())),
        ("<tool_call>[1]</tool_call>", Action("<tool_call>[1]</tool_call>", ())),
        ("<think>never closed", Action("<think>never closed", ())),
        ("1 < 2 and nothing else", Action("1 < 2 and nothing else", ())),
        ("", Action("", ())),
    ],
)
def test_read_action(text: str, expected: Action) -> None:
    assert read_action(text) == expected


@pytest.mark.parametrize(
    "text", ["<think>", "<tool_call>", "<a>", "<tool_call>{", "</think>", "<tool_call></tool_call>"]
)
def test_reading_takes_time_in_proportion(text: str) -> None:
    def seconds(times: int) -> float:
        started = time.process_time()
        read_action(text * times)
        return time.process_time() - started

    # Sixteen times the text: quadratic reading would take 256 times as long.
    assert seconds(16_000) < 0.05 + 100 * max(seconds(1_000), 1e-4)


@given(st.text(alphabet="<>/atoolcthink_ {}\"':,1\n", max_size=120))
def test_no_text_of_an_action_gets_lost(text: str) -> None:
    action = read_action(text)
    if not action.calls and "<think>" not in text:
        assert action.thought == text.strip()


def test_a_deeply_nested_call_is_no_crash() -> None:
    text = '<tool_call>{"name": "a", "arguments": {"b": ' + "[" * 100_000
    assert read_action(text).calls == ()


def test_numbers_are_rounded_and_floats_stay_finite() -> None:
    node = replace(chain({}).nodes[0], credit=1 / 3)
    assert data_of(ViewerTree("t", (node,)))["trees"][0]["nodes"][0]["credit"] == 0.333333333
