"""Environment objects for branches: made once by fork, reused by restore; any thread may ask."""

from __future__ import annotations

import contextlib
import threading

import gymnasium

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.snapshot import Snapshot, core_of, fork, restore


class EnvironmentPool:
    """Hands out environments that stand at a given snapshot.

    All are forks of one template, so they share its immutable world (corpora, indexes).

    Attributes:
        template: poses the questions; never handed out. Whoever uses it holds `lock`.
        lent: environments handed out and not back yet, those in which something hangs included.
    """

    def __init__(self, template: gymnasium.Env[str, str]) -> None:
        """Keep the template, which the pool closes in the end."""
        self.template = template
        self.lock = threading.Lock()
        self.lent = 0
        self._free: list[gymnasium.Env[str, str]] = []
        self._counting = threading.Lock()

    @property
    def core(self) -> ToolEnv:
        """The template's environment without wrappers."""
        return core_of(self.template)

    def take(self, snapshot: Snapshot, *, seed: int | None) -> gymnasium.Env[str, str]:
        """Return an environment at the snapshot; without a seed its randomness goes on there."""
        with self._counting:
            env = self._free.pop() if self._free else None
        if env is not None:
            restore(env, snapshot, seed=seed)
        else:
            with self.lock:
                # The template may stand at a question whose reset failed halfway.
                restore(self.template, snapshot)
                env = fork(self.template, seed=seed)
        with self._counting:
            self.lent += 1
        return env

    def give(self, env: gymnasium.Env[str, str]) -> None:
        """Take an environment back for reuse."""
        with self._counting:
            self.lent -= 1
            self._free.append(env)

    def discard(self, env: gymnasium.Env[str, str]) -> None:
        """Take back an environment that failed; it is closed, not used again."""
        with self._counting:
            self.lent -= 1
        with contextlib.suppress(Exception):  # it has failed already, and that was counted
            env.close()

    def close(self) -> None:
        """Close every environment that is here; may be called twice."""
        while self._free:
            self._free.pop().close()
        self.template.close()
