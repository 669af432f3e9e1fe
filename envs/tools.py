"""Tools: a method's type hints and docstring become a schema, its calls are validated.

    @tool
    def search(self, query: str, limit: int = 3) -> str:
        "Search the documents."

Validation and soft coercion ("3" -> 3) are pydantic's. A wrong call is an observation for
the agent, never an exception for the caller.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, overload

import pydantic
from pydantic_core import ErrorDetails

RESERVED = frozenset({"reset", "step", "snapshot", "restore", "fork", "close", "render", "score"})
"""Control calls: an agent can never reach them, so no tool may take their name."""

Effects = Literal["read", "write"]
MAX_FAULTS = 3
"""How many wrong arguments of one call are told to the agent."""
_MARK = "__treegrpo_tool__"
_CONTROL = "A tool cannot be called '{}': it is a control call. Rename the tool."
F = TypeVar("F", bound=Callable[..., Any])


class BadArguments(Exception):
    """Arguments that the tool does not accept; the text is meant for the agent."""


@dataclass(frozen=True)
class Tool:
    """One tool: its name, its schema and the method behind it.

    `effects` is "write" when a call may change the state; `cost` is what a call takes from
    the budget of tool calls.
    """

    name: str
    description: str
    effects: Effects
    cost: int
    arguments: type[pydantic.BaseModel]

    def schema(self) -> dict[str, Any]:
        """Return the OpenAI-style function schema, free of titles."""
        parameters = _untitled(self.arguments.model_json_schema())
        parameters.pop("additionalProperties", None)
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    @property
    def parameter_names(self) -> list[str]:
        """The names of the parameters, in the method's order."""
        return [str(info.alias) for info in self.arguments.model_fields.values()]

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments coerced to the declared types.

        Raises:
            BadArguments: one line that names the wrong arguments.
        """
        try:
            model = self._model(arguments)
        except pydantic.ValidationError as error:
            faults = "; ".join(map(_fault, error.errors(include_url=False)[:MAX_FAULTS]))
            wanted = ", ".join(self.parameter_names) or "no arguments"
            raise BadArguments(f"{faults}. {self.name} takes: {wanted}.") from None
        fields = type(model).model_fields.items()
        return {str(info.alias): getattr(model, field) for field, info in fields}

    def _model(self, arguments: dict[str, Any]) -> pydantic.BaseModel:
        """Return the validated model; texts that fail are tried once more as JSON."""
        try:
            return self.arguments.model_validate(arguments)
        except pydantic.ValidationError as error:
            failed = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
            decoded = {k: _decoded(v) if k in failed else v for k, v in arguments.items()}
            if decoded == arguments:
                raise
            return self.arguments.model_validate(decoded)


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _fault(error: ErrorDetails) -> str:
    return f"{'.'.join(map(str, error['loc'])) or 'arguments'}: {error['msg']}"


@overload
def tool(function: F) -> F: ...
@overload
def tool(*, effects: Effects = "read", cost: int = 1) -> Callable[[F], F]: ...
def tool(
    function: F | None = None, *, effects: Effects = "read", cost: int = 1
) -> F | Callable[[F], F]:
    """Return the method, marked as a tool of its environment.

    Args:
        function: the method; its docstring's first paragraph is the description.
        effects: "write" when a call may change the episode's state.
        cost: what one call takes from the budget of tool calls.
    """

    def mark(method: F) -> F:
        setattr(method, _MARK, (effects, cost))
        return method

    return mark if function is None else mark(function)


@functools.cache
def collect_tools(owner: type) -> Mapping[str, Tool]:
    """Return the tools of a class by name, in the order of their definition.

    Raises:
        TypeError: a reserved name, or a parameter without a type hint that can be described
            (the author's bug).
    """
    found: dict[str, Tool] = {}
    for klass in reversed(owner.__mro__):
        for name, member in vars(klass).items():
            marked = getattr(member, _MARK, None)
            if member is None:
                found.pop(name, None)  # how a subclass takes a tool away
            elif marked is not None:
                found[name] = _build(name, member, *cast("tuple[Effects, int]", marked))
    return MappingProxyType(found)


def refuse_names(owner: type, taken: Collection[str]) -> None:
    """Refuse a class whose own tools have the name of a control call, or one in `taken`.

    Raises:
        TypeError: the author's bug, told when the class is made.
    """
    for name, member in vars(owner).items():
        if getattr(member, _MARK, None) is None:
            continue
        if name in RESERVED:
            raise TypeError(_CONTROL.format(name))
        if name in taken:
            raise TypeError(
                f"A tool cannot be called '{name}': the name means something in every "
                "environment, and an agent must not reach it. Rename the tool."
            )


def _build(name: str, method: Callable[..., Any], effects: Effects, cost: int) -> Tool:
    if name in RESERVED:
        raise TypeError(_CONTROL.format(name))
    description, details = _parse_docstring(inspect.getdoc(method) or "")
    hints = type_hints(method, name)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(list(inspect.signature(method).parameters.values())[1:]):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"Tool '{name}': '{parameter}' cannot be described; name each one.")
        if parameter.name not in hints:
            raise TypeError(f"Tool '{name}': parameter '{parameter.name}' needs a type hint.")
        default = ... if parameter.default is parameter.empty else parameter.default
        about = details.get(parameter.name)
        info = pydantic.Field(default=default, description=about, alias=parameter.name)
        # The field's own name is never seen: as "schema" or "copy" it would hide pydantic's.
        fields[f"argument_{number}"] = (hints[parameter.name], info)
    config = pydantic.ConfigDict(extra="forbid")
    try:
        arguments = pydantic.create_model(name, __config__=config, **fields)
        arguments.model_json_schema()
    except pydantic.PydanticUserError as error:
        shown = ", ".join(f"{key}: {hints[key]!r:.60}" for key in hints if key != "return")
        raise TypeError(
            f"Tool '{name}': a type of its parameters ({shown}) cannot be described to an agent. "
            "Use plain types: str, int, float, bool, lists and dicts of them, Literal."
        ) from error
    return Tool(name, description, effects, cost, arguments)


def type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the type hints of the function behind a tool.

    Raises:
        TypeError: one of them names what does not exist.
    """
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(
            f"Tool '{name}': a type hint cannot be read: {error}. Import it."
        ) from error


def _parse_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Return the first paragraph and the descriptions under "Args:"."""
    description = " ".join(doc.split("\n\n")[0].split())
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    lines = section.group(1) if section else ""
    items = re.findall(r"^ {4}(\w+):\s*(.+(?:\n {8,}.+)*)", lines, re.MULTILINE)
    return description, {name: " ".join(text.split()) for name, text in items}


def _untitled(schema: Any) -> Any:
    if isinstance(schema, dict):
        items = cast("dict[str, Any]", schema).items()
        return {k: _untitled(v) for k, v in items if not (k == "title" and isinstance(v, str))}
    if isinstance(schema, list):
        return [_untitled(item) for item in cast("list[Any]", schema)]
    return schema
