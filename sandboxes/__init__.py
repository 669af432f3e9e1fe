"""Sandboxes: run untrusted Python, and fork its live memory and files at any depth.

from treegrpo.sandboxes import open_backend

with open_backend("process") as backend:
sandbox = backend.create()
sandbox.exec("x = 1")
left, right = sandbox.fork(2)
"""

from treegrpo.sandboxes.backend import BACKENDS, Backend, open_backend, shared_backend
from treegrpo.sandboxes.base import (
    Capabilities,
    Entry,
    Feature,
    Level,
    Limits,
    Result,
    SandboxSpec,
)
from treegrpo.sandboxes.errors import (
    CapacityExceeded,
    FileRefused,
    Reason,
    ReplayDiverged,
    SandboxBusy,
    SandboxClosed,
    SandboxDead,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
    SnapshotUnsupported,
)
from treegrpo.sandboxes.history import Action
from treegrpo.sandboxes.sandbox import AsyncSandbox, Sandbox
from treegrpo.sandboxes.tree import Tree, TreeStats

__all__ = [
    "BACKENDS",
    "Action",
    "AsyncSandbox",
    "Backend",
    "Capabilities",
    "CapacityExceeded",
    "Entry",
    "Feature",
    "FileRefused",
    "Level",
    "Limits",
    "Reason",
    "ReplayDiverged",
    "Result",
    "Sandbox",
    "SandboxBusy",
    "SandboxClosed",
    "SandboxDead",
    "SandboxError",
    "SandboxLost",
    "SandboxSpec",
    "SandboxUnavailable",
    "SnapshotUnsupported",
    "Tree",
    "TreeStats",
    "open_backend",
    "shared_backend",
]
