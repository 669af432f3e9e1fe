"""A tiny environment, and an engine and chat format without a model, to test rollouts with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.config import RolloutOptions
from treegrpo.engine.base import (
    Capabilities,
    Context,
    Engine,
    EngineStats,
    Sampled,
    SamplingParams,
)
from treegrpo.envs import Message, Task, ToolEnv
from treegrpo.envs.episode import Episode
from treegrpo.envs.registry import register
from treegrpo.rollout import EnvironmentPool, RolloutSettings, Scheduler
from treegrpo.rollout.expansion import Expansion
from treegrpo.rollout.starts import StartState

WORDS = ("stop", "red", "green", "blue", "crash", "void", "stuck", "call")


class Game(ToolEnv):
    """Say the wanted colour; every turn rolls a die.

    "stop" ends the episode, "crash" makes the environment fail, "void" its grader, "stuck" its
    next snapshot, "call" spends a tool call. The reward is the share of turns that said it.
    """

    difficulties: ClassVar[tuple[int, ...]] = (1, 2)
    num_tasks: ClassVar[Mapping[str, int]] = {"train": 100, "test": 10}

    def __init__(
        self, *, render_mode: str | None = None, turns: int = 3, broken_resets: int = 0
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.max_turns = turns
        self.broken_resets = broken_resets  # of 100: the share of tasks whose reset fails

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        number = int(rng.integers(100))
        return Task(f"game-{number}", "Which colour?", "green", difficulty, {"number": number})

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        if task.data["number"] < self.broken_resets:
            raise ValueError("no such colour: the environment's own ValueError")
        return {"words": []}

    def _run_calls(self, episode: Episode, action: str) -> tuple[list[Message], list[str]]:
        word = action.split()[0] if action.split() else ""
        if word == "crash":
            raise RuntimeError("the table fell over")
        if word == "call":
            if episode.tool_calls + 1 > episode.max_tool_calls:
                self._truncate(episode, "tool_call_limit")
                return [], []
            episode.tool_calls += 1
        if word == "stop":
            self.finish()
        episode.state["words"].append(Uncopyable() if word == "stuck" else word)
        return [{"role": "tool", "content": f"die {self.np_random.integers(6)}"}], []

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> float:
        if "void" in state["words"]:
            raise RuntimeError("the grader has no scale")
        return sum(word == task.answer for word in state["words"]) / max(1, len(state["words"]))


class Uncopyable:
    """State that fails in a copy, with an error that names no rule of the contract."""

    def state_facts(self) -> int:
        return 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise OSError("the wire is hot")


class SlowGame(Game):
    """The game with answers that take a while, decided by nothing that the seed decides."""

    whim: ClassVar[np.random.Generator] = np.random.default_rng()
    mean_s: ClassVar[float] = 0.001
    before: ClassVar[Callable[[Game], None]] = lambda game: None
    """Called before each step."""

    def step(self, action: str) -> Any:
        type(self).before(self)
        if self.mean_s:
            time.sleep(float(self.whim.exponential(self.mean_s)))
        return super().step(action)


SLOW_ID = "tests/SlowGame-v0"
register(SLOW_ID, "tests.toy_game:SlowGame")
ID = "tests/Game-v0"
register(ID, "tests.toy_game:Game")


class CharChat:
    """A chat format in which every character is a token; 0 ends a turn, 1 the whole text."""

    stop_ids = frozenset({0, 1})

    def opening_ids(self, messages: Sequence[Message], tools: object) -> list[int]:
        return [ord(c) for m in messages for c in m["content"] + "\n"]

    def observation_ids(self, messages: Sequence[Message]) -> list[int]:
        return [ord(c) for m in messages for c in m["content"] + "\n"] or [10]

    def decode_action(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i > 1)

    def close_ids(self, ids: Sequence[int]) -> list[int]:
        return [] if ids and ids[-1] == 0 else [0]


class FakeContext(Context):
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.released = False

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def version(self) -> int | None:
        return None


Script = Callable[[str, int], str]
"""(text so far, seed) -> the action."""


class ScriptedEngine(Engine):
    """Says what a script says, and keeps count of its contexts."""

    def __init__(self, script: Script, max_length: int = 100_000) -> None:
        self.stats = EngineStats()
        self.capabilities = Capabilities(keeps_kv=True, forks_kv=True, same_weights=True)
        self.max_length, self.version = max_length, 0
        self.live_contexts = 0
        self.batches: list[int] = []
        self._script = script
        self._queue: list[tuple[FakeContext, SamplingParams, int]] = []

    def start(self, ids: Sequence[int]) -> Context:
        self.live_contexts += 1
        return FakeContext(list(ids))

    def prefill(self, context: Context, ids: Sequence[int]) -> None:
        _live(context).ids.extend(ids)

    def fork(self, context: Context, k: int) -> list[Context]:
        self.live_contexts += k
        return [FakeContext(list(_live(context).ids)) for _ in range(k)]

    def release(self, context: Context) -> None:
        _live(context).released = True
        self._queue = [entry for entry in self._queue if entry[0] is not context]
        self.live_contexts -= 1

    def set_weights(self, version: int) -> None:
        self.version = version

    def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
        assert all(context is not other for other, _, _ in self._queue)
        self._queue.append((_live(context), params, seed))

    @property
    def submitted(self) -> int:
        return len(self._queue)

    def step(self) -> list[tuple[Context, Sampled]]:
        queue, self._queue = self._queue, []
        if queue:
            self.batches.append(len(queue))
        return [(context, self._one(context, params, seed)) for context, params, seed in queue]

    def _one(self, context: FakeContext, params: SamplingParams, seed: int) -> Sampled:
        text = "".join(chr(i) for i in context.ids)
        said = [ord(c) for c in self._script(text, seed)]
        said = [*said, *([] if said[-1:] == [1] else [0])][: params.max_tokens]
        context.ids.extend(said)
        return Sampled(said, [-0.5] * len(said), stopped=said[-1] in params.stop_ids)


class RestlessEngine(ScriptedEngine):
    """Lets whoever it likes end first: a part of what is submitted, in an order of its own."""

    def __init__(self, script: Script, whim: int, max_rows: int = 10**9) -> None:
        super().__init__(script)
        self.capabilities = replace(self.capabilities, joins_running=True)
        self._whim = np.random.default_rng(whim)
        self._max_rows = max_rows

    def admits(self, context: Context, max_tokens: int) -> bool:
        return self.submitted < self._max_rows

    def step(self) -> list[tuple[Context, Sampled]]:
        self._whim.shuffle(cast(Any, self._queue))
        count = int(self._whim.integers(len(self._queue) + 1))
        chosen, self._queue = self._queue[:count], self._queue[count:]
        return [(context, self._one(context, params, seed)) for context, params, seed in chosen]


def _live(context: Context) -> FakeContext:
    assert isinstance(context, FakeContext) and not context.released
    return context


def random_words(words: Iterable[str] = WORDS) -> Script:
    """Return a script whose words depend on the seed alone."""
    choices = list(words)
    return lambda text, seed: choices[int(np.random.default_rng(seed).integers(len(choices)))]


def settings(**changes: Any) -> RolloutSettings:
    """Return small rollout settings; those of `RolloutOptions` may stand among the others."""
    fields: dict[str, Any] = {
        "trunks": 2, "forks": 2, "rounds": 1, "noise": "inherit", "temperature": 1.0,
        "max_action_tokens": 8, "max_context_tokens": 10_000,
    }  # fmt: skip
    names = set(RolloutOptions.model_fields) & set(changes)
    options = RolloutOptions(**{name: changes.pop(name) for name in names})
    return RolloutSettings(**{**fields, **changes}, rollout_options=options)


def scheduler(
    engine: Engine,
    env: gymnasium.Env[str, str],
    *,
    expansion: Expansion | None = None,
    start: StartState | None = None,
    **changes: Any,
) -> tuple[Scheduler, EnvironmentPool]:
    """Return a scheduler without a real chat format, and its pool."""
    pool, chat = EnvironmentPool(env), cast(ChatFormat, CharChat())
    made = Scheduler(engine, chat, pool, settings(**changes), expansion=expansion, start=start)
    return made, pool


def save_tiny_model(folder: Path, *, width: int = 32, layers: int = 1, seed: int = 0) -> str:
    """Write a tiny model that knows the game's words; return its folder."""
    from treegrpo.tiny import build_model, build_tokenizer, save_model

    texts = [*WORDS, "Which colour?", *(f"die {n}" for n in range(6))]
    tokenizer = build_tokenizer(texts)
    save_model(
        build_model(len(tokenizer), layers=layers, width=width, seed=seed), tokenizer, folder
    )
    return str(folder)
