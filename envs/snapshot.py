"""Snapshots, and snapshot/restore/fork through Gymnasium's wrapper chain.

Gymnasium 1.x wrappers forward no attributes, and hold state of their own (TimeLimit counts
steps), so these functions walk the chain. An unknown wrapper is refused, never skipped.

A snapshot may be pickled to travel between one's own processes. Unpickling runs code:
strangers exchange action logs, never snapshots.
"""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import gymnasium
from gymnasium.wrappers import (
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    TimeLimit,
)

from treegrpo.envs.errors import SnapshotUnsupported

if TYPE_CHECKING:
    from treegrpo.envs.core import Episode, ToolEnv

FORMAT_VERSION = 1

# The attributes in which Gymnasium's own wrappers keep the state of an episode.
_WRAPPER_STATE: dict[type, tuple[str, ...]] = {
    TimeLimit: ("_elapsed_steps",),
    OrderEnforcing: ("_has_reset",),
    PassiveEnvChecker: (
        "checked_reset",
        "checked_step",
        "checked_render",
        "close_called",
        "checked_data_reuse",  # since Gymnasium 1.4, as the next
        "_previous_data",
    ),
    RecordEpisodeStatistics: (
        "episode_count",
        "episode_start_time",
        "episode_returns",
        "episode_lengths",
        "time_queue",
        "return_queue",
        "length_queue",
    ),
}

# Of these, readings of the process's clock: what a snapshot carries is the time since then.
_CLOCKS = ("episode_start_time",)


@dataclass(frozen=True)
class Snapshot:
    """An episode at one moment: immutable, restorable any number of times.

    `hash` is the state hash at that moment; `settings` is a digest of the environment's
    options and budgets. `wrappers` holds the state of the wrappers, outermost first, when the
    snapshot was taken through `snapshot(env)`.
    """

    env_id: str
    settings: str
    task_id: str
    turn: int
    terminated: bool
    truncated: bool
    episode_return: float
    hash: str
    episode: Episode
    rng_state: Any
    wrappers: tuple[tuple[str, dict[str, Any]], ...] = ()
    version: int = FORMAT_VERSION

    @property
    def nbytes(self) -> int:
        """The size of the portable form in bytes; 0 when there is none."""
        return len(self.to_bytes()) if self.portable else 0

    @property
    def portable(self) -> bool:
        """Whether the snapshot can travel to another process."""
        try:
            self.to_bytes()
        except SnapshotUnsupported:
            return False
        return True

    def to_bytes(self) -> bytes:
        """Return the portable form.

        Raises:
            SnapshotUnsupported: the state cannot be pickled.
        """
        try:
            return pickle.dumps(self, protocol=5)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise SnapshotUnsupported([f"pickling self.state: {error}"]) from error

    @staticmethod
    def from_bytes(data: bytes) -> Snapshot:
        """Return the snapshot of `to_bytes`. Never give it a stranger's bytes."""
        try:
            snapshot = pickle.loads(data)
        except Exception as error:
            raise SnapshotUnsupported([f"the bytes cannot be read: {error!r}"]) from error
        if not isinstance(snapshot, Snapshot) or snapshot.version != FORMAT_VERSION:
            raise SnapshotUnsupported([f"the bytes hold no snapshot of format {FORMAT_VERSION}"])
        return snapshot


def snapshot(env: gymnasium.Env[str, str]) -> Snapshot:
    """Return a snapshot of the whole stack: the environment and every wrapper around it."""
    chain = _wrappers(env)
    states = tuple((_name(w), _wrapper_state(w)) for w in chain)
    return replace(core_of(env).snapshot(), wrappers=states)


def restore(
    env: gymnasium.Env[str, str], snapshot: Snapshot, *, seed: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the observation and info at the snapshot; the whole stack goes on from there.

    Raises:
        SnapshotUnsupported: the stack's wrappers differ from the snapshot's.
    """
    chain = _wrappers(env)
    here, there = [_name(w) for w in chain], [name for name, _ in snapshot.wrappers]
    if here != there:
        raise SnapshotUnsupported([f"the snapshot's wrappers are {there}, this stack's are {here}"])
    result = core_of(env).restore(snapshot, seed=seed)
    for wrapper, (_, state) in zip(chain, snapshot.wrappers, strict=True):
        _set_wrapper_state(wrapper, state)
    return result


def fork(env: gymnasium.Env[str, str], *, seed: int | None = None) -> gymnasium.Env[str, str]:
    """Return a new stack at the same point; neither sees what the other does."""
    chain = _wrappers(env)
    states = [_wrapper_state(wrapper) for wrapper in chain]
    twin: gymnasium.Env[str, str] = core_of(env).fork(seed=seed)
    for wrapper, state in zip(reversed(chain), reversed(states), strict=True):
        outer = copy.copy(wrapper)
        outer.env = twin
        _set_wrapper_state(outer, state)
        twin = outer
    return twin


_Copy = TypeVar("_Copy")


def copied(copy_of: Callable[[], _Copy]) -> _Copy:
    """Return what `copy_of` gives, or refuse the state that it cannot copy."""
    try:
        return copy_of()
    except (TypeError, AttributeError, NotImplementedError, RecursionError) as error:
        raise SnapshotUnsupported([f"copying self.state: {error}"]) from error


def core_of(env: gymnasium.Env[str, str]) -> ToolEnv:
    """Return the bare ToolEnv inside a stack of wrappers."""
    from treegrpo.envs.core import ToolEnv

    core = env.unwrapped
    if not isinstance(core, ToolEnv):
        raise SnapshotUnsupported([f"{type(core).__qualname__} is no ToolEnv"])
    return core


def _wrappers(env: gymnasium.Env[str, str]) -> list[Any]:
    """Return the wrappers, outermost first."""
    found: list[Any] = []
    inner: Any = env
    while isinstance(inner, gymnasium.Wrapper):
        found.append(cast("Any", inner))
        inner = cast("Any", inner).env
    return found


def _name(wrapper: object) -> str:
    return f"{type(wrapper).__module__}.{type(wrapper).__qualname__}"


def _wrapper_state(wrapper: Any) -> dict[str, Any]:
    if hasattr(wrapper, "wrapper_state"):
        return copy.deepcopy(wrapper.wrapper_state())
    if getattr(wrapper, "stateless", False):
        return {}
    for known, names in _WRAPPER_STATE.items():
        if type(wrapper) is known:
            present = {name: getattr(wrapper, name) for name in names if hasattr(wrapper, name)}
            return {name: _of_age(name, copy.deepcopy(v)) for name, v in present.items()}
    raise SnapshotUnsupported(
        [
            f"wrapper {type(wrapper).__qualname__} may hold state of its own; give it "
            "wrapper_state() and set_wrapper_state(), or stateless = True"
        ]
    )


def _set_wrapper_state(wrapper: Any, state: dict[str, Any]) -> None:
    if hasattr(wrapper, "set_wrapper_state"):
        wrapper.set_wrapper_state(copy.deepcopy(state))
        return
    for name, value in state.items():
        setattr(wrapper, name, _of_age(name, copy.deepcopy(value)))


def _of_age(name: str, value: Any) -> Any:
    """Return a clock's reading as an age, or an age as a reading; other values as they are."""
    return time.perf_counter() - value if name in _CLOCKS else value
