"""What an evaluation asks of an agent, and the three scripted agents.

An agent gets every live episode at once, so that a model decodes them as one batch:

    class Agent:
        name, digest, settings              what is written in the bundle
        act(episodes) -> list[str]          one raw assistant text per episode, in order
        finish(key) -> int | Usage | None   the episode ended; what it cost, if counted

Agents of a model folder live with the command line: this floor imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import JsonValue

from treegrpo.envs import baselines
from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest, digest_bytes, stable_seed
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.leaderboards.usage import Usage


@dataclass(frozen=True)
class EpisodeView:
    """One live episode, as an agent sees it.

    `key` names the episode for as long as it lives. `seed` is the agent's own (stable per
    evaluation seed, task and trial, and not the environment's). `messages_delta` holds what is
    new since this agent's last action, all the opening messages at first. `env` is the bare
    environment: for its tool schemas and for scripted agents, never to be stepped.
    """

    key: str
    seed: int
    env: ToolEnv
    messages_delta: list[Message]


class Agent(Protocol):
    """Anything that acts; see the module's text."""

    @property
    def name(self) -> str:
        """The name on the leaderboard."""
        ...

    @property
    def digest(self) -> str:
        """What identifies the weights or the code."""
        ...

    @property
    def settings(self) -> Mapping[str, JsonValue]:
        """How it acts (temperature, token limits, ...): JSON values."""
        ...

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        """Return one raw assistant text per episode, in order.

        When this raises, the episodes of the batch are tried one by one, so a call that
        raises must leave what the agent keeps per key as it was.
        """
        ...

    def finish(self, key: str) -> int | Usage | None:
        """Forget the episode; return the tokens sampled in it, or all that was counted."""
        ...


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
