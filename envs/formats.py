"""Action formats: the raw text an agent emits -> tool calls, and back.

hermes   <tool_call>{"name": "search", "arguments": {"query": "Oslo"}}</tool_call>   (default)
xml      <search>Oslo</search>, or one inner tag per argument when a tool takes several:
         <move><source>a</source><target>b</target></move>; space around a value is
         trimmed, &lt; &gt; and &amp; are read as < > and &

Parsing never raises: what cannot be read becomes an error text for the agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast
from xml.sax.saxutils import escape, unescape

from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.tools import Tool


@dataclass(frozen=True)
class ToolCall:
    """A call as the agent wrote it: not validated yet."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Parsed:
    """The calls of one action in order, and what could not be read."""

    calls: tuple[ToolCall, ...]
    errors: tuple[str, ...]


class ActionFormat(Protocol):
    """How tool calls are written in an action."""

    name: str

    def parse(self, text: str, tools: Mapping[str, Tool]) -> Parsed:
        """Return the calls in `text`; never raises."""
        ...

    def encode(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """Return the text that parses back to this one call."""
        ...

    def instructions(self) -> str:
        """Return a sentence that tells an agent how to write a call."""
        ...


_JSON = json.JSONDecoder(strict=False)  # models write real newlines inside strings


class HermesFormat:
    """JSON between <tool_call> tags, as Hermes and Qwen models write it."""

    name = "hermes"
    _block = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)

    def parse(self, text: str, tools: Mapping[str, Tool]) -> Parsed:
        """Return the calls in `text`; never raises."""
        calls: list[ToolCall] = []
        errors: list[str] = []
        for block in self._block.findall(text):
            try:
                value: Any = _JSON.decode(block.strip())
            except json.JSONDecodeError as error:
                errors.append(f"The tool call is not valid JSON: {error.msg}.")
                continue
            except (ValueError, RecursionError):  # digits or nesting without end
                errors.append("The tool call is too large a JSON value.")
                continue
            fault = _hermes_fault(value)
            if fault:
                errors.append(fault)
            else:
                calls.append(ToolCall(value["name"], dict(value.get("arguments") or {})))
        return Parsed(tuple(calls), tuple(errors))

    def encode(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """Return the text that parses back to this one call."""
        body = json.dumps({"name": tool.name, "arguments": dict(arguments)})
        body = body.replace("</tool_call>", "<\\/tool_call>")  # the same string in JSON
        return f"<tool_call>\n{body}\n</tool_call>"

    def instructions(self) -> str:
        """Return a sentence that tells an agent how to write a call."""
        return 'Call a tool: <tool_call>{"name": ..., "arguments": {...}}</tool_call>.'


def _hermes_fault(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "A tool call must be a JSON object with name and arguments."
    call = cast("dict[str, Any]", value)
    if not isinstance(call.get("name"), str):
        return "A tool call needs a name."
    if not isinstance(call.get("arguments") or {}, dict):
        return "The arguments of a tool call must be a JSON object."
    return None


class XmlFormat:
    """One tag per call, named after the tool."""

    name = "xml"
    _tag = re.compile(r"<(\w+)>(.*?)(?:</\1>|$)", re.DOTALL)
    _prose = frozenset({"think", "thought", "reasoning"})

    def parse(self, text: str, tools: Mapping[str, Tool]) -> Parsed:
        """Return the calls in `text`; never raises. Thought tags are skipped."""
        calls: list[ToolCall] = []
        for name, body in self._tag.findall(text):
            if name not in self._prose:
                calls.append(ToolCall(name, self._arguments(tools.get(name), body)))
        return Parsed(tuple(calls), ())

    def _arguments(self, tool: Tool | None, body: str) -> dict[str, Any]:
        names = tool.parameter_names if tool else []
        inner = dict(cast("list[tuple[str, str]]", self._tag.findall(body)))
        if inner and (len(names) != 1 or set(inner) == set(names)):
            return {key: unescape(value.strip()) for key, value in inner.items()}
        text = unescape(body.strip())
        if len(names) == 1 or text:
            return {names[0] if names else "text": text}
        return {}

    def encode(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """Return the text that parses back to this one call."""
        texts = {key: escape(_xml_text(value)) for key, value in arguments.items()}
        if len(tool.parameter_names) == 1 and len(arguments) == 1:
            return f"<{tool.name}>{next(iter(texts.values()))}</{tool.name}>"
        inner = "".join(f"<{key}>{text}</{key}>" for key, text in texts.items())
        return f"<{tool.name}>{inner}</{tool.name}>"

    def instructions(self) -> str:
        """Return a sentence that tells an agent how to write a call."""
        return "Call a tool: <tool_name>argument</tool_name>."


def _xml_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


FORMATS: Mapping[str, ActionFormat] = {"hermes": HermesFormat(), "xml": XmlFormat()}


def get_format(name: str) -> ActionFormat:
    """Return the action format of that name.

    Raises:
        UnknownOption: with the closest name.
    """
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise UnknownOption(
            f"Action format '{name}' asked for; known formats: {known}.{suggest(name, FORMATS)}"
        )
    return FORMATS[name]
