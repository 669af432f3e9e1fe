"""The loop that grows trees: every branch that is ready joins the next batch.

A branch is one rollout in flight. When its episode ends, its tree may be forked: a fork is
one operation on three things, the tree node, the environment's snapshot after it and the
engine's context there. Trees do not wait for each other: a tree is forked as soon as its own
round is over, and its forks join the batch of whatever else is running.

Every random draw has a stream of its own, named by question, tree, branch and depth, so the
order of completion and the make-up of batches never change a result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.engine.base import Context, Engine, Sampled, SamplingParams
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import GraderFailed
from treegrpo.envs.snapshot import Snapshot, snapshot
from treegrpo.rollout.budget import Budget
from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.expansion import random_forks
from treegrpo.tree import Failure, Tree


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
    fork_depths: list[int] = field(default_factory=list[int])
    seconds_generation: float = 0.0
    seconds_environment: float = 0.0


@dataclass
class _Job:
    """One tree being grown: what its forks need, and where it stands."""

    tree: Tree
    question: Question
    budget: Budget
    snapshots: dict[int, Snapshot] = field(default_factory=dict[int, Snapshot])
    contexts: dict[int, Context] = field(default_factory=dict[int, Context])
    branches: int = 0
    running: int = 0
    round: int = 0


@dataclass
class _Branch:
    """One rollout in flight: the node it continues, and its own environment and context."""

    job: _Job
    number: int
    node: int
    env: gymnasium.Env[str, str]
    context: Context


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

    def grow(self, questions: Sequence[Question]) -> Grown:
        """Return M trees per question, forked N times in each of L rounds."""
        grown = Grown()
        ready: list[_Branch] = []
        jobs: list[_Job] = []
        for question in questions:
            started = self._start_question(question, grown)
            jobs += started
            grown.questions.append([job.tree for job in started])
            ready += [branch for job in started for branch in self._fork(job, 0, 1, grown)]
        while ready:
            ready = self._advance(ready, grown)
        for job in jobs:
            for context in job.contexts.values():
                self._engine.release(context)
        return grown

    def _start_question(self, question: Question, grown: Grown) -> list[_Job]:
        """Reset once, and plant one root per trunk at that very state."""
        started = time.perf_counter()
        try:
            seed = stable_seed("reset", question.seed)
            _, info = self._pool.template.reset(seed=seed, options=question.options)
            root = snapshot(self._pool.template)
        except Exception as error:  # noqa: BLE001 - the boundary: a failing rollout is data
            if isinstance(error, ValueError):
                raise  # wrong options or a state that cannot be captured: the user's to mend
            grown.failures["environment"] += 1
            return []
        grown.seconds_environment += time.perf_counter() - started
        prompt = self._chat.opening_ids(info["messages"], self._tools)
        settings = self._settings
        budget = Budget(
            settings.max_sampled_tokens_per_question, settings.max_tool_calls_per_question
        )
        jobs: list[_Job] = []
        opening = self._engine.start(prompt)
        for number in range(settings.trunks):
            tree = Tree(
                question_id=info["task_id"],
                tree_id=number,
                difficulty=int(info["difficulty"]),
                question=self._pool.core.task.question,
            )
            tree.add(None, observation_ids=prompt, state_hash=root.hash)
            job = _Job(tree, question, budget, {0: root})
            [job.contexts[0]] = self._engine.fork(opening, 1)
            jobs.append(job)
        self._engine.release(opening)
        return jobs

    def _fork(self, job: _Job, node: int, count: int, grown: Grown) -> list[_Branch]:
        """Return new branches at a node: environment, context and node forked together."""
        branches: list[_Branch] = []
        for context in self._engine.fork(job.contexts[node], count):
            is_trunk, number = job.branches == 0, job.branches
            fresh = stable_seed("noise", job.question.seed, job.tree.tree_id, number)
            own_noise = self._settings.noise == "fresh" or (
                is_trunk and self._settings.noise == "inherit"
            )
            env, _ = self._pool.take(job.snapshots[node], seed=fresh if own_noise else None)
            branches.append(_Branch(job, number, node, env, context))
            job.branches += 1
            job.running += 1
            if not is_trunk:
                grown.fork_depths.append(job.tree.nodes[node].depth)
        return branches

    def _advance(self, ready: list[_Branch], grown: Grown) -> list[_Branch]:
        """Sample one step of every branch that may go on, step the environments, fork."""
        admitted: list[_Branch] = []
        later: list[_Branch] = []
        for branch in ready:
            reason = self._refusal(branch)
            if reason is None:
                admitted.append(branch)
            else:
                branch.job.tree.add(branch.node, truncated=True, end_reason=reason)
                later += self._end(branch, grown)
        if not admitted:
            return later
        started = time.perf_counter()
        sampled = self._engine.sample(
            [branch.context for branch in admitted], self._params, [*map(_stream, admitted)]
        )
        grown.seconds_generation += time.perf_counter() - started
        for branch, output in zip(admitted, sampled, strict=True):
            branch.job.budget.settle(self._params.max_tokens, len(output.ids))
            grown.sampled_tokens += len(output.ids)
            later += self._step(branch, output, grown)
        return later

    def _refusal(self, branch: _Branch) -> str | None:
        """Return why a branch may not go on, or None, with its tokens reserved."""
        if branch.context.length + self._params.max_tokens > self._max_length:
            return "context_limit"
        return None if branch.job.budget.admit(self._params.max_tokens) else "budget"

    def _step(self, branch: _Branch, output: Sampled, grown: Grown) -> list[_Branch]:
        """Let the environment answer a sampled action; return the branches that go on."""
        job, text = branch.job, self._chat.decode_action(output.ids)
        started = time.perf_counter()
        answer = _answer(branch.env, text, job.budget)
        grown.seconds_environment += time.perf_counter() - started
        grown.tool_calls += answer.tool_calls
        job.budget.tool_calls += answer.tool_calls
        ids: list[int] = []
        if not answer.ended:
            closing = [] if output.stopped else self._chat.close_ids(output.ids)
            ids = [*closing, *self._chat.observation_ids(answer.messages)]
        node = job.tree.add(
            branch.node,
            action_ids=output.ids,
            action_logps=output.logps,
            observation_ids=ids,
            action_text=text,
            observation_text=answer.observation,
            reward=answer.reward,
            terminated=answer.terminated,
            truncated=answer.truncated,
            end_reason=answer.end_reason,
            failure=answer.failure,
            state_hash=answer.state_hash,
            weight_version=self._engine.version,
        )
        branch.node = node.id
        if answer.failure is not None:
            grown.failures[answer.failure] += 1
        if answer.ended:
            return self._end(branch, grown)
        self._engine.prefill(branch.context, ids)
        if self._may_fork_again(job):
            assert answer.snapshot is not None, "an episode that goes on has a snapshot"
            job.snapshots[node.id] = answer.snapshot
            [job.contexts[node.id]] = self._engine.fork(branch.context, 1)
        return [branch]

    def _end(self, branch: _Branch, grown: Grown) -> list[_Branch]:
        """Give back what the branch held; start the tree's next round if it was the last."""
        job, settings = branch.job, self._settings
        self._engine.release(branch.context)
        self._pool.give(branch.env)
        job.running -= 1
        if job.running or not self._may_fork_again(job):
            return []
        job.round += 1
        name = ("forks", job.question.seed, job.tree.tree_id, job.round)
        rng = np.random.default_rng(stable_seed(*name))
        chosen = random_forks(job.tree, settings.forks, rng)
        return [b for node in chosen if node in job.contexts for b in self._fork(job, node, 1, grown)]

    def _may_fork_again(self, job: _Job) -> bool:
        return job.round < self._settings.rounds and self._settings.forks > 0


