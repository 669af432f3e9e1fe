"""Search at test time: best-first over forks of the episode, around any other agent.

At an episode's first turn the whole search is made: the most promising node is taken, the base
agent is asked for `expand` actions there, each is played in a fork of its own; and again, until
one succeeds or `expansions` nodes are used up. Then the best path is played, action by action,
in the episode itself, and is what the bundle holds and what replay proves. Where it ends before
the episode does, the base agent goes on alone.

A fork inherits its parent's random state, so the episode does what its fork did: the search has
undo, not luck. That is why such results stand in a track of their own, and why the steps, tool
calls and tokens of every branch are recorded with the episode. The best path is stepped twice,
in a fork and in the episode, and costs as much.

Best means: highest value, then deepest, then first. The value is the reward so far, or what a
function of the forked environment gives.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.digest import digest, stable_seed
from treegrpo.envs.errors import SnapshotUnsupported, TreegrpoError
from treegrpo.leaderboards.agents.base import Acted, Agent, EpisodeView, ForkingAgent, act_each
from treegrpo.leaderboards.agents.python_class import source_digest
from treegrpo.leaderboards.errors import AgentUnusable
from treegrpo.leaderboards.usage import Searched, Usage, usage_of

Value = Callable[[ToolEnv], float]
"""How promising a forked episode is; higher is better."""


def reward_so_far(env: ToolEnv) -> float:
    """Return the sum of the rewards that the episode has given."""
    return env.episode.episode_return


@dataclass(frozen=True)
class _Node:
    """A fork after a step; the root is the episode itself, which is forked and never stepped.

    `key` names what the base agent keeps of it, `delta` is what the step gave to see.
    """

    key: str
    env: ToolEnv
    actions: tuple[str, ...]
    value: float
    delta: list[Message]
    is_success: bool

    @property
    def rank(self) -> tuple[bool, float, int]:
        """What makes it better than another one."""
        return self.is_success, self.value, len(self.actions)


@dataclass
class _Search:
    """The search of one episode while it grows."""

    view: EpisodeView
    frontier: list[tuple[float, int, int, _Node]] = field(
        default_factory=list[tuple[float, int, int, _Node]]
    )
    ended: list[_Node] = field(default_factory=list[_Node])
    keys: list[str] = field(default_factory=list[str])
    """What the base agent still keeps something of."""
    spent: list[Usage] = field(default_factory=list[Usage])
    num_pushed: int = 0
    expansions: int = 0
    done: Searched = field(default_factory=lambda: Searched(branches=1, turns=0, tool_calls=0))
    error: Exception | None = None

    def __post_init__(self) -> None:
        """Begin at the episode as it stands."""
        view = self.view
        self.push(_Node(view.key, view.env, (), 0.0, view.messages_delta, is_success=False))

    def push(self, node: _Node) -> None:
        self.num_pushed += 1
        entry = (-node.value, -len(node.actions), self.num_pushed, node)
        heapq.heappush(self.frontier, entry)

    def pop(self, limit: int) -> _Node | None:
        """Return the node to expand next; None when the search is over."""
        is_over = self.error is not None or self.expansions >= limit or not self.frontier
        if is_over or any(node.is_success for node in self.ended):
            return None
        self.expansions += 1
        return heapq.heappop(self.frontier)[-1]

    def grow(self, node: _Node, key: str, action: str, value: Value) -> None:
        """Play an action in a fork of a node; a fork that breaks leads nowhere."""
        before = node.env.episode.tool_calls
        fork = _forked(node.env)
        try:
            *_, info = fork.step(action)
        except Exception:  # noqa: BLE001 - the boundary: the episode itself would fail as well
            fork.close()
            self.done += Searched(0, 1, 0)
            return
        self.done += Searched(0, 1, fork.episode.tool_calls - before)
        try:
            worth = _worth(value, fork)
        except BaseException:
            fork.close()
            raise
        path = (*node.actions, action)
        grown = _Node(key, fork, path, worth, info["messages"], is_success=bool(info["success"]))
        if fork.episode.ended:
            self.ended.append(grown)
            fork.close()
        else:
            self.push(grown)

    @property
    def best(self) -> tuple[str, ...]:
        """The actions of the best path: to an end where one was found, else as far as it got."""
        found = self.ended or [node for *_, node in self.frontier]
        return max(found, key=lambda node: node.rank).actions if found else ()

    def close(self) -> None:
        """Close the forks that are left; the episode itself stays."""
        for *_, node in self.frontier:
            _close(node)
        self.frontier = []


class SearchAgent:
    """Best-first search around a base agent, which it asks under keys of its own."""

    track: Literal["search"] = "search"

    def __init__(
        self,
        base: Agent,
        *,
        expand: int = 4,
        expansions: int = 16,
        value: Value = reward_so_far,
    ) -> None:
        """Search with `expand` actions per node and `expansions` nodes at most; own the base.

        Raises:
            TreegrpoError: a number below 1.
        """
        for name, number in (("expand", expand), ("expansions", expansions)):
            if type(number) is not int or number < 1:
                raise TreegrpoError(f"{name}={number!r} asked for; give a whole number from 1 up.")
        self._base, self._expand, self._expansions = base, expand, expansions
        self._value = value
        self.name = f"search({base.name})"
        self.model = getattr(base, "model", None)
        self.provider = getattr(base, "provider", None)
        self.prompt_digest = getattr(base, "prompt_digest", None)
        named = str(getattr(value, "__name__", type(value).__name__))
        own: dict[str, JsonValue] = {"expand": expand, "expansions": expansions, "value": named}
        self.settings: Mapping[str, JsonValue] = {"search": own, **base.settings}
        self.digest = digest([own, source_digest(SearchAgent), source_digest(value), base.digest])
        self._plans: dict[str, list[str]] = {}
        self._spent: dict[str, Usage] = {}
        self._alone: set[str] = set()

    def act(self, episodes: Sequence[EpisodeView]) -> list[Acted]:
        """Return per episode the next action of its best path, after a search at its first turn.

        Raises:
            AgentUnusable: an environment that cannot be forked, a value that is no number; and
                as the base agent.
        """
        errors = self._plan([view for view in episodes if view.key not in self._plans])
        alone = [
            self._seen_alone(view)
            for view in episodes
            if view.key not in errors and not self._plans[view.key]
        ]
        acted = zip((view.key for view in alone), act_each(self._base, alone), strict=True)
        answers: dict[str, Acted] = {**errors, **dict(_actions(acted))}
        self._alone |= {view.key for view in alone}
        return [
            answers[view.key] if view.key in answers else self._plans[view.key].pop(0)
            for view in episodes
        ]

    def finish(self, key: str) -> Usage:
        """Forget the episode; return what all branches cost."""
        self._plans.pop(key, None)
        spent = self._spent.pop(key, Usage())
        if key in self._alone:
            self._alone.discard(key)
            spent += usage_of(self._base.finish(key))
        return spent

    def close(self) -> None:
        """Close the base agent, where it can be closed."""
        close = getattr(self._base, "close", None)
        if close is not None:
            close()

    def _seen_alone(self, view: EpisodeView) -> EpisodeView:
        """Return the episode for the base agent, which has not seen the steps of the plan."""
        return view if view.key in self._alone else replace(view, messages_delta=view.env.messages)

    def _plan(self, views: Sequence[EpisodeView]) -> dict[str, Exception]:
        """Search for all of these episodes in step; return the errors of those that failed."""
        searches = [_Search(view) for view in views]
        try:
            while self._round(searches):
                pass
            plans = {search.view.key: list(search.best) for search in searches}
        finally:
            for search in searches:
                search.close()
                self._forget(search)
        for search in searches:
            spent = sum(search.spent[1:], start=search.spent[0]) if search.spent else Usage()
            self._spent[search.view.key] = replace(spent, search=search.done)
            if search.error is None:
                self._plans[search.view.key] = plans[search.view.key]
        return {s.view.key: s.error for s in searches if s.error is not None}

    def _round(self, searches: Sequence[_Search]) -> bool:
        """Expand one node of every search, all asked for at once; return whether there was any."""
        taken = [(search, search.pop(self._expansions)) for search in searches]
        nodes = [(search, node) for search, node in taken if node is not None]
        asked = [(s, n, view) for s, n in nodes for view in self._candidates(s, n)]
        try:
            actions = act_each(self._base, [view for *_, view in asked])
            for (search, node, view), action in zip(asked, actions, strict=True):
                self._take(search, node, view.key, action)
        finally:
            for _, node in nodes:
                _close(node)
        for search, _ in nodes:
            search.done += Searched(self._expand - 1, 0, 0)
            self._forget(search)
        return bool(nodes)

    def _candidates(self, search: _Search, node: _Node) -> Iterator[EpisodeView]:
        """Yield the node as the base agent sees it, once for each action that is wanted."""
        for number in range(self._expand):
            key = f"{node.key}.{number}"
            search.keys.append(key)
            delta = node.delta
            if node.actions:
                if isinstance(self._base, ForkingAgent):
                    self._base.fork(node.key, key)
                else:
                    delta = node.env.messages
            yield EpisodeView(key, stable_seed(search.view.seed, key), node.env, list(delta))

    def _take(self, search: _Search, node: _Node, key: str, action: object) -> None:
        """Grow a search by what the base agent gave; its failure is that of the episode."""
        try:
            if isinstance(action, Exception):
                raise action
            if not isinstance(action, str):
                raise TypeError(f"the agent gave {type(action).__name__}, not a text")
            search.grow(node, key, action, self._value)
        except AgentUnusable:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
            search.error = search.error or error

    def _forget(self, search: _Search) -> None:
        """Let the base agent forget the branches that will not be expanded; note their cost."""
        open_keys = {node.key for *_, node in search.frontier}
        for key in [key for key in search.keys if key not in open_keys]:
            search.keys.remove(key)
            try:
                search.spent.append(usage_of(self._base.finish(key)))
            except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
                search.error = search.error or error


def _worth(value: Value, env: ToolEnv) -> float:
    """Return what a forked episode is worth; an agent that cannot tell searches nothing."""
    found: object = value(env)
    try:
        number = float(found)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(found, str) or math.isnan(number):
        name = f"{getattr(value, '__module__', '?')}:{getattr(value, '__name__', '?')}"
        raise AgentUnusable(
            f"A search with value={name} asked for, but it returned {ascii(found)[:100]}, which "
            "is no number. Let it return one, then give the same command again."
        )
    return number


def _forked(env: ToolEnv) -> ToolEnv:
    try:
        return env.fork()
    except SnapshotUnsupported as error:
        raise AgentUnusable(
            f"A search asked for, but the environment cannot be forked: {error}. Evaluate the "
            "base agent without search."
        ) from error


def _close(node: _Node) -> None:
    if node.actions:  # the root is the episode itself, which others hold
        node.env.close()


def _actions(acted: Iterator[tuple[str, object]]) -> Iterator[tuple[str, Acted]]:
    """Yield what was given; what is neither text nor exception becomes one."""
    for key, action in acted:
        if isinstance(action, (str, Exception)):
            yield key, action
        else:
            yield key, TypeError(f"the agent gave {type(action).__name__}, not a text")
