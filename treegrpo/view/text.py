"""Model-written text made fit for a page: control characters gone, tool calls made short.

Everything that a policy, a tool or a task file wrote is hostile. Escaping is the template's work;
here goes what escaping cannot mend: terminal escapes, control characters, marks that reverse the
reading direction, lone surrogates.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

# Only *terminated* string sequences are dropped whole: an open one must not swallow what follows.
_TERMINAL_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)
_DROPPED = [*range(0x00, 0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)]
_DIRECTION = [
    0x061C,
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
]
_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys([*_DROPPED, *_DIRECTION]),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_HERMES = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_TAGGED = re.compile(r"<([A-Za-z_][\w-]{0,63})>(.*?)</\1>", re.DOTALL)
_MAX_PARSED_CHARS = 4_000  # the patterns above are quadratic on hostile text


@dataclass(frozen=True)
class Call:
    """One tool call as a reader wants it: the tool's name and its arguments on one line."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Action:
    """An assistant text taken apart: what it thought or said, and the calls it made."""

    thought: str
    calls: tuple[Call, ...]


def clean_text(text: str) -> str:
    r"""Return the text without terminal escapes, control or direction marks; \n and \t stay."""
    text = _TERMINAL_ESCAPE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.translate(_CHARACTERS).strip()


def clip(text: str, limit: int) -> tuple[str, int]:
    """Return at most `limit` characters of the text and how many were left out."""
    return text[:limit], max(0, len(text) - limit)


def read_action(text: str) -> Action:
    """Return the action's thought and calls; text that holds no call is all thought.

    Hermes JSON calls and XML-tag calls are known. The text must be clean already. A call that
    does not parse stays verbatim in the thought, so that a reader sees what the model wrote.
    """
    if len(text) > _MAX_PARSED_CHARS:
        return Action(text, ())
    thoughts = [match.strip() for match in _THOUGHT.findall(text)]
    rest = _THOUGHT.sub("", text)
    calls: list[Call] = []

    def take(match: re.Match[str]) -> str:
        call = _hermes(match[1]) if match.re is _HERMES else Call(match[1], _brief(match[2]))
        if call is None:
            return match[0]
        calls.append(call)
        return ""

    rest = _HERMES.sub(take, rest)
    if not calls and "<tool_call>" not in rest:
        rest = _TAGGED.sub(take, rest)
    return Action("\n".join(part for part in [*thoughts, rest.strip()] if part), tuple(calls))


def _hermes(body: str) -> Call | None:
    """Return the call in a Hermes body, or None when it is not one."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    if not isinstance(fields.get("name"), str):
        return None
    return Call(clean_text(fields["name"]), _arguments(fields.get("arguments")))


def _arguments(value: object) -> str:
    if value is None or value == {}:
        return ""
    if not isinstance(value, Mapping):
        return _brief(value)
    items = cast("Mapping[str, object]", value)
    if len(items) == 1:
        return _brief(next(iter(items.values())))
    return ", ".join(f"{clean_text(str(key))}: {_brief(item)}" for key, item in items.items())


def _brief(value: object) -> str:
    if isinstance(value, str):
        return f'"{clean_text(value)}"'
    return clean_text(json.dumps(value, ensure_ascii=False))
