"""Observations and actions of Gymnasium's spaces as text.

A number, a tuple, a mapping or a small array is spelled out; of a large array the shape and a
digest are told, which is enough to compare and too little to play by. Of a drawing's colours
brackets remain: "[S]" was highlighted, "(S)" bold, "<S>" of another colour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.spaces import UnicodeText

MAX_ITEMS = 256
"""How many numbers of an array are spelled out."""
_COLOURED = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.DOTALL)
_ESCAPE = re.compile(r"\x1b\[[\d;]*[A-Za-z]")

ACTION_NAMES: Mapping[str, tuple[str, ...]] = {
    "FrozenLakeEnv": ("left", "down", "right", "up"),
    "CliffWalkingEnv": ("up", "right", "down", "left"),
    "TaxiEnv": ("south", "north", "east", "west", "pickup", "dropoff"),
    "BlackjackEnv": ("stick", "hit"),
}


class BadAction(Exception):
    """An action that the game does not take; the text is meant for the agent."""


def spell_observation(observation: Any, drawing: str | None = None) -> str:
    """Return an observation as text, and below it the game's own drawing if there is one."""
    text = _spelled(observation)
    if drawing is None:
        return text
    plain = _ESCAPE.sub("", _COLOURED.sub(_bracketed, drawing)).strip("\n")
    return f"Observation: {text}\n{plain}"


def _bracketed(sign: re.Match[str]) -> str:
    codes, text = sign.group(1).split(";"), sign.group(2)
    if any(len(code) == 2 and code.startswith("4") for code in codes):
        return f"[{text}]"
    return f"({text})" if "1" in codes else f"<{text}>"


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        if array.size > MAX_ITEMS:
            shape = "x".join(map(str, array.shape))
            return f"array {shape} of {array.dtype}, digest {digest(array)[:16]}"
        return _spelled(array.tolist())
    if isinstance(value, np.generic):
        return _spelled(value.item())
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return ", ".join(f"{key}: {_spelled(item)}" for key, item in items)
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_spelled, cast('Sequence[Any]', value)))})"
    return str(value)


class ActionWords:
    """How the actions of one space are written.

    Raises:
        TreegrpoError: a space that is neither Discrete nor text, or a wrong number of names.
    """

    def __init__(self, space: gymnasium.Space[Any], names: Sequence[str] | None, game: str) -> None:
        """Take the names of the actions in their order, if they have some."""
        self.space, self.names = space, tuple(names or ())
        self.is_text = isinstance(space, (gymnasium.spaces.Text, UnicodeText))
        if not self.is_text and not isinstance(space, gymnasium.spaces.Discrete):
            raise TreegrpoError(
                f"Environment '{game}' asked for; its actions are {space}, which cannot be "
                "written as a word. Use one with Discrete or Text actions, or wrap it."
            )
        if self.names and len(self.names) != self.count:
            raise TreegrpoError(
                f"{len(self.names)} names of actions given for '{game}'; it has {self.count} "
                "actions. Name each one, in order."
            )

    @property
    def first(self) -> int:
        """The number of the first action."""
        return int(self.space.start) if isinstance(self.space, gymnasium.spaces.Discrete) else 0

    @property
    def count(self) -> int:
        """How many actions there are; 0 for texts."""
        return int(self.space.n) if isinstance(self.space, gymnasium.spaces.Discrete) else 0

    def describe(self) -> str:
        """Return a sentence that lists the actions."""
        if self.is_text:
            return "An action is a text."
        last = self.first + self.count - 1
        if not self.names:
            return f"An action is a number from {self.first} to {last}."
        return f"Actions: {', '.join(self.names)}."

    def spell(self, action: int) -> str | int:
        """Return the word of an action, or its number where it has none."""
        return self.names[action - self.first] if self.names else action

    def read(self, said: int | str) -> Any:
        """Return the action that the agent named.

        Raises:
            BadAction: there is no such action.
        """
        if self.is_text:
            if not self.space.contains(str(said)):
                raise BadAction(f"the text {str(said)[:100]!r} is not in {self.space}")
            return str(said)
        word = str(said).strip().casefold()
        if word in self.names:
            return self.first + self.names.index(word)
        if re.fullmatch(r"-?[0-9]{1,6}", word) and 0 <= int(word) - self.first < self.count:
            return int(word)
        raise BadAction(f"there is no action {str(said)[:100]!r}. {self.describe()}")

    def draw(self, rng: np.random.Generator) -> str | int:
        """Return a random action; of texts, a random number."""
        return self.spell(self.first + int(rng.integers(max(1, self.count))))
