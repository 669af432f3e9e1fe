"""The environment of an evaluation: made by id, and told apart from its later versions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from treegrpo import envs
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest, digest_bytes
from treegrpo.envs.errors import TreegrpoError


def open_env(env_id: str, env_kwargs: Mapping[str, Any]) -> gymnasium.Env[str, str]:
    """Return a fresh environment, in all its wrappers.

    Raises:
        TreegrpoError: whatever `make` refuses, or something that is no `ToolEnv`.
    """
    env = envs.make(env_id, **env_kwargs)
    if not isinstance(env.unwrapped, ToolEnv):
        raise TreegrpoError(
            f"An evaluation on '{env_id}' asked for, but {type(env.unwrapped).__name__} is no "
            "ToolEnv. Derive it from treegrpo.envs.ToolEnv."
        )
    return env


def source_digest(env: ToolEnv) -> str | None:
    """Return a digest of the environment's source, None where it cannot be read.

    Covered: the Python files in the folder of every class it is made of, `ToolEnv` included;
    a class in a module outside any package is covered by its own file. Code elsewhere is not:
    the digest tells that something changed, and replay tells whether it mattered.
    """
    files: dict[str, bytes] = {}
    for klass in type(env).__mro__:
        if klass in gymnasium.Env.__mro__:
            continue
        try:
            path = Path(inspect.getfile(klass)).resolve()
            package = inspect.getmodule(klass)
            inside = package is not None and bool(package.__package__)
            for file in sorted(path.parent.glob("*.py")) if inside else [path]:
                files[f"{klass.__module__}/{file.name}"] = file.read_bytes()
        except (TypeError, OSError):
            return None
    return digest({name: digest_bytes(data) for name, data in files.items()})
