"""What every backend speaks: a specification, results, entries and capabilities.

A sandbox is a live Python interpreter with a workspace of files. Its state (memory and files)
is forked at any depth. The failures of the code come back as a Result; only ours raise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ResultKind = Literal[
    "ok", "exception", "exit", "signal", "timeout", "memory", "pids", "disk", "protocol"
]
EntryKind = Literal["file", "directory", "symlink", "other"]

KIB = 1024
MIB = 1024 * 1024


class Level(IntEnum):
    """How strongly a sandbox is isolated; docs/sandboxes.md says what each protects against."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3


class Limits(BaseModel):
    """What one running step may use; the kernel or the supervisor enforces each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(default=10.0, gt=0, le=86_400, allow_inf_nan=False)
    memory_mb: int = Field(default=512, ge=64, le=1 << 20)  # of all that a step runs
    processes: int = Field(default=32, ge=1)  # that a step may have at once, itself included
    workspace_mb: int = Field(default=64, ge=0, le=16_384)  # written per state; 0: no files at all
    files: int = Field(default=10_000, ge=16)  # created per state
    output_kib: int = Field(default=256, ge=1, le=65_536)  # kept of each of stdout and stderr


class SandboxSpec(BaseModel):
    """What a tree of sandboxes is made with. Every state of the tree shares it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zygote: Literal["bare", "numpy"] = "bare"  # what is imported before the first step
    limits: Limits = Limits()
    min_level: Level = Level.L2  # refuse a host that gives less
    unsafe: bool = False  # the only way to L0
    rng: Literal["preserve", "branch"] = "preserve"  # what a fork does to `random`
    seed: int = 0  # of the random state, in [0, 2**63)
    on_unforkable: Literal["error", "replay", "kill_background"] = "error"
    max_states: int = Field(default=4_096, ge=1)  # live interpreters of the tree
    memory_budget_mb: int = Field(default=4_096, ge=64)  # parked states; beyond it, eviction


@dataclass(frozen=True)
class Result:
    """What one step of code did.

    `kind`: ok; exception (Python raised; the sandbox lives on); exit (sys.exit, os._exit);
    signal (a crash); timeout; memory, pids, disk (a limit was met); protocol (the code
    tampered with the channel). `alive` says whether the sandbox can go on.
    """

    kind: ResultKind
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    value: str | None = None  # repr of the last expression, None if it was None
    exception: str | None = None  # the type's name
    traceback: str | None = None  # of the code's own frames
    exit_code: int | None = None
    signal: int | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    alive: bool = True

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.kind == "ok"

    @property
    def text(self) -> str:
        """Stdout and stderr as text, one after the other; wrong bytes become U+FFFD."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass(frozen=True)
class Entry:
    """One name in a directory of the workspace."""

    name: str
    kind: EntryKind
    size: int  # bytes; 0 for all but files


@dataclass(frozen=True)
class Feature:
    """One thing a backend can or cannot do on this host, and why, and how to get it."""

    name: str
    present: bool
    reason: str = ""  # why it is missing, or how it holds
    remedy: str = ""  # what to do to get it


@dataclass(frozen=True)
class Capabilities:
    """What really holds on this host for one backend."""

    backend: str
    level: Level
    features: tuple[Feature, ...] = field(default=())

    def missing(self) -> tuple[Feature, ...]:
        """Return the features that are not there, with reason and remedy."""
        return tuple(feature for feature in self.features if not feature.present)
