"""Keepers: three ways to hold the state of a Gymnasium environment as a value.

    CopyKeeper      the environment's own attributes, deep copies
    CloneKeeper     what clone_state(include_rng=True) gives, as of the Arcade environments
    ReplayKeeper    the seed and the actions, replayed and compared

A keeper never changes a saved value, so snapshots and forks share it. The first two need one
live environment, into which a value is loaded before each step.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import gymnasium
import gymnasium.error
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from treegrpo.envs.adapters.replay import History, Machines, StateLost
from treegrpo.envs.adapters.spelling import spell_observation
from treegrpo.envs.errors import SnapshotUnsupported, TreegrpoError

_SHARED = frozenset(
    {"observation_space", "action_space", "spec", "metadata", "render_mode", "env"}
    | {"_np_random", "_np_random_seed", "_cached_spec", "reward_range"}
)
_TOY_TEXT = "gymnasium.envs.toy_text."
# What toy-text environments work out once and never change.
_TOY_SHARED = frozenset(
    {"P", "desc", "locs", "locs_colors", "initial_state_distrib", "_cliff", "shape", "nrow", "ncol"}
)


@dataclass(frozen=True)
class Recipe:
    """How a game is made: its Gymnasium id and its options as JSON.

    An id may name the module that registers it, as "ale_py:ALE/Pong-v5".
    """

    game: str
    options: str = "{}"

    def spec(self) -> EnvSpec:
        """Return Gymnasium's entry for the game, whose module is imported first."""
        module, _, game = self.game.rpartition(":")
        if module:
            importlib.import_module(module)
        return gymnasium.spec(game)

    def make(self) -> gymnasium.Env[Any, Any]:
        """Return a new one without Gymnasium's own wrappers; it draws as text if it can.

        Raises:
            TreegrpoError: no such id, or options that it does not take.
        """
        options = json.loads(self.options)
        try:
            spec = self.spec()
            env = gymnasium.make(spec, disable_env_checker=True, **options)
            draws = "ansi" in (env.unwrapped.metadata.get("render_modes") or ())
            if draws and "render_mode" not in {*options, *spec.kwargs}:
                env.close()
                options["render_mode"] = "ansi"
                env = gymnasium.make(spec, disable_env_checker=True, **options)
        except (gymnasium.error.Error, TypeError, ImportError) as error:
            fault = str(error).rstrip(".")
            raise TreegrpoError(
                f"Gymnasium environment '{self.game}' with the options {self.options} asked "
                f"for, but it cannot be made: {fault}. Check the id and the options, and "
                "install what it needs."
            ) from error
        while isinstance(env, (TimeLimit, OrderEnforcing, PassiveEnvChecker)):
            env = env.env
        return env


@dataclass(frozen=True)
class Turn:
    """What the game shows after a reset or an action."""

    text: str
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Saved:
    """A state of a game as a value that nobody changes; `facts` is what tells it from others."""

    value: Any
    facts: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Saved:
        """Return itself: it is immutable by convention."""
        return self

    def state_facts(self) -> Any:
        """Return what the state hash covers."""
        return self.facts


class Keeper(Protocol):
    """Plays a game from one saved state to the next."""

    def start(self, seed: int) -> tuple[Saved, Turn]:
        """Return the state after a reset with this seed."""
        ...

    def act(self, saved: Saved, action: Any, rng: np.random.Generator) -> tuple[Saved, Turn]:
        """Return the state after one action; `rng` decides what is random where it can."""
        ...

    def prove(self, saved: Saved) -> None:
        """Check that the state can be reached again; raises SnapshotUnsupported if not."""
        ...


