"""The level at which a tree's container stands, and what keeps it from a higher one.

L3   namespaces, mounts and a gated filter inside a container with limits
L2   the same, on an engine that lacks one of the limits
L1   no namespaces inside: each state is a directory of the container, under Landlock
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from treegrpo.sandboxes.base import Level, SandboxSpec
from treegrpo.sandboxes.docker.config import DockerConfig
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import compile_filter

INSTALL = "Install it with 'apt install libseccomp2' or 'dnf install libseccomp'."
_LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "pids",
    "CpuCfsQuota": "cpu",
}


@dataclass(frozen=True)
class Footing:
    """A level, why it is not a higher one, and what to do to get that."""

    level: Level
    reason: str = ""
    remedy: str = ""

    @property
    def namespaces(self) -> bool:
        """Whether the supervisor makes namespaces and mounts inside the container."""
        return self.level >= Level.L2


def highest(info: dict[str, Any]) -> Footing:
    """Return the highest footing to try: on an engine that says this, with this side's filter."""
    fault = filter_fault()
    if fault:
        reason = f"the filter of its workers is made on this side, where {fault}"
        return Footing(Level.L1, reason, INSTALL)
    lacking = missing_limits(info)
    if lacking:
        reason = f"this engine cannot limit {', '.join(lacking)}"
        return Footing(Level.L2, reason, "Let the engine use cgroups.")
    return Footing(Level.L3)


def choose(config: DockerConfig, info: dict[str, Any]) -> Footing:
    """Return the footing to try first: the highest, or the lower one that was asked for."""
    top = highest(info)
    if config.level is None or config.level >= top.level:
        return top
    asked = f"the option level={int(config.level)} asks for no more"
    return Footing(config.level, asked, "Leave the option level out.")


def refuse_below(footing: Footing, config: DockerConfig, spec: SandboxSpec) -> None:
    """Refuse a footing that is lower than the backend's option or the specification asks.

    Raises:
        SandboxUnavailable: it is; the message says why, and what to do.
    """
    accepted = Level.L0 if spec.unsafe else spec.min_level
    needed = max(accepted, config.level or Level.L0)
    if needed <= footing.level:
        return
    accept = f"min_level={int(footing.level)}"
    if config.level is not None and config.level > footing.level:
        accept = f"level={int(footing.level)} and " + accept
    raise SandboxUnavailable(
        f"A sandbox of level {needed.name} was asked for; the docker backend gives "
        f"{footing.level.name} here: {footing.reason}. {footing.remedy} Or accept less with "
        f"{accept}."
    )


def missing_limits(info: dict[str, Any]) -> list[str]:
    """Return what this engine cannot limit."""
    return [name for key, name in _LIMITS.items() if not info.get(key)]


def filter_fault() -> str:
    """Return why the gated filter of the workers cannot be made on this side; "" if it can."""
    try:
        worker_filter(gate=True)
    except SandboxUnavailable:
        return "libseccomp is not installed"
    except OSError as error:
        return f"libseccomp is too old ({error.strerror}): 2.5 is needed"
    return ""


def plain_filter() -> bytes:
    """Return the filter of workers at L1; nothing where libseccomp is missing."""
    try:
        return worker_filter(gate=False)
    except SandboxUnavailable:
        return b""


@cache
def worker_filter(*, gate: bool) -> bytes:
    """Return the system call filter that the workers install; made once."""
    return compile_filter(gate=gate)
