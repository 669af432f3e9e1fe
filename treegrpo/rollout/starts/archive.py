"""A share of the questions begins at states that the policy itself reached in good episodes.

Each step the best episode of every question gives one of its states to an archive. A question
may then be exchanged for one of the archive: it is posed again, the actions that led to the
state are replayed, and the trees begin there, with the token ids that were sampled.

Source: Go-Explore (arXiv 1901.10995). Differences: states are chosen by reward, not by novelty,
and an archived state is only reached from a reset, never from another archived state. A study of
forks with exact gradients saw no gain from starting at one's own successes: it is here to be
compared with.

What a replay must reproduce is every observation, to the letter: then the model's context is the
one that was sampled. The state hash cannot be asked for, since it covers the random state, and
branches have random streams of their own unless siblings share one (noise = shared). Where an
observation differs the entry is dropped and counted, and the question begins at its reset: an
environment whose luck shows in its observations keeps only what luck did not touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.snapshot import restore, snapshot
from treegrpo.rollout.expansion.options import STRICT
from treegrpo.rollout.starts.base import StartState, Turn, start_state
from treegrpo.tree import Tree


class ArchiveOptions(BaseModel):
    """Options of `archive`."""

    model_config = STRICT

    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the questions that are exchanged for archived ones, where there are any."""
    capacity: int = Field(default=64, ge=1)
    """States kept for each difficulty: those of the highest rewards, of equal ones the newest."""
    reward_above: float = 0.0
    """Only episodes with a reward above this give states."""


class ArchivedTurn(BaseModel):
    """One turn on the way to an archived state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: str
    observation: str
    ids: list[int]
    observation_ids: list[int]


class Entry(BaseModel):
    """An archived state: the question, and the turns that lead from its reset to the state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question_seed: int
    options: dict[str, JsonValue]
    difficulty: int
    reward: float
    """Of the episode that it was taken from."""
    turns: list[ArchivedTurn] = Field(min_length=1)


class Kept(BaseModel):
    """All that `archive` keeps."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    entries: list[Entry] = Field(default_factory=list[Entry])
    """Oldest first."""
    dropped: int = 0
    """Entries whose replay went another way."""


@start_state("archive")
class Archive(StartState):
    """Exchanges questions for archived states of questions with the same reset options."""

    def __init__(self, **options: JsonValue) -> None:
        self._options = self._read(ArchiveOptions, options)
        self._kept = Kept()
        self._asked: dict[int, dict[str, Any]] = {}
        """Reset options of the questions of the running step, by seed."""
        self._failed: list[Entry] = []
        """Entries to drop once the running step is over: until then every question chooses
        among the same."""

    def question(
        self, seed: int, options: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[int, dict[str, Any]] | None:
        """Return an archived question, drawn uniformly from the entries that fit."""
        chosen = seed
        fitting = [entry for entry in self._kept.entries if entry.options == options]
        if fitting and rng.random() < self._options.share:
            chosen = fitting[int(rng.integers(len(fitting)))].question_seed
        self._asked[chosen] = dict(options)
        return None if chosen == seed else (chosen, dict(options))

    def begin(
        self, env: gymnasium.Env[str, str], question_seed: int, rng: np.random.Generator
    ) -> list[Turn]:
        """Replay to an archived state of this question; [] where there is none."""
        found = [entry for entry in self._kept.entries if entry.question_seed == question_seed]
        if not found:
            return []
        entry = found[int(rng.integers(len(found)))]
        reset = snapshot(env)
        turns = list(_replayed(env, entry))
        if len(turns) < len(entry.turns):
            self._failed.append(entry)
            restore(env, reset)
            return []
        return turns

    def observe(self, questions: Sequence[Sequence[Tree]]) -> None:
        """Drop what could not be replayed; let each question give a state."""
        failed = {id(entry) for entry in self._failed}
        self._kept.entries = [e for e in self._kept.entries if id(e) not in failed]
        self._kept.dropped += len(failed)
        self._failed.clear()
        for question in questions:
            entry = self._best(question)
            if entry is not None:
                self._keep(entry)
        self._asked.clear()

    def state(self) -> JsonValue:
        """Return the entries, and the count of those that were dropped."""
        return self._kept.model_dump(mode="json")

    def load(self, state: JsonValue) -> None:
        """Go on with these entries."""
        self._kept = self._restored(Kept, state)

    def _best(self, question: Sequence[Tree]) -> Entry | None:
        """Return a state of the question's best episode begun at reset; None where there is none.

        Of equally good episodes one is drawn, and of its states between the root and its end one.
        """
        rewards = {
            (number, leaf): tree.episode_reward(leaf)
            for number, tree in enumerate(question)
            if tree.start_turns == 0 and tree.question_seed in self._asked
            for leaf in tree.scored_leaves()
            if tree.nodes[leaf].depth > 1
        }
        best = max(rewards.values(), default=self._options.reward_above)
        if best <= self._options.reward_above:
            return None
        leaves = [at for at, reward in rewards.items() if reward == best]
        seed = question[0].question_seed
        rng = np.random.default_rng(stable_seed("archive", seed))
        number, leaf = leaves[int(rng.integers(len(leaves)))]
        path = question[number].path(leaf)
        end = int(rng.integers(2, len(path)))
        return _entry(question[number], path[1:end], self._asked[seed], best)

    def _keep(self, entry: Entry) -> None:
        """Add the entry, in place of the worst of its difficulty where there is no room."""
        entries = self._kept.entries
        alike = [other for other in entries if other.difficulty == entry.difficulty]
        if len(alike) == self._options.capacity:
            worst = min(alike, key=lambda other: other.reward)  # of equal ones the oldest
            if worst.reward > entry.reward:
                return
            entries[:] = [other for other in entries if other is not worst]
        entries.append(entry)


def _entry(tree: Tree, nodes: Sequence[int], options: dict[str, Any], reward: float) -> Entry:
    steps = [tree.nodes[node] for node in nodes]
    return Entry(
        question_seed=tree.question_seed,
        options=options,
        difficulty=tree.difficulty,
        reward=reward,
        turns=[
            ArchivedTurn(
                action=step.action_text,
                observation=step.observation_text,
                ids=step.action_ids,
                observation_ids=step.observation_ids,
            )
            for step in steps
        ],
    )


def _replayed(env: gymnasium.Env[str, str], entry: Entry) -> Iterator[Turn]:
    """Yield the turns as long as the environment answers as it did."""
    for turn in entry.turns:
        observation, _, terminated, truncated, info = env.step(turn.action)
        if terminated or truncated or observation != turn.observation:
            return
        yield Turn(turn.action, info["messages"], turn.ids, turn.observation_ids)
