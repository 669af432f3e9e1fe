"""The three scripted agents: oracle (the ceiling), null and random (the floors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from treegrpo.envs import baselines
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest, digest_bytes, stable_seed
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.leaderboards.agents.base import EpisodeView


class ScriptedAgent:
    """An agent that is a function of the environment and a generator of its own.

    It keeps nothing: the generator of a turn depends on the episode's seed and the turn alone.
    """

    settings: Mapping[str, JsonValue] = {}

    def __init__(self, name: str, action: Callable[[ToolEnv, np.random.Generator], str]) -> None:
        """Keep the function; `name` goes into the bundle."""
        self.name = name
        self._action = action

    @property
    def digest(self) -> str:
        """A digest of the name and of the code of the scripted agents."""
        source = Path(baselines.__file__).read_bytes()
        return digest([self.name, digest_bytes(source)])

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        """Return one action per episode."""
        return [self._action(view.env, _generator(view)) for view in episodes]

    def finish(self, key: str) -> int | None:
        """Return None: a script samples no tokens, so nobody counted."""
        return None


def _generator(view: EpisodeView) -> np.random.Generator:
    return np.random.default_rng(stable_seed(view.seed, view.env.episode.turns))


SCRIPTED: Mapping[str, Callable[[ToolEnv, np.random.Generator], str]] = {
    "oracle": lambda env, rng: baselines.oracle_action(env),
    "null": lambda env, rng: baselines.null_action(env),
    "random": baselines.random_action,
}


def scripted_agent(name: str) -> ScriptedAgent:
    """Return the agent "oracle" (the ceiling), "null" or "random" (the floors).

    Raises:
        UnknownOption: with the closest name.
    """
    if name not in SCRIPTED:
        raise UnknownOption(
            f"Agent '{name}' asked for; the scripted agents are {', '.join(SCRIPTED)}."
            f"{suggest(name, SCRIPTED)}"
        )
    return ScriptedAgent(name, SCRIPTED[name])
