"""Environment objects for questions and branches: made once, reused; any thread may ask."""

from __future__ import annotations

import contextlib
import threading

import gymnasium

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import Snapshot, core_of, fork, restore

_FIRST_SEEDS = range(8)
"""Seeds tried until one reset works: a fork needs an episode to begin from."""


class EnvironmentPool:
    """Lends environments, to be reset or at a given snapshot.

    All are forks of one template, so they share its immutable world (corpora, indexes).

    Attributes:
        template: never handed out.
        lent: environments handed out and not back yet, those in which something hangs included.
    """

    def __init__(self, template: gymnasium.Env[str, str]) -> None:
        """Keep the template, which the pool closes in the end."""
        self.template = template
        self.lent = 0
        self._free: list[gymnasium.Env[str, str]] = []
        self._counting = threading.Lock()
        self._forking = threading.Lock()
        self._can_fork = False

    @property
    def core(self) -> ToolEnv:
        """The template's environment without wrappers."""
        return core_of(self.template)

    def spare(self) -> gymnasium.Env[str, str]:
        """Return an environment to be reset or restored; what episode it is in does not matter."""
        with self._counting:
            env = self._free.pop() if self._free else None
        env = env if env is not None else self._twin()
        with self._counting:
            self.lent += 1
        return env

    def take(self, snapshot: Snapshot, *, seed: int | None) -> gymnasium.Env[str, str]:
        """Return an environment at the snapshot; without a seed its randomness goes on there."""
        env = self.spare()
        try:
            restore(env, snapshot, seed=seed)
        except BaseException:
            self.discard(env)
            raise
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
        """Close every environment that is here, whatever one of them raises; may be called twice.

        Raises:
            Exception: what the first raised that could not be closed.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self.template.close)
            while self._free:
                stack.callback(self._free.pop().close)

    def _twin(self) -> gymnasium.Env[str, str]:
        """Return a fork of the template, which is reset first where it never was."""
        with self._forking:
            if not self._can_fork:
                self._begin_template()
            return fork(self.template)

    def _begin_template(self) -> None:
        failure: Exception | None = None
        for seed in _FIRST_SEEDS:
            try:
                self.template.reset(seed=seed)
                self._can_fork = True
                return
            except TreegrpoError:
                raise
            except Exception as error:  # noqa: BLE001 - a question that cannot be posed is data
                failure = failure or error
        assert failure is not None
        raise failure
