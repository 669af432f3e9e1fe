"""Environment objects for branches: made once by fork, reused by restore."""

from __future__ import annotations

import contextlib

import gymnasium

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.snapshot import Snapshot, core_of, fork, restore


class EnvironmentPool:
    """Hands out environments that stand at a given snapshot.

    All are forks of one template, so they share its immutable world (corpora, indexes).

    Attributes:
        template: poses the questions; never handed out.
        lent: environments handed out and not back yet.
    """

    def __init__(self, template: gymnasium.Env[str, str]) -> None:
        """Keep the template, which the pool closes in the end."""
        self.template = template
        self.lent = 0
        self._free: list[gymnasium.Env[str, str]] = []

    @property
    def core(self) -> ToolEnv:
        """The template's environment without wrappers."""
        return core_of(self.template)

    def take(self, snapshot: Snapshot, *, seed: int | None) -> gymnasium.Env[str, str]:
        """Return an environment at the snapshot; without a seed its randomness goes on there."""
        if self._free:
            env = self._free.pop()
            restore(env, snapshot, seed=seed)
        else:
            # The template may stand at a question whose reset failed halfway.
            restore(self.template, snapshot)
            env = fork(self.template, seed=seed)
        self.lent += 1
        return env

    def give(self, env: gymnasium.Env[str, str]) -> None:
        """Take an environment back for reuse."""
        self.lent -= 1
        self._free.append(env)

    def discard(self, env: gymnasium.Env[str, str]) -> None:
        """Take back an environment that failed; it is closed, not used again."""
        self.lent -= 1
        with contextlib.suppress(Exception):  # it has failed already, and that was counted
            env.close()

    def close(self) -> None:
        """Close every environment that is here; may be called twice."""
        while self._free:
            self._free.pop().close()
        self.template.close()
