from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.envs.toys import Sum
from treegrpo.envs.formats import FORMATS, get_format
from treegrpo.envs.tools import collect_tools, tool

TAGS = ["<tool_call>", "</tool_call>", "<add>", "</add>", "<think>", "<move>", "<source>", "{", "}"]
BITS = [*TAGS, '"name"', ":", '"add"', '"arguments"', "[", "]", ",", "1", "9" * 50, "\\ud800", " "]
hostile = st.text() | st.lists(st.sampled_from(BITS), max_size=30).map("".join)
trimmed = st.text(max_size=30).map(str.strip)


class Owner:
    @tool
    def search(self, query: str) -> str:
        """Search."""
        return query

    @tool
    def move(self, source: str, target: str = "") -> str:
        """Move."""
        return source + target


TOOLS = collect_tools(Owner)


@pytest.mark.parametrize("format", sorted(FORMATS))
@given(text=hostile)
def test_parsing_never_raises(format: str, text: str) -> None:
    parsed = get_format(format).parse(text, collect_tools(Sum))
    assert all(isinstance(call.name, str) for call in parsed.calls)
    assert all(error.isascii() for error in parsed.errors)


@pytest.mark.parametrize("format", sorted(FORMATS))
@given(query=trimmed, source=trimmed, target=trimmed)
def test_what_is_encoded_is_read_back(format: str, query: str, source: str, target: str) -> None:
    codec = get_format(format)
    for name, arguments in (
        ("search", {"query": query}),
        ("move", {"source": source, "target": target}),
        ("move", {"source": source}),
    ):
        parsed = codec.parse(codec.encode(TOOLS[name], arguments), TOOLS)
        assert parsed.errors == ()
        assert [(call.name, call.arguments) for call in parsed.calls] == [(name, arguments)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_hermes_carries_any_json(arguments: dict[str, Any]) -> None:
    codec = get_format("hermes")
    (call,) = codec.parse(codec.encode(TOOLS["search"], arguments), TOOLS).calls
    assert call.arguments == arguments


@pytest.mark.parametrize("format", sorted(FORMATS))
@given(texts=st.lists(hostile, min_size=1, max_size=4))
def test_nothing_that_an_agent_writes_raises_or_leaves_the_space(
    format: str, texts: list[str]
) -> None:
    env = Sum(format=format)
    env.reset(seed=0)
    for text in texts:
        observation, reward, terminated, truncated, info = env.step(text)
        assert observation in env.observation_space and observation.encode("utf-8")
        assert reward == sum(info["reward_components"].values())
        assert not (terminated and truncated)
        env.restore(env.snapshot())
        if terminated or truncated:
            break
