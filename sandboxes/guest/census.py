"""Who is there: the tree's processes, and which of them nobody expects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from treegrpo.sandboxes.guest import inspection
from treegrpo.sandboxes.guest.states import Kin, State


class Census:
    """Counts a tree's processes; cheap as long as nothing has started any.

    The kernel numbers new processes one after the other, so an unchanged newest number means
    that nothing was started since the last look found no stray.
    """

    def __init__(self, states: Mapping[int, State], kin: Kin, *, processes: int) -> None:
        """Watch over `states`; a running step may have so many processes."""
        self._states, self._kin, self._processes = states, kin, processes
        self._quiet_at = b""

    def quiet(self) -> bool:
        """Return whether nothing was started since the last look without strays."""
        return inspection.newest_pid() == self._quiet_at

    def look(self) -> list[int]:
        """Return the living processes that are no worker's; orphans that ended are reaped."""
        newest = inspection.newest_pid()
        if newest == self._quiet_at:
            return []
        self.collect()
        strays = [
            pid
            for pid in inspection.processes()
            if pid not in self._kin.pids and not inspection.is_dead(pid)
        ]
        if not strays and not self._running() and not self._ended():
            self._quiet_at = newest
        return strays

    def note_forks(self, made: int) -> None:
        """Count forks that we asked for, if it was quiet before and nothing else was started."""
        newest = inspection.newest_pid()
        expected = self._quiet_at and int(self._quiet_at) + made
        if expected == int(newest) and not self._running():
            self._quiet_at = newest

    def allowed(self) -> int:
        """Return how many processes the tree may have: those there, and what steps may start.

        The kernel counts threads as processes.
        """
        states = self._states.values()
        total = 1 + len(states) + self._running() * (self._processes - 1)
        if self.quiet():
            return total
        running = [state for state in states if state.busy == "exec"]
        for pid in self.look():
            if not any(state.owns(pid) for state in running):
                total += inspection.tasks_of(pid)
        total += self._ended()
        return total + sum(inspection.tasks_of(s.pid) - 1 for s in states if not s.busy)

    def collect(self) -> None:
        """Reap orphans that ended under us; workers are left to those who wait for them."""
        for pid in inspection.processes():
            if pid not in self._kin.pids and inspection.is_dead(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _ended(self) -> int:
        """Return how many have ended and count until they are reaped, which is not for us to do.

        Children that a parked state has not waited for, and orphans with threads on their way out.
        """
        parents = {os.getpid(), *(s.pid for s in self._states.values() if s.busy != "exec")}
        return sum(
            inspection.is_dead(pid) and inspection.parent_of(pid) in parents
            for pid in inspection.processes()
            if pid not in self._kin.pids
        )

    def _running(self) -> int:
        return sum(state.busy == "exec" for state in self._states.values())
