"""A server's tools taken over: names, schemas, effects, arguments."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from mcp.types import Tool as Listed

from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.envs.mcp.extra import require_mcp
from treegrpo.envs.mcp.tools import ServerTool, take_over
from treegrpo.envs.tools import RESERVED, BadArguments


def listed(name: str, properties: dict[str, Any] | None = None, **more: Any) -> Listed:
    schema = {"type": "object", "properties": properties or {}, **more.pop("schema", {})}
    return Listed.model_validate({"name": name, "inputSchema": schema, **more})


def one(properties: dict[str, Any], **more: Any) -> ServerTool:
    return take_over([listed("t", properties, **more)])["t"]


def test_the_schema_is_shown_as_the_server_gave_it() -> None:
    odd = {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}], "default": None}
    found = one({"a": {"type": "integer", "minimum": 3}, "b": odd}, schema={"required": ["a"]})
    shown = found.schema()["function"]
    assert shown["parameters"]["properties"] == {"a": {"type": "integer", "minimum": 3}, "b": odd}
    shown["parameters"]["properties"].clear()
    assert found.schema()["function"]["parameters"]["properties"]["b"] == odd
    assert found.parameter_names == ["a", "b"]


def test_effects_follow_the_servers_annotations() -> None:
    tools = take_over(
        [
            listed("look", annotations={"readOnlyHint": True}),
            listed("set", annotations={"readOnlyHint": False}),
            listed("plain"),
        ]
    )
    assert [t.effects for t in tools.values()] == ["read", "write", "write"]


def test_arguments_are_coerced_and_what_was_left_out_stays_out() -> None:
    found = one(
        {"n": {"type": "integer"}, "s": {"type": "string", "default": "x"}, "any": True},
        schema={"required": ["n"]},
    )
    assert found.validate({"n": "3"}) == {"n": 3}
    assert found.validate({"n": 3, "any": [1]}) == {"n": 3, "any": [1]}
    assert found.validate({"n": 3, "s": "y"}) == {"n": 3, "s": "y"}
    for wrong in ({}, {"n": "x"}, {"n": 1, "other": 2}):
        with pytest.raises(BadArguments, match="t takes: n, s, any"):
            found.validate(wrong)


def test_an_open_schema_takes_more() -> None:
    found = one({"n": {"type": "integer"}}, schema={"additionalProperties": True})
    assert found.validate({"n": "1", "more": "x"}) == {"n": 1, "more": "x"}


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_control_call_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnknownOption, match=f"'{name}', which is a control call.*rename"):
        take_over([listed(name)])
    with pytest.raises(UnknownOption, match="is a control call"):
        take_over([listed("fine")], rename={"fine": name})
    assert list(take_over([listed(name)], rename={name: "other"})) == ["other"]
    assert take_over([listed(name), listed("fine")], only=["fine"]).keys() == {"fine"}


def test_a_name_is_used_once() -> None:
    with pytest.raises(UnknownOption, match="and so is another tool"):
        take_over([listed("answer")], taken=["answer"])
    with pytest.raises(UnknownOption, match="and so is another tool"):
        take_over([listed("a"), listed("b")], rename={"b": "a"})


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownOption, match=r"it has: total, add\. Did you mean 'total'"):
        take_over([listed("total"), listed("add")], only=["totl"])
    with pytest.raises(UnknownOption, match="Tool 'x' of the MCP server asked for"):
        take_over([listed("total")], rename={"x": "y"})


def test_a_missing_extra_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(TreegrpoError, match=r"pip install 'treegrpo\[mcp\]'"):
        require_mcp()
