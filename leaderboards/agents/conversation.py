"""One episode as a chat endpoint sees it: messages, and which tool calls wait for a reply.

Two ways to call tools:

    native   the endpoint gets the tools' schemas and answers with tool calls; each becomes a
             call in the action, spelled as the environment spells it
    text     the tools and the spelling of a call are told in the first system message, and the
             model's text is the action
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.formats import get_format
from treegrpo.leaderboards.agents.answer import Called, Said

Calls = Literal["native", "text"]
TOOLS_TOLD = "You have these tools, described by JSON schemas:\n{tools}\n{instructions}"
TOOLS_DIGEST = digest(TOOLS_TOLD)
"""What a manifest records as the prompt that the agent adds, with calls as text."""
LEFT_OUT = "[left out to make room]"
NOT_RUN = "This call was not run."
Sent = dict[str, Any]


@dataclass
class _Waiting:
    """A tool call that has no reply yet."""

    id: str
    name: str
    is_readable: bool


@dataclass
class Conversation:
    """The messages so far, as they are sent; what opened it is never left out."""

    calls: Calls
    sent: list[Sent] = field(default_factory=list[Sent])
    num_opening: int = 0
    _waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    _num_calls: int = 0

    def copy(self) -> Conversation:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def observe(self, env: ToolEnv, delta: Sequence[Message]) -> None:
        """Append what the environment said."""
        if not self.sent:
            self._open(env, delta)
            return
        for message in delta:
            self.sent.append(self._told(message))
        for waiting in self._waiting:
            self.sent.append({"role": "tool", "tool_call_id": waiting.id, "content": NOT_RUN})
        self._waiting = []
        # An endpoint wants every reply right behind its call, and other words after them.
        last = max((i for i, m in enumerate(self.sent) if m["role"] == "assistant"), default=-1)
        self.sent[last + 1 :] = sorted(self.sent[last + 1 :], key=lambda m: m["role"] != "tool")

    def answer(self, env: ToolEnv, said: Said) -> str:
        """Append what the model said, and return it as an action."""
        calls = said.tool_calls or [] if self.calls == "native" else []
        spelled = [_spelled(env, call) for call in calls]
        # Words are cut before calls are: the environment reads no more than so much.
        room = max(0, env.max_action_chars - sum(len(text) + 1 for text in spelled))
        words = said.text[:room]
        message: Sent = {"role": "assistant", "content": words}
        if calls:
            message["tool_calls"] = [self._remembered(call) for call in calls]
        self.sent.append(message)
        return "\n".join(filter(None, [words, *spelled]))

    def shorten(self) -> bool:
        """Leave out the older half of the observations that are left; False if there is none."""
        shown = [
            message
            for message in self.sent[self.num_opening :]
            if message["role"] in ("tool", "user") and message["content"] != LEFT_OUT
        ]
        for message in shown[: (len(shown) + 1) // 2]:
            message["content"] = LEFT_OUT
        return bool(shown)

    def _open(self, env: ToolEnv, delta: Sequence[Message]) -> None:
        messages = [self._told(message) for message in delta]
        if self.calls == "text" and env.tool_schemas():
            first = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
            if first:
                messages = messages[1:]
            messages.insert(0, {"role": "system", "content": first + tools_told(env)})
        self.sent, self.num_opening = messages, len(messages)

    def _told(self, message: Message) -> Sent:
        """Return a message of the environment as the endpoint takes it."""
        content = message["content"]
        if message["role"] != "tool":
            return {"role": message["role"], "content": content}
        waiting = self._answered(message.get("name", ""))
        if waiting is not None:
            return {"role": "tool", "tool_call_id": waiting.id, "content": content}
        if self.calls == "text":
            content = f"<tool_response>\n{content}\n</tool_response>"
        return {"role": "user", "content": content}

    def _answered(self, name: str) -> _Waiting | None:
        """Return the call that a reply belongs to, which then waits no more."""
        for waiting in self._waiting:
            fits = not waiting.is_readable if name == "error" else waiting.name == name
            if fits:
                self._waiting.remove(waiting)
                return waiting
        return self._waiting.pop(0) if self._waiting else None

    def _remembered(self, call: Called) -> Sent:
        """Return a call as it is sent back; some endpoints refuse arguments that are no JSON."""
        arguments = _arguments(call)
        self._num_calls += 1
        name = f"call_{self._num_calls}"  # endpoints repeat ids, or leave them out
        self._waiting.append(_Waiting(name, call.function.name, arguments is not None))
        function = {"name": call.function.name, "arguments": json.dumps(arguments or {})}
        return {"id": name, "type": "function", "function": function}


def tools_told(env: ToolEnv) -> str:
    """Return the tools of an environment in words, with how to call one."""
    name = env.spec.kwargs.get("format", "hermes") if env.spec is not None else "hermes"
    tools = "\n".join(json.dumps(schema) for schema in env.tool_schemas())
    return TOOLS_TOLD.format(tools=tools, instructions=get_format(name).instructions())


def _arguments(call: Called) -> dict[str, Any] | None:
    """Return the arguments of a call; None where they are no JSON object."""
    found: Any = call.function.arguments
    if isinstance(found, str):
        try:
            found = json.loads(found or "{}", strict=False)
        except (ValueError, RecursionError):
            return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _spelled(env: ToolEnv, call: Called) -> str:
    """Return a call as the environment reads it; what cannot be read stays so."""
    name, arguments = call.function.name, _arguments(call)
    if arguments is not None:
        try:
            return env.encode_call(name, **arguments)
        except (UnknownOption, TypeError):  # no such tool, or an argument called `name`
            return _hermes(name, json.dumps(arguments))
    raw = call.function.arguments
    return _hermes(name, raw if isinstance(raw, str) else json.dumps(raw))


def _hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
