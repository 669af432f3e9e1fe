"""Model-written text made fit for the viewer: hidden characters shown, tool calls read.

Everything that a policy, a tool or a task file wrote is hostile; reading it takes time in
proportion to its length, whatever stands in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from treegrpo.leaderboards.site.text import visible

_TAGGED = re.compile(r"<([A-Za-z_][\w-]{0,63})>(.*?)</\1>", re.DOTALL)
_MAX_TAGGED_CHARS = 4_000  # this pattern is quadratic on hostile text
MAX_CALLS, MAX_WORD = 8, 64
"""Calls shown per action; characters of a name, a reason or another word."""


@dataclass(frozen=True)
class Call:
    """One tool call as a reader wants it: the tool's name, its arguments pretty-printed."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Action:
    """An assistant text taken apart: what it thought or said, and the calls it made."""

    thought: str
    calls: tuple[Call, ...]


def clean_text(text: str) -> str:
    """Return the text with its hidden characters shown, without space around it."""
    return visible(text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def clean_word(text: str) -> str:
    """Return a name on one line of at most MAX_WORD characters."""
    return " ".join(clean_text(text[: 4 * MAX_WORD]).split())[:MAX_WORD]


def clip(text: str, limit: int) -> tuple[str, int]:
    """Return at most `limit` characters of the text and how many were left out."""
    return text[:limit], max(0, len(text) - limit)


def read_action(text: str) -> Action:
    """Return the action's thought and calls; text that holds no call is all thought.

    Hermes JSON calls and XML-tag calls are known; a last Hermes call may lack its end tag, as
    the environments read it. The text must be clean already. A call that does not parse stays
    verbatim in the thought, so that a reader sees what the model wrote.
    """
    thoughts: list[str] = []
    rest = "".join(
        raw if inside is None else _keep(thoughts, inside.strip())
        for raw, inside in _split(text, "<think>", "</think>", open_end=False)
    )
    calls: list[Call] = []
    kept: list[str] = []
    for raw, inside in _split(rest, "<tool_call>", "</tool_call>", open_end=True):
        call = None if inside is None else _hermes(inside)
        if call is None:
            kept.append(raw)
        else:
            calls.append(call)
    rest = "".join(kept)
    if not calls and "<tool_call>" not in rest and len(rest) <= _MAX_TAGGED_CHARS:
        calls = [Call(name, _tagged(body)) for name, body in _TAGGED.findall(rest)]
        rest = _TAGGED.sub("", rest)
    thought = "\n".join(part for part in [*thoughts, rest.strip()] if part)
    return Action(thought, tuple(calls))


def _keep(kept: list[str], piece: str) -> str:
    kept.append(piece)
    return ""


def _split(text: str, start: str, end: str, *, open_end: bool) -> list[tuple[str, str | None]]:
    """Return the text in pieces: (the piece, what stands between its tags; None outside).

    Without an end tag the rest of the text is inside if `open_end`, else outside with its tag.
    """
    pieces: list[tuple[str, str | None]] = []
    at = 0
    while (opened := text.find(start, at)) >= 0:
        inside = opened + len(start)
        closed = text.find(end, inside)
        if closed < 0 and not open_end:
            break
        pieces.append((text[at:opened], None))
        at = closed + len(end) if closed >= 0 else len(text)
        pieces.append((text[opened:at], text[inside : closed if closed >= 0 else len(text)]))
    return [*pieces, (text[at:], None)]


def _hermes(body: str) -> Call | None:
    """Return the call in a Hermes body, or None when it is not one."""
    try:
        value: object = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    if not isinstance(fields.get("name"), str):
        return None
    return Call(clean_word(fields["name"]), _pretty(fields.get("arguments")))


def _pretty(value: object) -> str:
    """Return arguments with one name a line; a string stands as it is, not as JSON."""
    if value is None or value == {}:
        return ""
    if not isinstance(value, dict):
        return _printed(value)
    items = cast("dict[str, object]", value)
    return "\n".join(f"{clean_word(name)}: {_printed(item)}" for name, item in items.items())


def _printed(value: object) -> str:
    if isinstance(value, str):
        return clean_text(value)
    try:
        return clean_text(json.dumps(value, ensure_ascii=False, indent=1))
    except (ValueError, RecursionError):
        return "(nested too deeply to be shown)"


def _tagged(body: str) -> str:
    """Return the arguments in an XML tag: one inner tag a line, or the text itself."""
    inner = _TAGGED.findall(body)
    if inner:
        return "\n".join(f"{name}: {text.strip()}" for name, text in inner)
    return body.strip()
