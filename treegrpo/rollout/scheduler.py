"""The loop that grows trees, without barriers.

A branch is one rollout in flight, and it is always in one place: waiting for an environment,
inside one, ready, or in the engine. Whatever is ready joins the next decode batch while other
environments still work; a tree is forked as soon as its expansion policy says so, and its forks
join whatever else is running.

Every random draw has a stream of its own, named by question, tree, branch and depth, and budgets
are decided in the order of the steps' keys, so the order of completion never changes a result.
With `barriers`, as published trees are grown, every batch waits for every environment, and every
round of forks for every tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.engine.base import Context, Engine, Sampled, SamplingParams
from treegrpo.envs.digest import stable_seed
from treegrpo.rollout.births import Births
from treegrpo.rollout.boundary import Answer, Fault, answer, failed, render
from treegrpo.rollout.budget import shares
from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.expansion.base import Expansion, forks_at_node, forks_at_rest
from treegrpo.rollout.expansion.random import Random
from treegrpo.rollout.grown import Grown, Status
from treegrpo.rollout.growth import Branch, Place, Question, QuestionGrowth, TreeGrowth
from treegrpo.rollout.settings import RolloutSettings
from treegrpo.rollout.starts.base import StartState
from treegrpo.rollout.timeline import NO_TIMELINE, Timeline
from treegrpo.rollout.workers import Late, Workers

_LINGER_S = 0.02
"""How long a batch that nobody can join later waits for an environment's next answer."""
_STATUS_EVERY_S = 0.2
_CLOSE_S = 10.0
"""How long an environment that failed may take to close, before it is left to itself."""


