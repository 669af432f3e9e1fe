"""The scripted expert of SearchQA, and a demonstrator that errs in known, biased ways.

The expert looks up one missing fact at a time and then answers; it works from any state. The
demonstrator does the same but mixes relations up, with a favourite, and stops early: a
warm start on its episodes leaves a policy that reinforcement learning has to *correct*, not
only sharpen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treegrpo.envs.suite.search_qa.worlds import World, build_world

if TYPE_CHECKING:
    from treegrpo.envs.suite.search_qa.env import SearchQAEnv

# Which relation is asked for -> which one the demonstrator looks up by mistake.
FAVOURITE_MISTAKES = {
    "home": "birthplace",
    "employer": "client",
    "friend": "mentor",
    "seat": "depot",
    "chief": "founder",
    "mayor": "architect",
}


def next_action(env: SearchQAEnv) -> str:
    """Return the expert's next action for the episode as it stands."""
    data = env.task.data
    if "world" not in data:
        return _file_action(env)
    world = build_world(data["split"], data["world"])
    positions: list[int] = env.state["seen"]
    seen = {env.documents().documents[position].text for position in positions}
    for fact in world.follow(data["subject"], data["relations"]):
        if fact.sentence() not in seen:
            return env.encode_call("search", query=f"{fact.relation} of {fact.subject}")
    return env.encode_call("answer", text=env.task.answer[0])


def _file_action(env: SearchQAEnv) -> str:
    """Search the supporting titles in order, then give the gold answer."""
    done = env.episode.tool_calls
    titles: tuple[str, ...] = env.task.data["supporting"]
    if done < min(len(titles), env.max_turns - 1):
        return env.encode_call("search", query=titles[done])
    return env.encode_call("answer", text=env.task.answer[0])


@dataclass(frozen=True)
class Mistakes:
    """How often the demonstrator errs.

    `mix_up` is the probability, per hop whose relation has a favourite mistake, of looking
    up the favourite instead; `stop_early` that of answering after a hop that is not the last.
    """

    mix_up: float = 0.6
    stop_early: float = 0.2


class Demonstrator:
    """Plays one episode at a time with biased mistakes; call `begin` after each reset."""

    def __init__(self, mistakes: Mistakes, rng: np.random.Generator) -> None:
        """Keep the rates and the stream that decides when to err."""
        self._mistakes, self._rng = mistakes, rng
        self._queue: list[tuple[str, str]] = []
        self._answer = ""

    def begin(self, env: SearchQAEnv) -> None:
        """Plan the episode: the lookups, right or wrong, and the answer they lead to."""
        data = env.task.data
        world: World = build_world(data["split"], data["world"])
        self._queue, subject = [], data["subject"]
        for hop, relation in enumerate(data["relations"]):
            if hop > 0 and self._rng.random() < self._mistakes.stop_early:
                break
            if relation in FAVOURITE_MISTAKES and self._rng.random() < self._mistakes.mix_up:
                relation = FAVOURITE_MISTAKES[relation]
            self._queue.append((relation, subject))
            subject = world.facts[subject, relation].object
        self._answer = subject

    def act(self, env: SearchQAEnv) -> str:
        """Return the next action of the plan."""
        if self._queue:
            relation, subject = self._queue.pop(0)
            return env.encode_call("search", query=f"{relation} of {subject}")
        return env.encode_call("answer", text=self._answer)