@dataclass(frozen=True)
class _Answer:
    """What came back from the environment for one action."""

    observation: str = ""
    messages: list[Any] = field(default_factory=list[Any])
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    end_reason: str | None = None
    failure: Failure | None = None
    tool_calls: int = 0
    state_hash: str = ""
    snapshot: Snapshot | None = None

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


def _answer(env: gymnasium.Env[str, str], action: str, budget: Budget) -> _Answer:
    """Step the environment; the one boundary where its failures become data."""
    core = env.unwrapped
    assert isinstance(core, ToolEnv), "snapshot() refuses any other environment"
    calls_before = core.episode.tool_calls
    failure: Failure
    try:
        if budget.tool_calls_left is not None:
            core.cap_tool_calls(calls_before + budget.tool_calls_left)
        observation, reward, terminated, truncated, info = env.step(action)
        after = None if terminated or truncated else snapshot(env)
        return _Answer(
            observation=observation,
            messages=info["messages"],
            reward=float(reward),
            terminated=terminated,
            truncated=truncated,
            end_reason=info["end_reason"],
            tool_calls=core.episode.tool_calls - calls_before,
            state_hash=core.state_hash() if after is None else after.hash,
            snapshot=after,
        )
    except GraderFailed as error:
        failure, reason = "grader", str(error)
    except Exception as error:  # noqa: BLE001 - the boundary: a failing rollout is data
        failure, reason = "environment", f"{type(error).__name__}: {error}"
    calls = core.episode.tool_calls - calls_before
    return _Answer(truncated=True, end_reason=reason, failure=failure, tool_calls=calls)


def _stream(branch: _Branch) -> int:
    """Return the seed of the branch's next step, whatever else is in the batch."""
    job = branch.job
    depth = job.tree.nodes[branch.node].depth
    return stable_seed("sample", job.question.seed, job.tree.tree_id, branch.number, depth)