class Scheduler:
    """Grows the trees of many questions together.

    Args:
        engine, chat, pool, settings: borrowed; tool schemas are those of the pool's environment.
        expansion: where trees are forked; without it the published random forks.
        start: where trees begin; without it at the reset.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat,
        pool: EnvironmentPool,
        settings: RolloutSettings,
        *,
        expansion: Expansion | None = None,
        start: StartState | None = None,
    ) -> None:
        self.engine, self.chat, self.pool, self.settings = engine, chat, pool, settings
        self.expansion = expansion if expansion is not None else Random()
        self.start = start
        self.tools = pool.core.tool_schemas()
        self.params = SamplingParams(
            max_tokens=settings.max_action_tokens,
            temperature=settings.temperature,
            stop_ids=frozenset(chat.stop_ids),
        )
        self.max_length = min(settings.max_context_tokens, engine.max_length)

    def grow(
        self,
        questions: Sequence[Question],
        *,
        max_sampled_tokens: int | None = None,
        max_tool_calls: int | None = None,
        timeline: Timeline = NO_TIMELINE,
        watch: Callable[[Status], None] | None = None,
    ) -> Grown:
        """Return the trees of each question, with nodes in an order that the seed decides.

        Whatever happens, every context and environment is given back; an environment that
        hangs is closed when it lets go.

        Args:
            questions: grown together.
            max_sampled_tokens: hard budget of all of them, divided among them beforehand.
            max_tool_calls: the same in tool calls.
            timeline: records what happened when.
            watch: called some times a second with how it goes.
        """
        growing = _Growing(self, timeline, watch)
        try:
            growing.run(
                questions,
                shares(max_sampled_tokens, len(questions), self.params.max_tokens),
                shares(max_tool_calls, len(questions), 1),
            )
        finally:
            growing.close()
        return growing.grown


class _Growing:
    """One call of `grow`: who is where."""

    def __init__(
        self,
        scheduler: Scheduler,
        timeline: Timeline,
        watch: Callable[[Status], None] | None,
    ) -> None:
        self._of, self._timeline, self._watch = scheduler, timeline, watch
        self._engine, self._settings = scheduler.engine, scheduler.settings
        self._options = scheduler.settings.rollout_options
        self._at_rest = type(scheduler.expansion).at_rest is not Expansion.at_rest
        self._at_node = type(scheduler.expansion).at_node is not Expansion.at_node
        self.grown = Grown()
        self._workers = Workers(self._options.threads, timeline)
        self._births = Births(
            scheduler,
            self._workers,
            self.grown,
            planted=self._planted,
            born=lambda branch: self._ready.append(branch),
            stillborn=partial(self._end, is_refused=True),
        )
        self._questions: list[QuestionGrowth] = []
        self._ready: list[Branch] = []
        self._sampling: dict[Context, Branch] = {}
        self._sampled: list[tuple[Branch, Sampled]] = []
        """Actions whose environment has not been asked yet."""
        self._resting: list[TreeGrowth] = []
        self._num_live = self._num_ended = 0
        self._is_stuck = self._is_short = False
        self._started = self._told = time.perf_counter()

    # ------------------------------------------------------------------------------- the loop

    def run(
        self,
        questions: Sequence[Question],
        tokens: Sequence[int | None],
        calls: Sequence[int | None],
    ) -> None:
        """Grow everything to its end."""
        for each in zip(questions, tokens, calls, strict=True):
            self._questions.append(self._births.pose(*each))
        while True:
            self._collect()
            self._births.fetch(self._room())
            self._ask()
            self._submit()
            self._decode()
            self._rest()
            self._tell()
            in_flight = self._engine.submitted or self._workers.pending or self._births.unborn
            if not (in_flight or self._ready or self._sampled or self._resting):
                break
        self.grown.questions = [[one.tree for one in each.trees] for each in self._questions]

    def _collect(self) -> None:
        """Take the environments' answers; wait for one only where nothing else can be done."""
        workers, began = self._workers, time.perf_counter()
        if not workers.collect() and self._engine.submitted and not self._options.barriers:
            return
        if self._options.barriers:
            while workers.pending:
                workers.collect(1.0)
        elif not self._engine.submitted:
            if self._is_stuck or not (self._ready or self._sampled):
                workers.collect(1.0)
            if not self._engine.capabilities.joins_running:
                while workers.pending and workers.collect(_LINGER_S):
                    pass
        self.grown.timing.waiting += time.perf_counter() - began

    def _room(self) -> int:
        """Return how many more branches may have an environment; one at least where all wait."""
        with_environment = self._num_live - len(self._births.unborn)
        in_flight = self._engine.submitted or self._workers.pending
        can_move = (self._ready or self._sampled) and not self._is_stuck
        return max(self._options.max_live - with_environment, int(not (in_flight or can_move)))

    def _submit(self) -> None:
        """Hand the engine what is ready: widest first, deepest first while memory is short."""
        waiting: list[Branch] = []
        was_short, self._is_short = self._is_short, False
        self._ready.sort(
            key=lambda branch: (branch.depth * (-1 if was_short else 1), *branch.place)
        )
        most = self._of.params.max_tokens
        for branch in self._ready:
            verdict = self._may_sample(branch)
            if isinstance(verdict, str):
                self._refuse(branch, verdict)
            elif not verdict:
                waiting.append(branch)
            elif self._engine.admits(branch.context, most) or not self._engine.submitted:
                self._engine.submit(branch.context, self._of.params, branch.seed("sample"))
                self._sampling[branch.context] = branch
            else:
                self._is_short = True
                waiting.append(branch)
        self._ready = waiting
        self._is_stuck = bool(waiting or self._sampled) and not self._engine.submitted

    def _decode(self) -> None:
        """Let the engine move on; with barriers to the end of all that it was given."""
        timing = self.grown.timing
        while self._engine.submitted:
            began, rows = time.perf_counter(), self._engine.submitted
            timing.rows, timing.live = timing.rows + rows, timing.live + self._num_live
            with self._timeline.span("decode", track="engine", rows=rows):
                ended = self._engine.step()
            timing.generation += time.perf_counter() - began
            for context, output in ended:
                self._take(self._sampling.pop(context), output)
            if not self._options.barriers:
                break

    # ---------------------------------------------------------------------- a step of a branch

    def _may_sample(self, branch: Branch) -> bool | str | None:
        """Return True, why the branch can never go on, or None while that is open."""
        if branch.context.length + self._of.params.max_tokens > self._of.max_length:
            return "context_limit"
        question = branch.growth.question
        if not question.budget.is_limited:
            return True
        verdict = question.budget.admits(branch.key, question.steps_before(branch))
        return "budget" if verdict is False else verdict

    def _refuse(self, branch: Branch, reason: str) -> None:
        """End a branch where it stands, with a truncated leaf.

        A branch that has sampled nothing leaves none: its path would be another's, and the
        reward would be nobody's.
        """
        if branch.has_sampled:
            node = branch.growth.tree.add(branch.node, truncated=True, end_reason=reason)
            branch.growth.places[node.id] = Place(branch.name, branch.tick)
        else:
            self.grown.unstarted[reason] += 1
        self._end(branch, is_refused=True)

    def _take(self, branch: Branch, output: Sampled) -> None:
        """Take over what a branch sampled; its environment is asked next."""
        growth = branch.growth
        place = growth.places[branch.node]
        growth.question.budget.settle_tokens(branch.key, len(output.ids))
        self.grown.sampled_tokens += len(output.ids)
        if place.branch == branch.name and place.entropy is None:
            place.entropy = output.first_entropy
            if self._of.expansion.needs_entropy:
                self._expand(growth, branch.node, tick=branch.tick + 1)
        self._sampled.append((branch, output))

    def _ask(self) -> None:
        """Hand sampled actions to their environments, as far as the budget of calls is clear."""
        waiting: list[tuple[Branch, Sampled]] = []
        for branch, output in self._sampled:
            question, left = branch.growth.question, None
            if question.budget.max_tool_calls is not None:
                left = question.budget.calls_left(branch.key, question.steps_before(branch))
                if left is None:
                    waiting.append((branch, output))
                    continue
            self._ask_one(branch, output, left)
        self._sampled = waiting

    def _ask_one(self, branch: Branch, output: Sampled, calls_left: int | None) -> None:
        env, text = branch.env, self._of.chat.decode_action(output.ids)
        assert env is not None, "a branch has an environment before it samples"
        branch.env = None  # the worker's until it has answered
        keep = self._at_node or (self._at_rest and branch.growth.round < self._settings.rounds)
        asked = partial(answer, env, text, tool_calls_left=calls_left, keep=keep)
        self._workers.submit(
            partial(_timed, asked),
            partial(self._answered, branch, env, output, text),
            lambda result: self._of.pool.discard(env),
            kind="step",
            timeout_s=branch.seconds_left(self._options.episode_timeout_s),
        )

    def _answered(
        self,
        branch: Branch,
        env: gymnasium.Env[str, str],
        output: Sampled,
        text: str,
        result: tuple[Answer, float] | Late,
    ) -> None:
        """Add the step to the tree, and let the branch go on, fork or end."""
        growth = branch.growth
        got, ids = self._received(branch, env, output, result)
        self.grown.tool_calls += got.tool_calls
        growth.question.budget.settle_calls(branch.key, got.tool_calls)
        node = growth.tree.add(
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
            tool_calls=got.tool_calls,
            weight_version=self._engine.version,
        )
        place = Place(branch.name, branch.tick, branch.seconds, snapshot=got.snapshot)
        growth.places[node.id] = place
        branch.node, branch.has_sampled, branch.tick = node.id, True, branch.tick + 1
        if got.ended:
            self._end(branch)
            return
        self._engine.prefill(branch.context, ids)
        if place.snapshot is not None:
            [place.context] = self._engine.fork(branch.context, 1)
        self._ready.append(branch)
        if not self._of.expansion.needs_entropy:
            self._expand(growth, node.id, tick=branch.tick)

    def _received(
        self,
        branch: Branch,
        env: gymnasium.Env[str, str],
        output: Sampled,
        result: tuple[Answer, float] | Late,
    ) -> tuple[Answer, list[int]]:
        """Return the environment's answer, and the ids that it puts behind the action."""
        if isinstance(result, Late):
            self.grown.timeouts += 1
            branch.seconds += result.seconds
            return failed("environment", result.message), []
        branch.env, (got, seconds) = env, result
        branch.seconds += seconds
        if got.ended:
            return got, []
        chat = self._of.chat
        observed = render(lambda: chat.observation_ids(got.messages))
        if isinstance(observed, Fault):
            return failed("environment", observed.message, tool_calls=got.tool_calls), []
        return got, [*chat.close_ids(output.ids), *observed]

    # ------------------------------------------------------------------------- forks and the end

    def _planted(self, growth: TreeGrowth) -> None:
        self._num_live += 1
        if not self._of.expansion.needs_entropy:
            self._expand(growth, 0, tick=1)

    def _expand(self, growth: TreeGrowth, node: int, tick: int) -> None:
        """Fork a node at once, as often as the policy says; forget what no fork needs then."""
        policy = self._of.expansion
        if not self._at_node or growth.places[node].context is None:
            return
        reached = growth.reached(node, self._settings.forks, needs_entropy=policy.needs_entropy)
        self._fork(growth, [node] * forks_at_node(policy, reached), tick)
        if not self._at_rest:
            self._forget(growth.places[node])

    def _fork(self, growth: TreeGrowth, nodes: Sequence[int], tick: int) -> None:
        for node in nodes:
            self._births.fork(growth, node, tick)
            self._num_live += 1

    def _end(self, branch: Branch, *, is_refused: bool = False) -> None:
        """Give back what the branch held; its tree is at rest if it was the last."""
        growth, pool = branch.growth, self._of.pool
        last = growth.tree.nodes[branch.node]
        self._engine.release(branch.context)
        if branch.has_sampled and last.failure is not None:
            self.grown.count_failure(last.failure, last.observation_text)
        if branch.env is not None and last.failure is None:
            pool.give(branch.env)
        elif branch.env is not None:  # what it does on closing is nobody's loss but its own
            closing = partial(pool.discard, branch.env)
            self._workers.submit(closing, _nothing, _nothing, kind="close", timeout_s=_CLOSE_S)
        growth.end(branch, is_refused=is_refused)
        self._num_live, self._num_ended = self._num_live - 1, self._num_ended + 1
        if not growth.live:
            self._resting.append(growth)

    def _rest(self) -> None:
        """Let trees at rest be forked once more, or be done."""
        if self._options.barriers and self._num_live and not self._is_stuck:
            return
        resting, self._resting = self._resting, []
        for growth in resting:
            growth.put_in_order()
            while self._at_rest and not growth.live and growth.round < self._settings.rounds:
                growth.round += 1
                where = (growth.question.question.seed, growth.tree.tree_id, growth.round)
                rng = np.random.default_rng(stable_seed("forks", *where))
                args = (growth.tree, growth.round, self._settings.forks, rng)
                self._fork(growth, forks_at_rest(self._of.expansion, *args), growth.clock)
            growth.is_done = not growth.live
            if growth.is_done:
                for place in growth.places.values():
                    self._forget(place)

    def _forget(self, place: Place) -> None:
        """Give up what only another fork would need."""
        if place.context is not None:
            self._engine.release(place.context)
        place.context = place.snapshot = None

    def close(self) -> None:
        """Give up everything that is still held; nothing, unless an exception came through."""
        for growth in (one for question in self._questions for one in question.trees):
            for branch in growth.live.values():
                self._engine.release(branch.context)
                if branch.env is not None:
                    self._of.pool.discard(branch.env)
            for place in growth.places.values():
                self._forget(place)
        self._workers.close()
        self.grown.timing.environment = self._workers.busy_seconds
        self.grown.timing.whole = time.perf_counter() - self._started

    def _tell(self) -> None:
        """Tell the watcher how it goes."""
        now = time.perf_counter()
        if now - self._told < _STATUS_EVERY_S:
            return
        self._told, elapsed = now, now - self._started
        status = Status(
            tokens_per_s=self.grown.sampled_tokens / elapsed,
            live=self._num_live,
            decoding=self._engine.submitted,
            answering=self._workers.pending,
            ended=self._num_ended,
            waiting_share=self.grown.timing.waiting / elapsed,
        )
        self._timeline.counter("live branches", status.live)
        self._timeline.counter("decoding", status.decoding)
        if self._watch is not None:
            self._watch(status)


def _timed(run: Callable[[], Answer]) -> tuple[Answer, float]:
    """Return what it returns, and the seconds it took."""
    began = time.perf_counter()
    return run(), time.perf_counter() - began


def _nothing(result: object) -> None:
    """Take the result of a call that nobody waits for."""
