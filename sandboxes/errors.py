"""Our own failures. What the code in a sandbox does wrong is a Result, never one of these.

SandboxError
SandboxUnavailable   a backend or level that this host cannot give, with the remedy
SandboxLost          the supervisor or its engine died; every sandbox of the tree is gone
SandboxClosed        the sandbox, or its tree, has been closed
SandboxDead          the code in it has ended its interpreter; fork an earlier state
SandboxBusy          a fork, read or write while code is running in it
SnapshotUnsupported  a state that cannot be forked, with the reasons
ReplayDiverged       a replayed action gave another output than the first time
CapacityExceeded     the tree's budget of memory or of live states is spent
FileRefused          a path, file type or size that read, write or list do not serve
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SandboxError(ValueError):
    """A request that could not be served: what was asked, what was found, what to do."""


class SandboxUnavailable(SandboxError):
    """The host cannot give what was asked; the message names the remedy."""


class SandboxLost(SandboxError):
    """The supervisor, container or engine died under us."""


class SandboxClosed(SandboxError):
    """The sandbox or its tree has been closed."""


class SandboxDead(SandboxError):
    """The interpreter in this sandbox has ended; there is nothing to run in."""


class SandboxBusy(SandboxError):
    """Code is running in this sandbox."""


class ReplayDiverged(SandboxError):
    """Replaying the recorded actions gave another output: the code is not deterministic."""


class CapacityExceeded(SandboxError):
    """The budget of memory or of live states is spent."""


class FileRefused(SandboxError):
    """A path that is missing, leads outside, or is no regular file, or a file too large."""


@dataclass(frozen=True)
class Reason:
    """Why a state cannot be forked.

    `kind` is one of threads, child_processes, socket, pipe, shared_mapping,
    deleted_open_file, device, pending_timer, anon_inode, memory_too_large, dead.
    """

    kind: str
    detail: str


class SnapshotUnsupported(SandboxError):
    """A state that cannot be forked; `reasons` is the machine-readable list."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        """Keep the reasons; the message joins them."""
        self.reasons = tuple(reasons)
        found = "; ".join(f"{r.kind}: {r.detail}" for r in self.reasons)
        super().__init__(
            f"This state cannot be forked ({found}). End what is named in the same step, or set "
            "on_unforkable='replay' (for child processes also 'kill_background')."
        )
