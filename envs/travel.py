"""Environments through pickle: their options, and from reset on a snapshot of the episode.

What a class rebuilds by itself stays behind: cached worlds, the toolbox, the action space.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from treegrpo.envs.snapshot import Snapshot
from treegrpo.envs.spaces import UnicodeText
from treegrpo.envs.toolbox import Toolbox

if TYPE_CHECKING:
    from treegrpo.envs.core import ToolEnv

_REBUILT = frozenset({"_episode", "_made_with", "_toolbox", "action_space"})
_Env = TypeVar("_Env", bound="ToolEnv")


def packed(env: ToolEnv) -> tuple[Any, ...]:
    """Return what pickle needs of an environment: a function and its arguments.

    Raises:
        SnapshotUnsupported: an episode that cannot be captured.
    """
    own = vars(env)
    attributes = {name: own[name] for name in own if not _is_rebuilt(env, name)}
    shot = None if own["_episode"] is None else env.snapshot()
    return _unpacked, (type(env), attributes, own["_toolbox"].format.name, shot)


def bare_copy(env: _Env) -> _Env:
    """Return an object of the same class that borrows every attribute."""
    twin = object.__new__(type(env))
    vars(twin).update(vars(env))
    return twin


def _unpacked(
    kind: type[ToolEnv], attributes: dict[str, Any], format: str, shot: Snapshot | None
) -> ToolEnv:
    env = object.__new__(kind)
    vars(env).update(attributes, _episode=None, _made_with=None, _toolbox=Toolbox(kind, format))
    env.action_space = UnicodeText(env.max_action_chars, sampler=env.sample_action)
    if shot is not None:
        env.restore(shot)
    return env


def _is_rebuilt(env: ToolEnv, name: str) -> bool:
    cached = inspect.getattr_static(type(env), name, None)
    return name in _REBUILT or isinstance(cached, functools.cached_property)
