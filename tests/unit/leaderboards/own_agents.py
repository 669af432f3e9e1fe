"""Agents as users write them, for the tests of module:name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treegrpo.leaderboards.agents import EpisodeView

NOT_AN_AGENT = 7


def guess(messages: list[Any], tools: list[Any], number: int = 0) -> str:
    """Guess one number, in ten lines."""
    assert messages[0]["role"] == "user"
    assert tools[0]["function"]["name"] == "guess"
    return f'<tool_call>{{"name": "guess", "arguments": {{"number": {number}}}}}</tool_call>'


def crash(messages: list[Any], tools: list[Any]) -> str:
    """Fail in the second turn."""
    if len(messages) > 1:
        raise RuntimeError("out of ideas")
    return "hm"


def one_argument(messages: list[Any]) -> str:
    """Take too little."""
    return ""


class Counting:
    """A class with a simple act()."""

    name = "counting"

    def __init__(self, *, start: int = 0) -> None:
        self.number = start

    def act(self, messages: list[Any], tools: list[Any]) -> str:
        self.number += 1
        return guess(messages, tools, self.number)


class Whole:
    """A class that follows the protocol."""

    name, digest = "whole", "v1"

    def __init__(self, *, number: int) -> None:
        self.settings = {"number": number}

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        return [view.env.encode_call("guess", **self.settings) for view in episodes]

    def finish(self, key: str) -> int:
        return 3


class Half:
    """Has finish(), and little else."""

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        return []

    def finish(self, key: str) -> None:
        return None


def halfway(env: Any) -> float:
    """Value of a lake's position: steps towards the lower right, less where the ice ends."""
    return -100.0 if env.episode.ended else float(env.state.row + env.state.column)


def halfway_of_toy(env: Any) -> float:
    """Value of a guess: the higher the better."""
    return float(env.state["guess"] or 0)
