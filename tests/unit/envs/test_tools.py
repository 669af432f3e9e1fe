from __future__ import annotations

import enum
import warnings
from typing import Any, Literal

import pytest

from treegrpo.envs import ToolEnv
from treegrpo.envs.tools import RESERVED, BadArguments, Tool, collect_tools, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Desk:
    @tool
    def search(self, query: str, limit: int = 3) -> str:
        """Search the documents
        for words.

        More about it.

        Args:
            query: the words,
                in any order.
            limit: how many.

        Returns:
            never shown.
        """  # noqa: D205
        return query

    @tool(effects="write", cost=2)
    def paint(
        self,
        colours: list[str],
        size: float,
        mood: Literal["calm", "wild"],
        frame: bool = False,
        main: Colour = Colour.RED,
        schema: str | None = None,
        copy: dict[str, int] | None = None,
    ) -> str:
        """Paint."""
        return f"{colours}"

    def private(self) -> str:
        """Not a tool."""
        return ""


def tools() -> dict[str, Tool]:
    return dict(collect_tools(Desk))


def test_the_schema_comes_from_hints_and_docstring() -> None:
    assert tools()["search"].schema() == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the documents for words.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "the words, in any order."},
                    "limit": {"type": "integer", "default": 3, "description": "how many."},
                },
                "required": ["query"],
            },
        },
    }


def test_only_marked_methods_are_tools_with_their_marks() -> None:
    assert list(tools()) == ["search", "paint"]
    assert (tools()["paint"].effects, tools()["paint"].cost) == ("write", 2)
    assert (tools()["search"].effects, tools()["search"].cost) == ("read", 1)


def test_parameters_may_be_named_like_pydantics_methods() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paint = tools()["paint"]
    names = ["colours", "size", "mood", "frame", "main", "schema", "copy"]
    assert paint.parameter_names == names
    assert list(paint.schema()["function"]["parameters"]["properties"]) == names


@pytest.mark.parametrize(
    ("arguments", "coerced"),
    [
        ({"query": "x"}, {"query": "x", "limit": 3}),
        ({"query": "x", "limit": "7"}, {"query": "x", "limit": 7}),
        ({"query": "[1]", "limit": 7.0}, {"query": "[1]", "limit": 7}),
    ],
)
def test_arguments_are_softly_coerced(arguments: dict[str, Any], coerced: dict[str, Any]) -> None:
    assert tools()["search"].validate(arguments) == coerced


def test_texts_are_read_as_json_where_text_is_wrong() -> None:
    given = {"colours": '["a", "b"]', "size": "1.5", "mood": "wild", "copy": '{"n": 2}'}
    valid = tools()["paint"].validate(given | {"main": "blue", "frame": "true"})
    assert valid == {
        "colours": ["a", "b"],
        "size": 1.5,
        "mood": "wild",
        "frame": True,
        "main": Colour.BLUE,
        "schema": None,
        "copy": {"n": 2},
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "query: Field required. search takes: query, limit."),
        ({"query": "x", "limt": 1}, "limt: Extra inputs are not permitted. search takes: query"),
        ({"query": "x", "limit": "many"}, "limit: Input should be a valid integer"),
        ({"query": None}, "query: Input should be a valid string"),
        ({"query": "x", "limit": "[" * 100_000}, "limit: Input should be a valid integer"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadArguments) as caught:
        tools()["search"].validate(arguments)
    assert str(caught.value).startswith(says)


def test_a_hundred_wrong_arguments_make_a_short_message() -> None:
    with pytest.raises(BadArguments) as caught:
        tools()["search"].validate({f"x{number}": 1 for number in range(100)})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_control_calls_cannot_be_tools(name: str) -> None:
    def method(self: object) -> str:
        return ""

    with pytest.raises(TypeError, match="is a control call"):
        collect_tools(type("Owner", (), {name: tool(method)}))


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_class_with_a_control_call_as_a_tool_cannot_be_made(name: str) -> None:
    def method(self: object) -> str:
        return ""

    with pytest.raises(TypeError, match=f"'{name}': it is a control call. Rename the tool"):
        type("Owner", (ToolEnv,), {name: tool(method)})


@pytest.mark.parametrize("name", ["setup", "state_hash", "oracle", "unwrapped", "np_random"])
def test_nor_can_one_with_a_part_of_the_contract(name: str) -> None:
    def method(self: object) -> str:
        return ""

    with pytest.raises(TypeError, match=f"'{name}': the name means something in every"):
        type("Owner", (ToolEnv,), {name: tool(method)})


def test_parameters_without_hints_or_names_are_the_authors_bug() -> None:
    class Unhinted:
        @tool
        def go(self, where) -> str:  # type: ignore[no-untyped-def] # pyright: ignore
            """Go."""
            return ""

    class Open:
        @tool
        def go(self, **where: str) -> str:
            """Go."""
            return ""

    with pytest.raises(TypeError, match="parameter 'where' needs a type hint"):
        collect_tools(Unhinted)
    with pytest.raises(TypeError, match="cannot be described"):
        collect_tools(Open)


def test_a_subclass_may_add_override_and_take_away() -> None:
    class Corner(Desk):
        paint = None  # type: ignore[assignment]

        @tool
        def sit(self) -> str:
            """Sit."""
            return ""

    assert list(collect_tools(Corner)) == ["search", "sit"]
    assert list(collect_tools(Desk)) == ["search", "paint"]
