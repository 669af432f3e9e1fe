"""The contract: a multi-turn tool environment that can be forked after every step.

An author writes `make_task` (or `tasks`), `setup`, `@tool` methods and `score`. The base
class owns parsing, validation, budgets, rewards, the transcript, seeding and snapshots.

    class Guess(ToolEnv):
        def make_task(self, rng, difficulty):
            return Task("guess", "Guess a number below 10.", int(rng.integers(10)))

        def setup(self, task, rng):
            return {"guess": None}

        @tool
        def answer(self, number: int) -> str:
            "Give the answer."
            self.state["guess"] = number
            self.finish()
            return "Noted."

        def score(self, state, transcript, task):
            return float(state["guess"] == task.answer)

It is a Gymnasium environment: the action is the raw assistant text, the observation is the
text that is new since then, and `info["messages"]` is the same as role-tagged messages.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, SupportsFloat

import gymnasium
import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.episode import (
    CUT_MARK,
    Episode,
    Message,
    Role,
    clean_action,
    copy_info,
    copy_messages,
    fit_messages,
)
from treegrpo.envs.errors import (
    EpisodeOver,
    GraderFailed,
    NoEpisode,
    SandboxFailed,
    SnapshotUnsupported,
    TreegrpoError,
    UnknownOption,
    UnknownSplit,
    raised_at,
    suggest,
)
from treegrpo.envs.outside import changed, outside
from treegrpo.envs.snapshot import Snapshot, copied
from treegrpo.envs.spaces import UnicodeText
from treegrpo.envs.tasks import CHOICES, GeneratedTasks, Task, choose_index
from treegrpo.envs.toolbox import Toolbox
from treegrpo.envs.tools import refuse_names
from treegrpo.envs.travel import bare_copy, packed

__all__ = ["Episode", "Message", "Role", "Task", "ToolEnv"]

# Attributes that change by design: the episode's, Gymnasium's, and bookkeeping.
_OWN_ATTRIBUTES = frozenset(
    {"_episode", "_np_random", "_np_random_seed", "_made_with", "_settings"}
    | {"action_space", "spec", "render_mode"}
)


class ToolEnv(gymnasium.Env[str, str]):
    """A multi-turn tool environment with snapshots, restores and forks.

    Class attributes an author may set:
        splits, num_tasks, difficulties: which tasks exist.
        system_prompt: text before the question; tools are described by the chat template.
        max_turns, max_tool_calls, max_seconds: budgets; a fork refills none of them. An
            episode that a budget ends is truncated; only with max_turns = 1, where Gymnasium
            asks for it, is it terminated.
        max_observation_chars: a longer text is cut, with a mark.
        max_action_chars: of a longer action nothing is run, and the agent is told.
        success_threshold: an episode's return from which it counts as solved.
        shared: attributes that hold immutable worlds, built late and shared by every fork.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    num_tasks: ClassVar[Mapping[str, int]] = {"train": 1_000_000, "test": 1_000}
    difficulties: ClassVar[tuple[int, ...]] = (1,)
    system_prompt: ClassVar[str] = ""
    max_turns: int = 8
    max_tool_calls: int = 16
    max_seconds: float | None = None
    max_observation_chars: int = 4_000
    max_action_chars: int = 8_000
    success_threshold: ClassVar[float] = 1.0
    shared: ClassVar[tuple[str, ...]] = ()

    # ---------------------------------------------------------------- what an author writes

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        """Return a task; everything random about it comes from `rng`."""
        raise NotImplementedError(f"{type(self).__name__} needs make_task() or tasks().")

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split; by default made one by one by make_task()."""
        return GeneratedTasks(
            self.make_task,
            name=type(self).__name__,
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        """Return the fresh, mutable state of an episode: plain data, no handles."""
        return {}

    def prompt(self, task: Task) -> str:
        """Return the user's message that opens the episode."""
        return task.question

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return the reward, or named components whose sum is the reward.

        Called once, when the episode ends, on a copy of the state.
        """
        raise NotImplementedError(f"{type(self).__name__} needs score().")

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        raise NotImplementedError(f"{type(self).__name__} ships no oracle.")

    def finish(self, reason: str = "answered") -> None:
        """End the episode after this step; for use inside a tool."""
        self.episode.terminated, self.episode.end_reason = True, reason

    def cap_tool_calls(self, limit: int) -> None:
        """Lower this episode's budget of tool calls; it can never be raised again."""
        self.episode.max_tool_calls = min(self.episode.max_tool_calls, limit)

    # ------------------------------------------------------------------------ the contract

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a tool that would let an agent reach a part of the contract."""
        super().__init_subclass__(**kwargs)
        refuse_names(cls, {name for name in dir(ToolEnv) if not name.startswith("_")})

    def __init__(self, *, render_mode: str | None = None, format: str = "hermes") -> None:
        """Make the environment; `format` is how actions spell tool calls."""
        self.render_mode = render_mode
        self._toolbox = Toolbox(type(self), format)
        self._episode: Episode | None = None
        self._made_with: Mapping[str, object] | None = None
        self._settings: str | None = None
        self.observation_space = UnicodeText(self.max_observation_chars + len(CUT_MARK))
        self.action_space = UnicodeText(self.max_action_chars, sampler=self.sample_action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Return the opening observation and info of a new episode.

        Args:
            seed: decides everything random from here on; None continues the stream.
            options: `split` (default: the first), and at most one of `index`, `task_id`
                and `difficulty`; without these the seed picks the task.

        Raises:
            UnknownOption, UnknownSplit: with what there is.
        """
        super().reset(seed=seed)
        self._note_attributes()
        split, index, task = self._choose_task(options or {})
        self._episode = Episode(task, split, index, None, self.max_tool_calls)
        self._episode.state = self.setup(task, self.np_random)
        opening: list[Message] = []
        if self.system_prompt:
            opening.append({"role": "system", "content": self.system_prompt})
        opening.append({"role": "user", "content": self.prompt(task)})
        return self._observe(self._episode, opening, components={}, errors=[])

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Return (new text, reward, terminated, truncated, info) for one assistant turn.

        Raises:
            NoEpisode, EpisodeOver: out of turn.
            GraderFailed: score() raised, or gave no number or one that is not finite.
            SnapshotUnsupported: a state that cannot be copied for score().
            SandboxFailed: a sandbox that a tool or score() works in failed.
        """
        episode = self.episode
        if episode.ended:
            raise EpisodeOver(
                f"step() asked for, but the episode has ended ({episode.end_reason}). "
                "Call reset(), or restore() an earlier snapshot."
            )
        started = time.perf_counter()
        action = clean_action(action, self.max_action_chars)
        self._remember(episode, {"role": "assistant", "content": action[: self.max_action_chars]})
        episode.turns += 1
        replies, errors = self._run_calls(episode, action)
        episode.seconds += time.perf_counter() - started
        self._check_budgets(episode)
        components = self._grade(episode) if episode.ended else {}
        reward = float(sum(components.values()))
        episode.episode_return += reward
        text, info = self._observe(episode, replies, components=components, errors=errors)
        return text, reward, episode.terminated, episode.truncated, info

    def snapshot(self) -> Snapshot:
        """Return the episode as it stands, random state included; changes nothing.

        Raises:
            NoEpisode: before reset().
            SnapshotUnsupported: state that cannot be captured, with the reasons.
        """
        episode = self.episode
        strays = changed(self._made_with or {}, self._attributes())
        if strays:
            raise SnapshotUnsupported(
                f"self.{name} was set after the first reset; keep it in self.state, or name it "
                "in `shared` if it is a world that never changes"
                for name in strays
            )
        frozen = copied(episode.copy)
        return Snapshot(
            env_id=self._env_id(),
            settings=self._settings_digest(),
            task_id=episode.task.id,
            turn=episode.turns,
            terminated=episode.terminated,
            truncated=episode.truncated,
            episode_return=episode.episode_return,
            hash=self.state_hash(),
            episode=frozen,
            rng_state=self.np_random.bit_generator.state,
        )

    def restore(self, snapshot: Snapshot, *, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        """Return the observation and info at the snapshot, and go on from there.

        Args:
            snapshot: of the same environment id and options; stays usable any number of times.
            seed: gives the fork randomness of its own; None inherits the snapshot's.

        Raises:
            SnapshotUnsupported: a snapshot of another environment, or of other options.
        """
        if snapshot.env_id != self._env_id():
            raise SnapshotUnsupported(
                [f"the snapshot is of {snapshot.env_id}, this environment is {self._env_id()}"]
            )
        if snapshot.settings != self._settings_digest():
            raise SnapshotUnsupported(
                [f"the snapshot is of {snapshot.env_id} with other options or budgets"]
            )
        self._note_attributes()
        return self._continue_from(snapshot.episode.copy(), snapshot.rng_state, seed)

    def fork(self, *, seed: int | None = None) -> Self:
        """Return a new environment at the same point; neither sees what the other does."""
        snapshot = self.snapshot()
        twin = bare_copy(self)
        twin.action_space = UnicodeText(self.max_action_chars, sampler=twin.sample_action)
        # Nobody else has this snapshot, so the twin takes its episode without another copy.
        twin._continue_from(snapshot.episode, snapshot.rng_state, seed)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a fork; before reset(), a new object of the same options."""
        if self._episode is not None:
            return self.fork()
        twin = bare_copy(self)
        twin.action_space = UnicodeText(self.max_action_chars, sampler=twin.sample_action)
        twin._np_random = copy.deepcopy(self._np_random, memo)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs: the options and, from reset on, a snapshot."""
        return packed(self)

    def state_hash(self) -> str:
        """Return a digest of the whole episode (state, transcript, budgets, random state)."""
        facts = self.episode.facts()
        return digest([self._env_id(), facts, self.np_random.bit_generator.state])

    def render(self) -> str | None:  # type: ignore[override]
        """Return the conversation so far as text, in render mode "ansi"."""
        if self.render_mode != "ansi":
            return None
        return "\n".join(f"[{m['role']}] {m['content']}" for m in self.episode.messages)

    def close(self) -> None:
        """Drop the episode; may be called twice."""
        self._episode = None

    # ------------------------------------------------------------------ what a reader may see

    @property
    def episode(self) -> Episode:
        """The running episode: counters, flags, messages. Read, never write.

        Raises:
            NoEpisode: before reset().
        """
        if self._episode is None:
            raise NoEpisode(f"{self._env_id()} has no episode yet. Call reset() first.")
        return self._episode

    @property
    def state(self) -> Any:
        """The author's state of the running episode."""
        return self.episode.state

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return self.episode.task

    @property
    def messages(self) -> list[Message]:
        """A copy of the conversation so far."""
        return copy_messages(self.episode.messages)

    def tool_schemas(self) -> list[dict[str, Any]]:
        """Return the OpenAI-style schemas of the tools."""
        return self._toolbox.schemas()

    def encode_call(self, name: str, **arguments: Any) -> str:
        """Return the action text of one tool call, for scripted agents."""
        return self._toolbox.encode(name, arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: mostly a call with random words, at times junk."""
        return self._toolbox.random_action(rng)

    # ----------------------------------------------------------------------------- the inside

    def _run_calls(self, episode: Episode, action: str) -> tuple[list[Message], list[str]]:
        """Run the calls of one action in order; stop when a tool ends the episode."""
        parsed = self._toolbox.parse(action, self.max_action_chars)
        errors = ["parse"] * len(parsed.errors)
        replies: list[Message] = [
            {"role": "tool", "name": "error", "content": fault} for fault in parsed.errors
        ]
        for call in parsed.calls:
            cost = self._toolbox.cost(call)
            if episode.tool_calls + cost > episode.max_tool_calls:
                self._truncate(episode, "tool_call_limit")
                break
            episode.tool_calls += cost
            text, error = self._toolbox.run(self, call)
            replies.append({"role": "tool", "name": call.name, "content": text})
            errors += [error] if error else []
            if episode.ended:
                break
        return replies, errors

    def _check_budgets(self, episode: Episode) -> None:
        if episode.ended:
            return
        if self.max_seconds is not None and episode.seconds > self.max_seconds:
            self._truncate(episode, "time_limit")
        elif episode.turns >= self.max_turns:
            self._truncate(episode, "turn_limit")

    def _truncate(self, episode: Episode, reason: str) -> None:
        episode.end_reason = reason
        # Gymnasium's checker wants an episode of one step to terminate, not truncate.
        episode.terminated = episode.turns == 1 and self.max_turns == 1
        episode.truncated = not episode.terminated

    def _grade(self, episode: Episode) -> dict[str, float]:
        """Return the reward components, scored on copies so that scoring changes nothing."""
        state = copied(lambda: copy.deepcopy(episode.state))
        transcript = tuple(copy_messages(episode.messages))
        try:
            result = self.score(state, transcript, episode.task)
        except SandboxFailed:
            raise
        except Exception as error:
            where = raised_at(error)
            raise GraderFailed(
                f"score() of {self._env_id()} raised {error!r} at {where}"
            ) from error
        named = result if isinstance(result, Mapping) else {"score": result}
        if not all(map(_is_number, named.values())):
            raise GraderFailed(f"score() of {self._env_id()} gave {str(named)[:200]}: no number")
        components = {name: float(value) for name, value in named.items()}
        if not math.isfinite(sum(components.values())):
            raise GraderFailed(f"score() of {self._env_id()} gave {components}: not finite")
        return components

    def _observe(
        self,
        episode: Episode,
        messages: list[Message],
        *,
        components: dict[str, float],
        errors: list[str],
    ) -> tuple[str, dict[str, Any]]:
        """Append the environment's messages, cut to size, and describe the step."""
        messages = fit_messages(messages, self.max_observation_chars)
        for message in messages:
            self._remember(episode, message)
        episode.observation = "\n".join(message["content"] for message in messages)
        episode.info = {
            "messages": messages,
            "task_id": episode.task.id,
            "split": episode.split,
            "index": episode.index,
            "difficulty": episode.task.difficulty,
            "turn": episode.turns,
            "tool_calls": episode.tool_calls,
            "reward_components": components,
            "errors": errors,
            "end_reason": episode.end_reason,
            "success": episode.ended and episode.episode_return >= self.success_threshold,
        }
        return episode.observation, copy_info(episode.info)

    def _remember(self, episode: Episode, message: Message) -> None:
        episode.messages.append(message)
        episode.transcript_hash = digest([episode.transcript_hash, message])

    def _choose_task(self, options: Mapping[str, Any]) -> tuple[str, int, Task]:
        known = ("split", *CHOICES)
        for key in options:
            if key not in known:
                raise UnknownOption(
                    f"Reset option '{key}' asked for; known options: {', '.join(known)}."
                    f"{suggest(key, known)}"
                )
        split = options.get("split", self.splits[0])
        if split not in self.splits:
            raise UnknownSplit(
                f"Split '{split}' of {self._env_id()} asked for; it has: "
                f"{', '.join(self.splits)}.{suggest(str(split), self.splits)}"
            )
        tasks = self.tasks(split)
        index = choose_index(tasks, options, self.np_random)
        return split, index, self._require_task(tasks[index], index)

    def _require_task(self, task: object, index: int) -> Task:
        if not isinstance(task, Task):
            raise TreegrpoError(
                f"Task {index} of {self._env_id()} asked for; make_task() or tasks() gave "
                f"{task!r:.100}, no Task. Return Task(id, question, answer)."
            )
        return task

    def _continue_from(
        self, episode: Episode, rng_state: Any, seed: int | None
    ) -> tuple[str, dict[str, Any]]:
        """Take over an episode that nobody else holds."""
        self._episode = episode
        # A new generator, never the old one's state: others may hold a reference to it.
        generator = np.random.Generator(np.random.PCG64(seed or 0))
        if seed is None:
            generator.bit_generator.state = rng_state
        self.np_random = generator
        return episode.observation, copy_info(episode.info)

    def _env_id(self) -> str:
        return self.spec.id if self.spec is not None else type(self).__qualname__

    def _settings_digest(self) -> str:
        """Return a digest of what snapshots must agree on: options, format, budgets."""
        if self._settings is None:
            kwargs = self.spec.kwargs if self.spec is not None else {}
            options = {k: repr(v) for k, v in kwargs.items() if k not in ("render_mode", "format")}
            budgets = (self.max_turns, self.max_tool_calls, self.max_seconds)
            texts = (self.max_observation_chars, self.max_action_chars)
            self._settings = digest([options, self._toolbox.format.name, budgets, texts])
        return self._settings

    def _attributes(self) -> dict[str, object]:
        return outside(self, {*_OWN_ATTRIBUTES, *self.shared})

    def _note_attributes(self) -> None:
        if self._made_with is None:
            self._made_with = self._attributes()


def _is_number(value: object) -> bool:
    """Return whether it is a number: float() would take a text, too."""
    return isinstance(value, SupportsFloat) and not isinstance(value, (str, bytes))
