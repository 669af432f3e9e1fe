from __future__ import annotations

import json
from typing import Any

import pytest

from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.formats import FORMATS, ToolCall, get_format
from treegrpo.envs.tools import collect_tools, tool


class Owner:
    @tool
    def search(self, query: str) -> str:
        """Search."""
        return ""

    @tool
    def move(self, source: str, target: str) -> str:
        """Move."""
        return ""

    @tool
    def stop(self) -> str:
        """Stop."""
        return ""


TOOLS = collect_tools(Owner)


def calls(format: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in get_format(format).parse(text, TOOLS).calls]


def test_hermes_reads_calls_in_order_among_prose() -> None:
    text = (
        'First <tool_call>{"name": "search", "arguments": {"query": "Oslo"}}</tool_call> then\n'
        '<tool_call>\n{"name": "stop"}\n</tool_call>'
    )
    assert calls("hermes", text) == [("search", {"query": "Oslo"}), ("stop", {})]


def test_hermes_reads_a_call_without_its_end_and_real_newlines() -> None:
    text = '<tool_call>{"name": "search", "arguments": {"query": "a\nb"}}'
    assert calls("hermes", text) == [("search", {"query": "a\nb"})]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{oops", "not valid JSON"),
        ("", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"arguments": {}}', "needs a name"),
        ('{"name": 3}', "needs a name"),
        ('{"name": "search", "arguments": [1]}', "arguments of a tool call must be"),
        ("[" * 100_000, "too large"),
        (f'{{"name": "search", "arguments": {{"query": {"9" * 5_000}}}}}', "too large"),
    ],
)
def test_hermes_says_what_it_could_not_read(body: str, says: str) -> None:
    parsed = get_format("hermes").parse(f"<tool_call>{body}</tool_call>", TOOLS)
    assert parsed.calls == ()
    assert len(parsed.errors) == 1 and says in parsed.errors[0]


def test_hermes_keeps_the_good_calls_beside_bad_ones() -> None:
    text = '<tool_call>{</tool_call><tool_call>{"name": "stop"}</tool_call>'
    parsed = get_format("hermes").parse(text, TOOLS)
    assert parsed.calls == (ToolCall("stop", {}),) and len(parsed.errors) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<search> Oslo </search>", [("search", {"query": "Oslo"})]),
        ("<search>a < b &amp; c</search>", [("search", {"query": "a < b & c"})]),
        ("<search><query>Oslo</query></search>", [("search", {"query": "Oslo"})]),
        ("<search>the <b>bold</b></search>", [("search", {"query": "the <b>bold</b>"})]),
        (
            "<move><source>a</source><target>b</target></move>",
            [("move", {"source": "a", "target": "b"})],
        ),
        ("<move>a</move>", [("move", {"source": "a"})]),
        ("<stop></stop>", [("stop", {})]),
        ("<stop>now</stop>", [("stop", {"text": "now"})]),
        ("<fly>up</fly>", [("fly", {"text": "up"})]),
        ("<think><search>x</search></think><stop></stop>", [("stop", {})]),
        ("<search>no end", [("search", {"query": "no end"})]),
        ("plain words", []),
    ],
)
def test_xml_reads_tags(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls("xml", text) == expected


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("value", ["Oslo", "</tool_call>", "</search>", '"', "a<b>&amp;", "\u00e9"])
def test_what_is_encoded_is_read_back(format: str, value: str) -> None:
    encode = get_format(format).encode
    assert calls(format, encode(TOOLS["search"], {"query": value})) == [
        ("search", {"query": value})
    ]
    both = {"source": value, "target": "x"}
    assert calls(format, encode(TOOLS["move"], both)) == [("move", both)]
    assert calls(format, encode(TOOLS["stop"], {})) == [("stop", {})]


def test_xml_writes_other_values_as_json() -> None:
    text = get_format("xml").encode(TOOLS["search"], {"query": [1, True]})
    assert json.loads(calls("xml", text)[0][1]["query"]) == [1, True]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(UnknownOption, match=r"known formats: hermes, xml\. Did you mean 'hermes'"):
        get_format("herms")