class _LiveKeeper:
    """What the keepers with one live environment have in common."""

    kind: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        """Make the live environment."""
        self.recipe, self.env = recipe, recipe.make()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs: another process has a live environment of its own."""
        return keeper_of, (self.recipe, self.kind)

    def start(self, seed: int) -> tuple[Saved, Turn]:
        """Return the state after a reset with this seed."""
        with self._lock:
            observation, _ = self.env.reset(seed=seed)
            turn = Turn(_shown(self.env, observation))
            return self._save([seed], turn), turn

    def act(self, saved: Saved, action: Any, rng: np.random.Generator) -> tuple[Saved, Turn]:
        """Return the state after one action."""
        with self._lock:
            self._load(saved, rng)
            turn = _step(self.env, action)
            log = [*saved.facts["log"], action, turn.text]
            return self._save(log, turn), turn

    def prove(self, saved: Saved) -> None:
        """Find nothing to check: the saved state is the state."""

    def _save(self, log: list[Any], turn: Turn) -> Saved:
        raise NotImplementedError

    def _load(self, saved: Saved, rng: np.random.Generator) -> None:
        raise NotImplementedError


class CopyKeeper(_LiveKeeper):
    """Keeps the attributes of the environment and its wrappers as deep copies.

    What is random after the reset is drawn from the `rng` given, so a fork can be reseeded.
    """

    kind: ClassVar[str] = "copy"

    def __init__(self, recipe: Recipe) -> None:
        """Make the live environment, and see what of it never changes."""
        super().__init__(recipe)
        self._shared: frozenset[str] = _SHARED
        if is_toy_text(self.env):
            self._shared |= _TOY_SHARED

    def _save(self, log: list[Any], turn: Turn) -> Saved:
        layers = list(_layers(self.env))
        mine = [{k: v for k, v in vars(x).items() if k not in self._shared} for x in layers]
        try:
            # References to the layers themselves stay references.
            value = copy.deepcopy(mine, {id(layer): layer for layer in layers})
        except Exception as error:
            raise StateLost(
                f"A copy of {type(self.env.unwrapped).__name__} asked for, but it cannot be "
                f"made: {error}. Use snapshots='replay'."
            ) from error
        return Saved(value, {"log": log[-2:], "attributes": value})

    def _load(self, saved: Saved, rng: np.random.Generator) -> None:
        layers = list(_layers(self.env))
        value = copy.deepcopy(saved.value, {id(layer): layer for layer in layers})
        for layer, attributes in zip(layers, value, strict=True):
            for name in vars(layer).keys() - attributes.keys() - self._shared:
                delattr(layer, name)
            vars(layer).update(attributes)
        self.env.unwrapped.np_random = rng


class CloneKeeper(_LiveKeeper):
    """Keeps what the environment's clone_state() gives; its noise goes with it.

    Raises:
        SnapshotUnsupported: an Arcade game with sticky actions.
    """

    kind: ClassVar[str] = "clone"

    def __init__(self, recipe: Recipe) -> None:
        """Make the live environment, if its clones are whole."""
        super().__init__(recipe)
        if _is_sticky(self.env):
            raise SnapshotUnsupported(
                [
                    f"a clone of '{recipe.game}' leaves out the last action, which sticky "
                    "actions repeat; use snapshots='replay' or repeat_action_probability=0"
                ]
            )

    def _save(self, log: list[Any], turn: Turn) -> Saved:
        core: Any = self.env.unwrapped
        return Saved(core.clone_state(include_rng=True), {"log": log})

    def _load(self, saved: Saved, rng: np.random.Generator) -> None:
        core: Any = self.env.unwrapped
        core.restore_state(saved.value)


class ReplayKeeper:
    """Keeps the seed and the actions; its noise is the seed's."""

    def __init__(self, recipe: Recipe) -> None:
        """Start no game yet."""
        self.recipe = recipe
        self.machines = Machines(lambda: _GameMachine(recipe))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs: another process has games of its own."""
        return keeper_of, (self.recipe, "replay")

    def start(self, seed: int) -> tuple[Saved, Turn]:
        """Return the state after a reset with this seed."""
        return self._do((), ["reset", seed])

    def act(self, saved: Saved, action: Any, rng: np.random.Generator) -> tuple[Saved, Turn]:
        """Return the state after one action; `rng` is not used."""
        return self._do(saved.value, ["act", action])

    def prove(self, saved: Saved) -> None:
        """Replay what was not replayed yet, and compare."""
        self.machines.prove(saved.value)

    def _do(self, history: History, call: list[Any]) -> tuple[Saved, Turn]:
        output, after = self.machines.do(history, json.dumps(call))
        return Saved(after, after), Turn(**json.loads(output))


class _GameMachine:
    """A live game that is told what to do as text."""

    def __init__(self, recipe: Recipe) -> None:
        self._env = recipe.make()

    def do(self, call: str) -> str:
        kind, value = json.loads(call)
        if kind == "reset":
            observation, _ = self._env.reset(seed=value)
            turn = Turn(_shown(self._env, observation))
        else:
            turn = _step(self._env, value)
        return json.dumps(vars(turn))

    def close(self) -> None:
        self._env.close()


def is_toy_text(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether it is one of Gymnasium's toy-text environments, without other wrappers."""
    return env is env.unwrapped and type(env).__module__.startswith(_TOY_TEXT)


def choose_keeper(env: gymnasium.Env[Any, Any]) -> str:
    """Return the kind of keeper that suits an environment."""
    if is_toy_text(env):
        return "copy"
    clones = all(hasattr(env.unwrapped, name) for name in ("clone_state", "restore_state"))
    whole = clones and env is env.unwrapped and not _is_sticky(env)
    return "clone" if whole else "replay"


def _is_sticky(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether it is an Arcade game that repeats the last action at times."""
    emulator: Any = getattr(env.unwrapped, "ale", None)
    return emulator is not None and emulator.getFloat("repeat_action_probability") > 0


KEEPERS = {"copy": CopyKeeper, "clone": CloneKeeper, "replay": ReplayKeeper}


@functools.lru_cache(maxsize=32)
def keeper_of(recipe: Recipe, kind: str) -> Keeper:
    """Return the keeper that all environments of one recipe share."""
    return KEEPERS[kind](recipe)


def _layers(env: gymnasium.Env[Any, Any]) -> Iterator[object]:
    """Yield the environment's wrappers and its core, outermost first."""
    while isinstance(env, gymnasium.Wrapper):
        yield cast("object", env)
        env = env.env
    yield env


def _step(env: gymnasium.Env[Any, Any], action: Any) -> Turn:
    observation, reward, terminated, truncated, _ = env.step(action)
    return Turn(_shown(env, observation), float(reward), bool(terminated), bool(truncated))


def _shown(env: gymnasium.Env[Any, Any], observation: Any) -> str:
    drawing = env.render() if env.render_mode == "ansi" else None
    return spell_observation(observation, drawing if isinstance(drawing, str) else None)
