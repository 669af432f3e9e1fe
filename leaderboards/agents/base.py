"""What an evaluation asks of an agent.

An agent gets every live episode at once, so that a model decodes them as one batch:

    class Agent:
        name, digest, settings              what is written in the bundle
        act(episodes) -> list               per episode, in order: its action, a raw assistant
                                            text, or the exception that took its place
        finish(key) -> int | Usage | None   the episode ended; what it cost, if counted

Optional attributes say more in the bundle: `model`, `provider`, `prompt_digest`, and `track`,
"search" for an agent that looks ahead in forks. Optional methods:

    act_ready(episodes) -> dict         the actions that have come in, by key, at least one; it
                                        is asked again for the others, so that nobody waits
                                        for the slowest answer
    fork(key, twin)                     the episode `twin` begins with what is kept of `key`, and
                                        with nothing counted; a search then gives the twin only
                                        what is new, else the whole conversation

Agents of a model folder live with the command line: this floor imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from pydantic import JsonValue

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.leaderboards.errors import AgentUnusable
from treegrpo.leaderboards.usage import Usage

Acted = str | Exception
"""An action; or, in its place, why there is none: that fails this one episode."""


@dataclass(frozen=True)
class EpisodeView:
    """One live episode, as an agent sees it.

    `key` names the episode for as long as it lives. `seed` is the agent's own (stable per
    evaluation seed, task and trial, and not the environment's). `messages_delta` holds what is
    new since this agent's last action, all the opening messages at first. `env` is the bare
    environment: for its tool schemas, for scripted agents and to be forked, never to be stepped.
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

    def act(self, episodes: Sequence[EpisodeView]) -> Sequence[Acted]:
        """Return one raw assistant text, or an exception in its place, per episode, in order.

        When this raises, the episodes of the batch are tried one by one, so a call that
        raises must leave what the agent keeps per key as it was.

        Raises:
            AgentUnusable: nothing can be evaluated; the evaluation stops and can be resumed.
        """
        ...

    def finish(self, key: str) -> int | Usage | None:
        """Forget the episode; return the tokens sampled in it, or all that was counted."""
        ...


@runtime_checkable
class ForkingAgent(Protocol):
    """An agent that can begin an episode with what it keeps of another one."""

    def fork(self, key: str, twin: str) -> None:
        """Let `twin` begin with what is kept of `key`, and with nothing counted."""
        ...


@runtime_checkable
class ReadyAgent(Protocol):
    """An agent whose answers come in one by one."""

    def act_ready(self, episodes: Sequence[EpisodeView]) -> Mapping[str, Acted]:
        """Return the actions that have come in, by key; wait until there is one.

        Asked again with the same episodes, less those that were answered, plus others.

        Raises:
            AgentUnusable: as act() does.
        """
        ...


def act_some(agent: Agent, episodes: Sequence[EpisodeView]) -> dict[str, object]:
    """Return what the agent gave, or the exception in its place, by key: for some or for all.

    Raises:
        AgentUnusable: as the agent raised it.
    """
    keys = [view.key for view in episodes]
    if isinstance(agent, ReadyAgent):
        try:
            given = dict(agent.act_ready(episodes))
        except AgentUnusable:
            raise
        except Exception:  # noqa: BLE001 - the boundary: whose fault it is, act() will tell
            given = {}
        if given.keys() & set(keys):
            return dict(given)
    return dict(zip(keys, act_each(agent, episodes), strict=True))


def act_each(agent: Agent, episodes: Sequence[EpisodeView]) -> list[object]:
    """Return for every episode what the agent gave, or the exception in its place.

    Raises:
        AgentUnusable: as the agent raised it.
    """
    try:
        return _checked(agent.act(episodes), len(episodes))
    except AgentUnusable:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
        if len(episodes) == 1:
            return [error]
    # One episode made the batch fail, and nobody knows which: ask for each alone.
    return [action for view in episodes for action in act_each(agent, [view])]


def _checked(given: object, count: int) -> list[object]:
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"the agent gave {type(given).__name__}, no list of actions")
    actions = list(cast("Sequence[object]", given))
    if len(actions) != count:
        raise ValueError(f"the agent gave {len(actions)} actions for {count} episodes")
    for action in actions:
        if isinstance(action, AgentUnusable):
            raise action
    return actions
