"""An episode: everything that changes while an environment runs, in one place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from treegrpo.envs.tasks import Task

Role = Literal["system", "user", "assistant", "tool"]


class Message(TypedDict):
    """One turn of the conversation; `name` is the tool that replied."""

    role: Role
    content: str
    name: NotRequired[str]


@dataclass
class Episode:
    """What a snapshot holds, and nothing else.

    `max_tool_calls` is the environment's, unless the episode was capped; `transcript_hash` is
    the running digest of the messages; `seconds` is time spent in tools.
    Messages, the last info and the task are never changed once made, so copies share them.
    """

    task: Task
    split: str
    index: int
    state: Any
    max_tool_calls: int
    messages: list[Message] = field(default_factory=list[Message])
    transcript_hash: str = ""
    turns: int = 0
    tool_calls: int = 0
    episode_return: float = 0.0
    terminated: bool = False
    truncated: bool = False
    end_reason: str | None = None
    seconds: float = 0.0
    observation: str = ""
    info: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def ended(self) -> bool:
        """Whether the episode is over, for either reason."""
        return self.terminated or self.truncated

    def copy(self) -> Episode:
        """Return an independent copy; only the state and the list of messages are copied."""
        twin = copy.copy(self)
        # One deepcopy, so that references shared within the state stay shared in the copy.
        twin.state = copy.deepcopy(self.state)
        twin.messages = list(self.messages)
        return twin

    def facts(self) -> dict[str, Any]:
        """Return what the state hash covers: all but the clock, and the task by its id."""
        facts = {name: getattr(self, name) for name in _HASHED}
        facts["task"] = self.task.id
        return facts


_NOT_HASHED = frozenset({"task", "messages", "seconds", "observation", "info"})
_HASHED = tuple(f.name for f in dataclasses.fields(Episode) if f.name not in _NOT_HASHED)


def copy_messages(messages: Iterable[Message]) -> list[Message]:
    """Return messages that the receiver may change."""
    return [message.copy() for message in messages]


def copy_info(info: dict[str, Any]) -> dict[str, Any]:
    """Return an info that the receiver may change."""
    return {
        **info,
        "messages": copy_messages(info["messages"]),
        "reward_components": dict(info["reward_components"]),
        "errors": list(info["errors"]),
    }


CUT_MARK = " [cut]"


def fit_messages(messages: Iterable[Message], max_chars: int) -> list[Message]:
    """Return the messages as they may be shown: text that encodes, `max_chars` in all.

    Joined by newlines they have at most `max_chars` characters and one mark where they were
    cut; messages behind the cut are left out.
    """
    kept: list[Message] = []
    room = max_chars
    for message in messages:
        text = clean_text(message["content"])
        fits = len(text) <= room
        kept.append({**message, "content": text if fits else text[: max(0, room)] + CUT_MARK})
        if not fits:
            break
        room -= len(text) + 1
    return kept


def clean_action(action: str, max_chars: int) -> str:
    """Return an action as the environment takes it and a log keeps it: text that encodes.

    One that is too long is kept up to twice `max_chars` and a character more, which is enough
    to give the same answer when it is played again.
    """
    return clean_text(action[: 2 * max_chars + 1])


def clean_text(text: str) -> str:
    """Return the text with "?" for each lone surrogate, which no encoding can carry.

    They come in through JSON escapes, and would stop a tokenizer or a file.
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
