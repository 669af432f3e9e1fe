"""Tools from JSON schemas: a schema that was written elsewhere becomes a typed function.

    search = schema_tool(
        {"name": "search", "description": "Search the shop.", "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "default": 3}},
            "required": ["query"],
        }},
        lambda query, limit: ...,
    )

Arguments are validated by the schema, and the agent is shown it as it was given. Keywords that
cannot be checked are refused: a schema that promises more than is held misleads the agent.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic_core import CoreSchema, core_schema

_ABOUT = frozenset({"title", "description", "default", "examples", "format"})
_LIMITS: Mapping[str, Mapping[str, str]] = {
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "integer": {},
    "number": {},
    "boolean": {},
    "null": {},
    "array": {"minItems": "min_length", "maxItems": "max_length"},
    "object": {},
}
"""Type -> its keywords -> what pydantic calls them."""
_BOUNDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_INSIDE: Mapping[str, set[str]] = {
    "array": {"items"},
    "object": {"properties", "required", "additionalProperties"},
}


def schema_tool(schema: Mapping[str, Any], function: Callable[..., Any]) -> Callable[..., str]:
    """Return a typed function that can be a tool, with the schema's name and parameters.

    Args:
        schema: {"name", "description", "parameters"}, or the same under "function" as OpenAI
            writes it.
        function: is called with the arguments by name; an optional one that was left out and
            has no default is not passed, nor is null for it.

    Raises:
        TypeError: names the tool, the parameter and what cannot be used.
    """
    inner = cast("Mapping[str, Any]", schema.get("function", schema))
    name = inner.get("name")
    if not isinstance(name, str):
        raise TypeError(f"A tool from a JSON schema needs a name; found {sorted(inner)}. Give one.")
    parameters = cast("Mapping[str, Any]", inner.get("parameters") or {"type": "object"})
    if parameters.get("type") != "object":
        raise TypeError(
            f"Tool '{name}': 'parameters' must be an object schema, found type "
            f"{parameters.get('type')!r}. Write {{'type': 'object', 'properties': ...}}."
        )

    signature = _signature(name, parameters)
    optional = {p.name for p in signature.parameters.values() if p.default is None}

    def call(**arguments: Any) -> str:
        given = {k: v for k, v in arguments.items() if v is not None or k not in optional}
        return str(function(**given))

    typed: Any = call
    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = str(inner.get("description", ""))
    typed.__signature__ = signature
    typed.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return call


def _signature(name: str, parameters: Mapping[str, Any]) -> inspect.Signature:
    """Return the signature of a tool; required parameters come first."""
    _refuse_unknown(parameters, "object", f"Tool '{name}'")
    properties = cast("Mapping[str, Mapping[str, Any]]", parameters.get("properties", {}))
    required = cast("Sequence[str]", parameters.get("required", ()))
    for missing in sorted(set(required) - set(properties)):
        raise TypeError(f"Tool '{name}': '{missing}' is required but not described; describe it.")
    found: list[inspect.Parameter] = []
    for key, schema in sorted(properties.items(), key=lambda item: item[0] not in required):
        where = f"Tool '{name}', parameter '{key}'"
        if not key.isidentifier():
            raise TypeError(f"{where}: it must be spelled like a Python name. Rename it.")
        default = inspect.Parameter.empty if key in required else schema.get("default")
        found.append(
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=_described(schema, where),
            )
        )
    return inspect.Signature(found)


def _described(schema: Mapping[str, Any], where: str) -> type:
    """Return a type that pydantic validates by the schema, and shows as it was given."""
    core, shown = _core(schema, where), copy.deepcopy(dict(schema))

    class Described:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
            return core

        @classmethod
        def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: Any) -> dict[str, Any]:
            return copy.deepcopy(shown)

    return Described


def _core(schema: Any, where: str) -> CoreSchema:
    if not isinstance(schema, Mapping):
        raise TypeError(f"{where}: a schema must be an object, found {schema!r}.")
    given = cast("Mapping[str, Any]", schema)
    if "enum" in given or "const" in given:
        _refuse_unknown(given, None, where)
        return core_schema.literal_schema(list(given.get("enum", [given.get("const")])))
    if "anyOf" in given:
        _refuse_unknown(given, None, where)
        return core_schema.union_schema([_core(one, where) for one in given["anyOf"]])
    kind: Any = given.get("type")
    if isinstance(kind, (list, tuple)):
        kinds = cast("Sequence[str]", kind)
        return core_schema.union_schema([_core({**given, "type": k}, where) for k in kinds])
    if kind not in _LIMITS:
        raise TypeError(f"{where}: type {kind!r} asked for; known types: {', '.join(_LIMITS)}.")
    _refuse_unknown(given, kind, where)
    return _core_of_type(kind, given, where)


def _core_of_type(kind: str, given: Mapping[str, Any], where: str) -> CoreSchema:
    limits: dict[str, Any] = {ours: given[k] for k, ours in _LIMITS[kind].items() if k in given}
    bounds: dict[str, Any] = {ours: given[k] for k, ours in _BOUNDS.items() if k in given}
    match kind:
        case "string":
            return core_schema.str_schema(**limits)
        case "integer":
            return core_schema.int_schema(**bounds)
        case "number":
            return core_schema.float_schema(allow_inf_nan=False, **bounds)
        case "boolean":
            return core_schema.bool_schema()
        case "array":
            items = _core(given["items"], f"{where}, items") if "items" in given else None
            return core_schema.list_schema(items, **limits)
        case "object":
            return _core_of_object(given, where)
        case _:
            return core_schema.none_schema()


def _core_of_object(given: Mapping[str, Any], where: str) -> CoreSchema:
    if "properties" not in given:
        return core_schema.dict_schema(core_schema.str_schema())
    required = given.get("required", ())
    fields = {
        key: core_schema.typed_dict_field(_core(value, f"{where}.{key}"), required=key in required)
        for key, value in given["properties"].items()
    }
    more = given.get("additionalProperties", True)
    if not isinstance(more, bool):
        raise TypeError(f"{where}: 'additionalProperties' must be true or false. Describe them.")
    return core_schema.typed_dict_schema(fields, extra_behavior="allow" if more else "forbid")


def _refuse_unknown(given: Mapping[str, Any], kind: str | None, where: str) -> None:
    known = {"type", "enum", "const", "anyOf"} if kind is None else {"type"}
    if kind is not None:
        known |= _LIMITS[kind].keys() | _INSIDE.get(kind, set())
    if kind in ("integer", "number"):
        known |= _BOUNDS.keys()
    for keyword in sorted(given.keys() - known - _ABOUT):
        raise TypeError(
            f"{where}: the keyword '{keyword}' is not checked here for "
            f"{'this schema' if kind is None else f'type {kind}'}; known: "
            f"{', '.join(sorted(known))}. Remove it, or check it in the function."
        )
