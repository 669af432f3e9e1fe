"""A JSON schema written elsewhere becomes a tool that validates by it, or is refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from treegrpo.envs import functional
from treegrpo.envs.schema_tools import schema_tool
from treegrpo.envs.tools import BadArguments, Tool, collect_tools


def built(properties: dict[str, Any], required: list[str]) -> Tool:
    """Return the tool "find" of these parameters, as make_tool_env makes it."""
    parameters = {"type": "object", "properties": properties, "required": required}
    schema = {"name": "find", "description": "Find a thing.", "parameters": parameters}
    call = schema_tool({"type": "function", "function": schema}, lambda **arguments: "found")
    return collect_tools(type("Owner", (), {"find": functional._method(call, taken={})}))["find"]


NESTED = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["x"],
    "additionalProperties": False,
}


def test_the_agent_is_shown_the_schema_as_it_was_given() -> None:
    properties = {
        "query": {"type": "string", "description": "What to find.", "maxLength": 9},
        "kind": {"enum": ["a", "b"]},
        "place": NESTED,
        "limit": {"type": "integer", "minimum": 1, "default": 3},
    }
    function = built(properties, ["query", "kind", "place"]).schema()["function"]
    assert (function["name"], function["description"]) == ("find", "Find a thing.")
    assert function["parameters"]["properties"] == properties
    assert function["parameters"]["required"] == ["query", "kind", "place"]


@pytest.mark.parametrize(
    ("schema", "good", "bad", "words"),
    [
        ({"type": "string", "minLength": 2}, "ab", "a", "at least 2"),
        ({"type": "string", "pattern": "^a"}, "ab", "b", "match pattern"),
        ({"type": "integer"}, 3, "x", "valid integer"),
        ({"type": "integer", "minimum": 1}, 1, 0, "greater than or equal to 1"),
        ({"type": "number", "exclusiveMaximum": 2}, 1.5, 2, "less than 2"),
        ({"type": "boolean"}, True, "x", "valid boolean"),
        ({"enum": ["a", 1]}, 1, "c", "'a' or 1"),
        ({"const": "a"}, "a", "b", "'a'"),
        ({"type": ["string", "null"]}, None, [], "valid string"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, "x", "valid integer"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [1], [1, 2], "at most 1"),
        ({"type": "array"}, [1, "a"], 3, "valid list"),
        ({"type": "object"}, {"a": 1}, [1], "valid dictionary"),
        (NESTED, {"x": 1.5, "tags": ["a"]}, {"x": 1, "y": 2}, "Extra inputs are not permitted"),
        (NESTED, {"x": 1.5}, {"tags": []}, "Field required"),
    ],
)
def test_arguments_are_held_to_the_schema(
    schema: dict[str, Any], good: Any, bad: Any, words: str
) -> None:
    found = built({"value": schema}, ["value"])
    assert found.validate({"value": good}) == {"value": good}
    with pytest.raises(BadArguments, match=words):
        found.validate({"value": bad})


def test_texts_are_coerced_as_everywhere() -> None:
    assert built({"n": {"type": "integer"}}, ["n"]).validate({"n": "3"}) == {"n": 3}


def test_an_optional_argument_that_was_left_out_is_not_passed() -> None:
    schema = {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 2}},
        },
    }
    seen: list[dict[str, Any]] = []
    call = schema_tool(schema, lambda **arguments: seen.append(arguments))
    call(a=None, b=2)
    call(a="x", b=3)
    assert seen == [{"b": 2}, {"a": "x", "b": 3}]


def test_without_parameters() -> None:
    call = schema_tool({"name": "now"}, lambda: 7)
    assert (call(), call.__name__) == ("7", "now")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"description": "x"}, r"needs a name; found \['description'\]"),
        ({"name": "f", "parameters": {"type": "array"}}, "must be an object schema, found type"),
        (
            {"name": "f", "parameters": {"type": "object", "required": ["a"]}},
            "'a' is required but not described",
        ),
        (
            {"name": "f", "parameters": {"type": "object", "oneOf": []}},
            "Tool 'f': the keyword 'oneOf' is not checked here for type object",
        ),
    ],
)
def test_a_tool_that_cannot_be_made(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        schema_tool(schema, print)


@pytest.mark.parametrize(
    ("key", "schema", "words"),
    [
        ("a", {"type": "text"}, "parameter 'a': type 'text' asked for; known types: string"),
        ("a", {}, "type None asked for"),
        ("a", {"$ref": "#/x"}, "type None asked for"),
        ("a", {"type": "string", "minimum": 1}, "keyword 'minimum' is not checked here for type"),
        ("a", {"enum": [1], "minimum": 1}, "is not checked here for this schema"),
        ("a", "string", "a schema must be an object, found 'string'"),
        ("a", {"type": "array", "items": {"type": "x"}}, "parameter 'a', items: type 'x'"),
        ("a", {"type": "object", "properties": {"b": {"type": "x"}}}, r"parameter 'a'\.b: type"),
        (
            "a",
            {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
            "'additionalProperties' must be true or false",
        ),
        ("a-b", {"type": "string"}, "must be spelled like a Python name"),
    ],
)
def test_a_parameter_that_cannot_be_checked(key: str, schema: Any, words: str) -> None:
    parameters = {"type": "object", "properties": {key: schema}, "required": [key]}
    with pytest.raises(TypeError, match=words):
        schema_tool({"name": "f", "parameters": parameters}, print)
