"""The tools of a server as an environment's: names, schemas and effects taken over.

A server's schema is shown to the agent as it is. Simple types are checked and coerced here
("3" -> 3), since an agent's format may spell everything as text; the server checks the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pydantic

from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.formats import ToolCall
from treegrpo.envs.toolbox import CallError, Toolbox
from treegrpo.envs.tools import RESERVED, Tool

if TYPE_CHECKING:
    from mcp.types import Tool as Listed

_TYPES: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
}

CallServer = Callable[..., str]


@dataclass(frozen=True)
class ServerTool(Tool):
    """A tool that a server runs; `listed` is the server's name for it."""

    listed: str
    input_schema: Mapping[str, Any]

    def schema(self) -> dict[str, Any]:
        """Return the OpenAI-style function schema, parameters as the server gave them."""
        parameters: dict[str, Any] = {"type": "object", "properties": {}}
        parameters |= copy.deepcopy(dict(self.input_schema))
        function: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that were given, simple types coerced; defaults are the server's.

        Raises:
            BadArguments: one line that names the wrong arguments.
        """
        valid = super().validate(arguments)
        return {name: valid.get(name, value) for name, value in arguments.items()}


def take_over(
    listed: Iterable[Listed],
    *,
    only: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    taken: Iterable[str] = (),
) -> dict[str, ServerTool]:
    """Return a server's tools by the name that the agent uses, in the server's order.

    Args:
        listed: what the server lists.
        only: the server's names of the tools that are offered; None for all.
        rename: server's name -> agent's name.
        taken: names that the environment uses itself.

    Raises:
        UnknownOption: a name that the server does not list, is a control call, or comes twice.
    """
    by_name = {tool.name: tool for tool in listed}
    new_names = dict(rename or {})
    for asked in (*(only or ()), *new_names):
        if asked not in by_name:
            raise UnknownOption(
                f"Tool '{asked}' of the MCP server asked for; it has: "
                f"{', '.join(by_name) or 'none'}.{suggest(asked, by_name)}"
            )
    used, found = set(taken), dict[str, ServerTool]()
    for name, tool in by_name.items():
        if only is not None and name not in only:
            continue
        own = new_names.get(name, name)
        _refuse_taken(name, own, used)
        used.add(own)
        found[own] = _build(own, tool)
    return found


def _refuse_taken(name: str, own: str, used: Collection[str]) -> None:
    called = f"The MCP server's tool '{name}' would be called '{own}'"
    to_do = f"Give it another name: rename={{'{name}': '{name}_it'}}"
    if own in RESERVED:
        raise UnknownOption(
            f"{called}, which is a control call. {to_do}; or leave it out: only=[...]."
        )
    if own in used:
        raise UnknownOption(f"{called}, and so is another tool. {to_do}.")


def _build(name: str, tool: Listed) -> ServerTool:
    schema: Mapping[str, Any] = tool.input_schema
    reads = tool.annotations is not None and tool.annotations.read_only_hint is True
    description = " ".join((tool.description or tool.title or "").split())
    effects = "read" if reads else "write"
    return ServerTool(name, description, effects, 1, _arguments(name, schema), tool.name, schema)


def _arguments(name: str, schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    """Return a model with a field per property; required ones have no default."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required: Sequence[str] = schema.get("required") or ()
    fields: dict[str, Any] = {}
    for number, (key, about) in enumerate(properties.items()):
        kind = _TYPES.get(str(_property(about).get("type")), Any)
        default = ... if key in required else None
        fields[f"argument_{number}"] = (kind, pydantic.Field(default=default, alias=key))
    is_open = schema.get("additionalProperties") not in (None, False)
    config = pydantic.ConfigDict(extra="allow" if is_open else "forbid")
    return pydantic.create_model(name, __config__=config, **fields)


def _property(schema: Any) -> Mapping[str, Any]:
    """Return a property's schema; true and false are schemas, too."""
    return cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) else {}


class ServerToolbox(Toolbox):
    """An environment's own tools and a server's, in one action format."""

    def __init__(self, owner: type, format: str, server_tools: Mapping[str, ServerTool]) -> None:
        """Put the server's tools first."""
        super().__init__(owner, format)
        self.server_tools = server_tools
        self.tools = {**server_tools, **self.tools}

    def run(self, env: object, call: ToolCall) -> tuple[str, CallError | None]:
        """Return the reply to a call: by the server, or by the environment itself.

        Raises:
            SandboxFailed: the server cannot be started, or cannot be replayed.
        """
        if call.name in self.server_tools:
            return super().run(_Server(self.server_tools[call.name], env), call)
        return super().run(env, call)


class _Server:
    """Stands in for the environment: its only method is the one tool, whatever its name."""

    def __init__(self, tool: ServerTool, env: Any) -> None:
        self._call: CallServer = partial(env.call_server, tool)

    def __getattribute__(self, name: str) -> Any:
        call: CallServer = object.__getattribute__(self, "_call")

        def run(**arguments: Any) -> str:
            return call(arguments)

        return run
