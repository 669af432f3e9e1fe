"""The environment of an evaluation: made by id, and told apart from its later versions."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from treegrpo import envs
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest, digest_bytes
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.recorder import decimal
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.schema import Budgets


@dataclass(frozen=True)
class EnvFacts:
    """What tells one version of an environment from another: sources and limits."""

    env_digest: str | None
    scorer_digest: str | None
    budgets: Budgets


def probe(
    env_id: str, env_kwargs: Mapping[str, Any], split: str, indices: Sequence[int]
) -> EnvFacts:
    """Return the environment's facts, after trying whether these tasks exist.

    Raises:
        TreegrpoError: what is wrong with the request as a whole. Crashes are no such thing:
            they belong to their episodes.
    """
    env = open_env(env_id, env_kwargs)
    core = core_of(env)
    facts = EnvFacts(source_digest(core), scorer_digest(core), budgets_of(core))
    try:
        for index in indices:
            env.reset(seed=0, options={"split": split, "index": index})
    except TreegrpoError:
        raise
    except Exception:  # noqa: BLE001 - the boundary is play.py: the episode will say it
        pass
    finally:
        env.close()
    return facts


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


def scorer_digest(env: ToolEnv) -> str | None:
    """Return a digest of the source that scores, None where it cannot be read.

    Covered: the module that defines the environment's `score`, and every module of the same
    folder that it imports, directly or through another one of them.
    """
    files: dict[str, bytes] = {}
    try:
        waiting = [inspect.getmodule(type(env).score)]
        while waiting:
            module = waiting.pop()
            if module is None or module.__name__ in files:
                continue
            path = Path(inspect.getfile(module)).resolve()
            files[module.__name__] = path.read_bytes()
            imported = _imports(module, files[module.__name__])
            waiting += [other for other in imported if _folder(other) == path.parent]
    except (TypeError, OSError, SyntaxError):
        return None
    return digest({name: digest_bytes(data) for name, data in files.items()}) if files else None


def budgets_of(env: ToolEnv) -> Budgets:
    """Return the limits that an environment's episodes start with."""
    return Budgets(
        max_turns=env.max_turns,
        max_tool_calls=env.max_tool_calls,
        max_seconds=None if env.max_seconds is None else decimal(float(env.max_seconds)),
        max_observation_chars=env.max_observation_chars,
        max_action_chars=env.max_action_chars,
    )


def _imports(module: ModuleType, source: bytes) -> Iterator[ModuleType]:
    """Yield the loaded modules that a module's source names in its imports."""
    package = module.__package__ or ""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(above if node.level else []), *filter(None, [node.module])]
            base = ".".join(parts)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        yield from (sys.modules[name] for name in names if name in sys.modules)


def _folder(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve().parent
