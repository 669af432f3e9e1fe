"""Environment objects for branches: made once by fork, reused by restore."""

from __future__ import annotations

from typing import Any

import gymnasium

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.snapshot import Snapshot, fork, restore


class EnvironmentPool:
    """Hands out environments that stand at a given snapshot.

    All are forks of one template, so they share its immutable world (corpora, indexes).
    """

    def __init__(self, template: gymnasium.Env[str, str]) -> None:
        """Keep the template; it is reset by the owner and never handed out."""
        self.template = template
        self._free: list[gymnasium.Env[str, str]] = []

    @property
    def core(self) -> ToolEnv:
        """The template's environment without wrappers."""
        core = self.template.unwrapped
        assert isinstance(core, ToolEnv), "snapshot() refuses any other environment"
        return core

    def take(
        self, snapshot: Snapshot, *, seed: int | None
    ) -> tuple[gymnasium.Env[str, str], dict[str, Any]]:
        """Return an environment at the snapshot and the info there; seed None inherits."""
        env = self._free.pop() if self._free else fork(self.template)
        _, info = restore(env, snapshot, seed=seed)
        return env, info

    def give(self, env: gymnasium.Env[str, str]) -> None:
        """Take an environment back for reuse."""
        self._free.append(env)

    def close(self) -> None:
        """Close every environment; may be called twice."""
        while self._free:
            self._free.pop().close()
        self.template.close()
