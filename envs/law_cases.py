"""Recorded episodes on which the laws are checked, and how two courses of one are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from treegrpo.envs.baselines import null_action, oracle_action, random_action
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import LawViolation, SnapshotUnsupported
from treegrpo.envs.snapshot import core_of

Factory = Callable[[], gymnasium.Env[str, str]]
Env = gymnasium.Env[str, str]
MAX_STEPS = 100
"""Where a recorded episode is broken off, if nothing else ends it."""


class Checks:
    """Counts the checks of one law, and raises LawViolation on the first that fails."""

    def __init__(self, law: str) -> None:
        """Begin at zero; `law` is the name that a violation's message begins with."""
        self.law = law
        self.count = 0
        self.note = ""

    def that(self, holds: bool, otherwise: str) -> None:
        """Count one check; `otherwise` says what was found if it does not hold."""
        self.count += 1
        if not holds:
            raise LawViolation(f"{self.law}: {otherwise}")

    def same(self, expected: object, got: object, where: str) -> None:
        """Count one check that two values are equal."""
        self.that(expected == got, f"{where}: expected {_short(expected)}, got {_short(got)}.")

    def same_course(self, expected: Sequence[Moment], got: Sequence[Moment], where: str) -> None:
        """Count one check per moment that two courses of an episode are equal."""
        for number, (one, other) in enumerate(zip(expected, got, strict=False), start=1):
            for field in dataclasses.fields(Moment):
                before, after = getattr(one, field.name), getattr(other, field.name)
                self.same(before, after, f"{where}, {field.name} {number} steps later")
        self.same(len(expected), len(got), f"{where}, number of steps to the end")


@dataclass(frozen=True)
class Moment:
    """What one step gave, and the state it left."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    state_hash: str


@dataclass(frozen=True)
class Case:
    """One recorded episode: how to make its environment, its seed, and its actions."""

    make: Factory
    seed: int
    actions: tuple[str, ...]

    @property
    def points(self) -> list[int]:
        """The steps at which snapshots are tried: the start, the middle, the last, the end."""
        count = len(self.actions)
        return sorted({0, count // 2, max(0, count - 1), count})

    def bare(self) -> ToolEnv:
        """Return a new environment without its wrappers, not reset."""
        return core_of(self.make())

    def at(self, point: int) -> ToolEnv:
        """Return a new bare environment after `point` of the recorded actions."""
        env = self.bare()
        env.reset(seed=self.seed)
        play(env, self.actions[:point])
        return env

    def rest(self, point: int) -> tuple[str, ...]:
        """Return the recorded actions behind `point`."""
        return self.actions[point:]

    def detour(self, env: ToolEnv, point: int) -> tuple[str, ...]:
        """Return other actions than the recorded ones, for an episode at `point`."""
        twin = env.fork()
        rng = np.random.default_rng([self.seed, point])
        texts: list[str] = []
        while not twin.episode.ended and len(texts) < 4:
            texts.append(random_action(twin, rng))
            twin.step(texts[-1])
        return tuple(texts)


def play(env: Env, actions: Sequence[str]) -> list[Moment]:
    """Return what the actions give, up to the end of the episode."""
    core = core_of(env)
    moments: list[Moment] = []
    for action in actions:
        if core.episode.ended:
            break
        observation, reward, terminated, truncated, info = env.step(action)
        moments.append(
            Moment(observation, float(reward), terminated, truncated, info, core.state_hash())
        )
        if terminated or truncated:
            break
    return moments


def record_cases(
    make: Factory, *, episodes: int, seed: int, actions: Sequence[str] | None
) -> list[Case]:
    """Return recorded episodes: the oracle's, mixed ones and random ones, in turn.

    With `actions` every episode takes these instead.
    """
    cases: list[Case] = []
    for number in range(episodes):
        env = core_of(make())
        env.reset(seed=seed + number)
        taken: list[str] = []
        rng = np.random.default_rng([seed, number])
        while not env.episode.ended and len(taken) < MAX_STEPS:
            if actions is not None:
                if len(taken) == len(actions):
                    break
                taken.append(actions[len(taken)])
            else:
                taken.append(_mixed_action(env, rng, number % 3))
            env.step(taken[-1])
        cases.append(Case(make, seed + number, tuple(taken)))
    return cases


def _mixed_action(env: ToolEnv, rng: np.random.Generator, mix: int) -> str:
    """Return an action: the oracle's in mix 0, any kind in mix 1, a random one in mix 2."""
    kind = (0, int(rng.integers(3)), 2)[mix]
    if kind == 0:
        try:
            return oracle_action(env)
        except NotImplementedError:
            return random_action(env, rng)
    return null_action(env) if kind == 1 else random_action(env, rng)


def surroundings(env: ToolEnv) -> dict[str, str]:
    """Return digests of all that another object's steps must not change.

    The episode and its task, the object's attributes, and those of its class; without the
    worlds named in `shared` and what has no canonical form.
    """
    found = {"the episode": env.state_hash(), "self.task": digest(env.task)}
    values = {f"self.{name}": value for name, value in vars(env).items()}
    for klass in type(env).__mro__[: type(env).__mro__.index(ToolEnv)]:
        values |= {f"{klass.__name__}.{name}": value for name, value in vars(klass).items()}
    for name, value in values.items():
        if name.rpartition(".")[2] in env.shared or name.startswith("self._"):
            continue
        try:
            found[name] = digest(value)
        except SnapshotUnsupported:
            continue
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
