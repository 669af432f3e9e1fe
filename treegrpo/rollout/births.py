"""How trees and branches come to life: questions posed, roots planted, nodes forked.

A fork is one operation on three things. Node and engine context are forked at once; the
environment is fetched by a worker, when there is room for one more live branch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import gymnasium
import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.rollout.boundary import Fault, Opening, branch_off, pose, render
from treegrpo.rollout.budget import Budget
from treegrpo.rollout.grown import Grown
from treegrpo.rollout.growth import Branch, Place, Question, QuestionGrowth, TreeGrowth
from treegrpo.rollout.starts.base import Turn
from treegrpo.rollout.workers import Late, Workers
from treegrpo.tree import Tree

if TYPE_CHECKING:
    from treegrpo.rollout.scheduler import Scheduler


class Births:
    """Makes the branches of one call of `grow`.

    Args:
        scheduler: its engine, chat format, pool, settings and plug-ins are used.
        workers: run the environments.
        grown: failures are counted there.
        planted: called with each new tree, whose trunk is on its way.
        born: called with each branch that has its environment.
        stillborn: called with each branch that could not get one; the failure is counted.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        workers: Workers,
        grown: Grown,
        *,
        planted: Callable[[TreeGrowth], None],
        born: Callable[[Branch], None],
        stillborn: Callable[[Branch], None],
    ) -> None:
        self._of, self._workers, self._grown = scheduler, workers, grown
        self._planted, self._born, self._stillborn = planted, born, stillborn
        self.unborn: list[Branch] = []
        """Branches that wait for room."""

    def pose(self, question: Question, tokens: int | None, calls: int | None) -> QuestionGrowth:
        """Let a worker reset an environment for a question; return what will grow from it.

        Args:
            question: posed by a reset, or by what the start state puts in its place.
            tokens: its share of the sampled tokens of all questions.
            calls: the same in tool calls.
        """
        settings, start, pool = self._of.settings, self._of.start, self._of.pool
        budget = Budget(
            _least(settings.max_sampled_tokens_per_question, tokens),
            _least(settings.max_tool_calls_per_question, calls),
            step_tokens=self._of.params.max_tokens,
            step_calls=pool.core.max_tool_calls,
        )
        most = self._of.expansion.max_branches(settings.forks, settings.rounds)
        growth = QuestionGrowth(question, budget, most)
        seed, options = stable_seed("reset", question.seed), question.options
        begin: Callable[[gymnasium.Env[str, str]], list[Turn]] | None = None
        if start is not None:
            first, then = (
                np.random.default_rng(stable_seed("start", question.seed, moment))
                for moment in ("question", "begin")
            )
            seed, options = start.question(seed, options, first) or (seed, options)
            begin = partial(start.begin, question_seed=seed, rng=then)
        self._workers.submit(
            partial(pose, pool, seed, options, begin),
            partial(self._plant, growth, seed),
            lambda result: None,
            kind="reset",
            timeout_s=settings.rollout_options.episode_timeout_s,
        )
        return growth

    def _plant(self, growth: QuestionGrowth, seed: int, got: Opening | Fault | Late) -> None:
        """Plant one root per trunk at the state where the question begins."""
        if not isinstance(got, Opening):
            self._count(got)
            return
        engine, start = self._of.engine, self._of.start
        ids = render(partial(self._opening_ids, got))
        if isinstance(ids, Fault):
            self._count(ids)
            return
        context = engine.start(ids)
        for number, own in enumerate(engine.fork(context, self._of.settings.trunks)):
            tree = Tree(
                question_id=got.task_id,
                tree_id=number,
                difficulty=got.difficulty,
                question=got.question,
                question_seed=seed,
                start=start.name if start is not None and got.turns else "reset",
                start_turns=len(got.turns),
            )
            tree.add(None, observation_ids=ids, state_hash=got.snapshot.hash)
            root = Place((), 0, snapshot=got.snapshot, context=own)
            growth.trees.append(TreeGrowth(tree, growth, {0: root}))
        engine.release(context)
        for one in growth.trees:
            self.fork(one, 0, tick=1)
            self._planted(one)

    def fork(self, growth: TreeGrowth, node: int, tick: int) -> None:
        """Add a branch at a node, whose first step has this tick."""
        place = growth.places[node]
        assert place.context is not None, "a node is forked while its context is kept"
        [context] = self._of.engine.fork(place.context, 1)
        self.unborn.append(growth.branch(node, tick, context))

    def fetch(self, room: int) -> None:
        """Let workers fetch environments for up to `room` branches, the deepest first."""
        if room < len(self.unborn):
            self.unborn.sort(key=lambda branch: branch.depth)
        first = max(0, len(self.unborn) - room)
        chosen, self.unborn = self.unborn[first:], self.unborn[:first]
        for branch in chosen:
            self._workers.submit(
                partial(branch_off, self._of.pool, branch.origin, self._noise(branch)),
                partial(self._arrived, branch),
                self._too_late,
                kind="fork",
                timeout_s=branch.seconds_left(self._of.settings.rollout_options.episode_timeout_s),
            )

    def _arrived(self, branch: Branch, got: gymnasium.Env[str, str] | Fault | Late) -> None:
        if isinstance(got, Fault | Late):
            self._count(got)
            self._stillborn(branch)
            return
        branch.env = got
        if branch.name:
            self._grown.fork_depths.append(branch.depth)
        self._born(branch)

    def _too_late(self, got: object) -> None:
        """Close an environment that came when nobody waited for it any more."""
        if isinstance(got, gymnasium.Env):
            self._of.pool.discard(cast("gymnasium.Env[str, str]", got))

    def _noise(self, branch: Branch) -> int | None:
        """Return the seed of a branch's environment; None goes on with the node's stream.

        All trees of a question have the snapshot of one reset at their roots. Unless they are
        to share its stream, each tree has a stream of its own there.
        """
        seed, tree = branch.growth.question.question.seed, branch.growth.tree.tree_id
        match self._of.settings.noise:
            case "fresh":
                return stable_seed("noise", seed, tree, list(branch.name))
            case "inherit" if branch.node == 0:
                return stable_seed("noise", seed, tree)
            case _:
                return None

    def _opening_ids(self, opening: Opening) -> list[int]:
        """Return the prompt, and behind it the turns that were taken before the trees begin."""
        chat = self._of.chat
        ids = chat.opening_ids(opening.messages, self._of.tools)
        for turn in opening.turns:
            action = turn.ids if turn.ids is not None else chat.action_ids(turn.action)
            observed = turn.observation_ids
            if observed is None:
                observed = [*chat.close_ids(action), *chat.observation_ids(turn.messages)]
            ids = [*ids, *action, *observed]
        return ids

    def _count(self, got: Fault | Late) -> None:
        if isinstance(got, Late):
            self._grown.timeouts += 1
            got = Fault(got.message)
        self._grown.count_failure(got.failure, got.message)


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
