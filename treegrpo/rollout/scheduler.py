"""The loop that grows trees: every branch that is ready joins the next batch.

A branch is one rollout in flight. When its episode ends, its tree may be forked: a fork is
one operation on three things, the tree node, the environment's snapshot after it and the
engine's context there. Trees do not wait for each other: a tree is forked as soon as its own
round is over, and its forks join the batch of whatever else is running.

Simplification: a step is synchronous. The batch is sampled to the end of its longest action,
then the environments answer one after the other.

Every random draw has a stream of its own, named by question, tree, branch and depth, so the
order of completion and the make-up of batches never change a result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.engine.base import Context, Engine, Sampled, SamplingParams
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.snapshot import Snapshot
from treegrpo.rollout.boundary import Fault, Opening, answer, branch_off, pose
from treegrpo.rollout.budget import Budget
from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.expansion import random_forks
from treegrpo.tree import Tree


@dataclass(frozen=True)
class RolloutSettings:
    """The shape of the trees and the limits of an episode; see TrainConfig for each field."""

    trunks: int
    forks: int
    rounds: int
    noise: str
    temperature: float
    max_action_tokens: int
    max_context_tokens: int
    max_sampled_tokens_per_question: int | None = None
    max_tool_calls_per_question: int | None = None


@dataclass(frozen=True)
class Question:
    """A question to grow trees for: the reset that poses it, and the seed of its streams."""

    seed: int
    options: dict[str, Any]


@dataclass
class Grown:
    """The trees of each question (none where reset failed), and what they cost."""

    questions: list[list[Tree]] = field(default_factory=list[list[Tree]])
    sampled_tokens: int = 0
    tool_calls: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    """Rollouts that failed, by who failed."""
    faults: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """The same by who failed and what it said, for people to read."""
    unstarted: Counter[str] = field(default_factory=Counter[str])
    """Branches that were refused before they sampled anything, by reason; they leave no leaf."""
    fork_depths: list[int] = field(default_factory=list[int])
    seconds_generation: float = 0.0
    seconds_environment: float = 0.0

    def count_failure(self, who: str, message: str) -> None:
        """Count a rollout that failed."""
        self.failures[who] += 1
        self.faults[who, message] += 1


@dataclass
class _Job:
    """One tree being grown: what its forks need, and where it stands."""

    tree: Tree
    question: Question
    budget: Budget
    snapshots: dict[int, Snapshot]
    contexts: dict[int, Context]
    live: dict[int, _Branch] = field(default_factory=dict[int, "_Branch"])
    branches: int = 0
    round: int = 0


@dataclass
class _Branch:
    """One rollout in flight: the node it continues, and its own environment and context."""

    job: _Job
    number: int
    node: int
    env: gymnasium.Env[str, str]
    context: Context
    has_sampled: bool = False


class Scheduler:
    """Grows the trees of many questions together."""

    def __init__(
        self, engine: Engine, chat: ChatFormat, pool: EnvironmentPool, settings: RolloutSettings
    ) -> None:
        """Borrow the parts; tool schemas are those of the pool's environment."""
        self._engine, self._chat, self._pool, self._settings = engine, chat, pool, settings
        self._tools = pool.core.tool_schemas()
        self._params = SamplingParams(
            max_tokens=settings.max_action_tokens,
            temperature=settings.temperature,
            stop_ids=frozenset(chat.stop_ids),
        )
        self._max_length = min(settings.max_context_tokens, engine.max_length)

    def grow(
        self, questions: Sequence[Question], *, max_sampled_tokens: int | None = None
    ) -> Grown:
        """Return M trees per question, forked N times in each of L rounds.

        Without failures and budgets a question has M (L N + 1) leaves. Whatever happens, every
        context and environment is given back.

        Args:
            questions: grown together.
            max_sampled_tokens: hard budget of all of them, above that of each.
        """
        grown, jobs = Grown(), list[_Job]()
        everything = Budget(max_sampled_tokens)
        ready: list[_Branch] = []
        try:
            for question in questions:
                started = self._start(question, everything, jobs, grown)
                grown.questions.append([job.tree for job in started])
                ready += [b for job in started for b in self._fork(job, 0, grown)]
            while ready:
                ready = self._advance(ready, grown)
        finally:
            for job in jobs:
                self._abandon(job)
        return grown

    def _start(
        self, question: Question, everything: Budget, jobs: list[_Job], grown: Grown
    ) -> list[_Job]:
        """Reset once, and plant one root per trunk at that very state; add them to `jobs`."""
        with _environment_time(grown):
            opening = pose(self._pool, stable_seed("reset", question.seed), question.options)
        if isinstance(opening, Fault):
            grown.count_failure(opening.failure, opening.message)
            return []
        prompt = self._chat.opening_ids(opening.messages, self._tools)
        settings = self._settings
        budget = Budget(
            settings.max_sampled_tokens_per_question,
            settings.max_tool_calls_per_question,
            within=everything,
        )
        context = self._engine.start(prompt)
        started: list[_Job] = []
        for number, own in enumerate(self._engine.fork(context, settings.trunks)):
            tree = _root(opening, number, prompt)
            started.append(_Job(tree, question, budget, {0: opening.snapshot}, {0: own}))
        self._engine.release(context)
        jobs += started
        return started

    def _fork(self, job: _Job, node: int, grown: Grown) -> list[_Branch]:
        """Return a new branch at a node: environment, context and node forked together.

        No branch where the environment could not be forked; the failure is counted.
        """
        is_trunk, number = job.branches == 0, job.branches
        job.branches += 1
        with _environment_time(grown):
            env = branch_off(self._pool, job.snapshots[node], self._noise(job, node, number))
        if isinstance(env, Fault):
            grown.count_failure(env.failure, env.message)
            return []
        [context] = self._engine.fork(job.contexts[node], 1)
        branch = _Branch(job, number, node, env, context)
        job.live[number] = branch
        if not is_trunk:
            grown.fork_depths.append(job.tree.nodes[node].depth)
        return [branch]

    def _noise(self, job: _Job, node: int, number: int) -> int | None:
        """Return the seed of a branch's environment; None goes on with the node's stream.

        All trees of a question have the snapshot of one reset at their roots. Unless they are
        to share its stream, each tree has a stream of its own there.
        """
        match self._settings.noise:
            case "fresh":
                return stable_seed("noise", job.question.seed, job.tree.tree_id, number)
            case "inherit" if node == 0:
                return stable_seed("noise", job.question.seed, job.tree.tree_id)
            case _:
                return None

    def _advance(self, ready: list[_Branch], grown: Grown) -> list[_Branch]:
        """Sample one step of every branch that may go on; return who is ready after that.

        At the start nothing is in flight, so of the branches that share a budget the first is
        admitted or refused: the loop always moves on.
        """
        admitted: list[_Branch] = []
        later: list[_Branch] = []
        for branch in ready:
            reason = self._refusal(branch)
            if reason is not None:
                later += self._refuse(branch, reason, grown)
            elif branch.job.budget.admit(self._params.max_tokens):
                admitted.append(branch)
            else:
                later.append(branch)  # what is in flight may leave enough
        if not admitted:
            return later
        started = time.perf_counter()
        contexts, seeds = [b.context for b in admitted], [*map(_stream, admitted)]
        sampled = self._engine.sample(contexts, self._params, seeds)
        grown.seconds_generation += time.perf_counter() - started
        for branch, output in zip(admitted, sampled, strict=True):
            branch.job.budget.settle(self._params.max_tokens, len(output.ids))
            grown.sampled_tokens += len(output.ids)
        for branch, output in zip(admitted, sampled, strict=True):
            later += self._step(branch, output, grown)
        return later

    def _refusal(self, branch: _Branch) -> str | None:
        """Return why a branch can never go on, or None."""
        if branch.context.length + self._params.max_tokens > self._max_length:
            return "context_limit"
        return "budget" if branch.job.budget.is_spent(self._params.max_tokens) else None

    def _refuse(self, branch: _Branch, reason: str, grown: Grown) -> list[_Branch]:
        """End a branch where it stands, with a truncated leaf.

        A branch that has sampled nothing leaves none: its path would be another's, and the
        reward would be nobody's.
        """
        if branch.has_sampled:
            branch.job.tree.add(branch.node, truncated=True, end_reason=reason)
        else:
            grown.unstarted[reason] += 1
        return self._end(branch, grown)

    def _step(self, branch: _Branch, output: Sampled, grown: Grown) -> list[_Branch]:
        """Let the environment answer a sampled action; return the branches that go on."""
        job, text = branch.job, self._chat.decode_action(output.ids)
        keep = job.round < self._settings.rounds
        with _environment_time(grown):
            got = answer(branch.env, text, tool_calls_left=job.budget.tool_calls_left, keep=keep)
        grown.tool_calls += got.tool_calls
        job.budget.count_tool_calls(got.tool_calls)
        ids: list[int] = []
        if not got.ended:
            closing = self._chat.close_ids(output.ids)
            ids = [*closing, *self._chat.observation_ids(got.messages)]
        node = job.tree.add(
            branch.node,
            action_ids=output.ids,
            action_logps=output.logps,
            observation_ids=ids,
            action_text=text,
            observation_text=got.observation,
            reward=got.reward,
            terminated=got.terminated,
            truncated=got.truncated,
            end_reason=got.end_reason,
            failure=got.failure,
            state_hash=got.state_hash,
            weight_version=self._engine.version,
        )
        branch.node, branch.has_sampled = node.id, True
        if got.ended:
            return self._end(branch, grown)
        self._engine.prefill(branch.context, ids)
        if got.snapshot is not None:
            job.snapshots[node.id] = got.snapshot
            [job.contexts[node.id]] = self._engine.fork(branch.context, 1)
        return [branch]

    def _end(self, branch: _Branch, grown: Grown) -> list[_Branch]:
        """Give back what the branch held; fork the tree if it was the last of its round."""
        job = branch.job
        last = job.tree.nodes[branch.node]
        self._engine.release(branch.context)
        if last.failure is None:
            self._pool.give(branch.env)
        else:
            grown.count_failure(last.failure, last.observation_text)
            self._pool.discard(branch.env)
        del job.live[branch.number]
        branches: list[_Branch] = []
        while not job.live and job.round < self._settings.rounds:
            job.round += 1
            name = ("forks", job.question.seed, job.tree.tree_id, job.round)
            rng = np.random.default_rng(stable_seed(*name))
            for node in random_forks(job.tree, self._settings.forks, rng):
                branches += self._fork(job, node, grown)
        if job.round == self._settings.rounds:
            self._forget(job)
        return branches

    def _forget(self, job: _Job) -> None:
        """Give up what only another fork would need."""
        for context in job.contexts.values():
            self._engine.release(context)
        job.contexts.clear()
        job.snapshots.clear()

    def _abandon(self, job: _Job) -> None:
        """Give up everything a tree still holds; nothing, unless an exception came through."""
        for branch in job.live.values():
            self._engine.release(branch.context)
            self._pool.discard(branch.env)
        job.live.clear()
        self._forget(job)


def _root(opening: Opening, number: int, prompt: list[int]) -> Tree:
    """Return a tree that holds the prompt only."""
    tree = Tree(
        question_id=opening.task_id,
        tree_id=number,
        difficulty=opening.difficulty,
        question=opening.question,
    )
    tree.add(None, observation_ids=prompt, state_hash=opening.snapshot.hash)
    return tree


def _stream(branch: _Branch) -> int:
    """Return the seed of the branch's next step, whatever else is in the batch."""
    job = branch.job
    depth = job.tree.nodes[branch.node].depth
    return stable_seed("sample", job.question.seed, job.tree.tree_id, branch.number, depth)


@contextmanager
def _environment_time(grown: Grown) -> Generator[None]:
    """Count the seconds spent inside as the environment's."""
    started = time.perf_counter()
    try:
        yield
    finally:
        grown.seconds_environment += time.perf_counter() - started
