"""What a docker backend is made with, and the hardened container that follows from it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from docker.types import LogConfig, Ulimit
from pydantic import BaseModel, ConfigDict, Field

from treegrpo.sandboxes.base import Level, SandboxSpec
from treegrpo.sandboxes.delivery import ENVIRONMENT
from treegrpo.sandboxes.docker import owner

USER = "1000:1000"
_FIRST_USER, _USERS = 10_000, 50_000  # below 65536, which is all that a remapping engine has
STATES = "/states"  # in the container; at L1 each state is a directory of it
_MIB = 1024 * 1024
_STEPS_AT_ONCE = 4  # the container has room for so many running steps beside the parked states
_TMP_STATES = 8  # the tmpfs holds so many full workspaces, where states are directories in it
# Over what the image sets, as on the host. Where the NVIDIA runtime is the default, an image's
# own variable would hand over GPUs.
_ENVIRONMENT = {**ENVIRONMENT, "NVIDIA_VISIBLE_DEVICES": "void"}


class DockerConfig(BaseModel):
    """Which image and engine features a tree's container is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(default="python:3.12-slim", min_length=1)  # any with Python >= 3.9
    python: str = Field(default="python3", min_length=1)  # the interpreter in the image
    runtime: str | None = None  # None: runsc where the engine has it, else the engine's default
    cpus: float | None = Field(default=None, gt=0)  # of a tree; None: all of the engine's
    memory_mb: int | None = Field(default=None, ge=128)  # of a tree; None: from the spec
    apparmor: str | None = None  # a profile's name, "unconfined"; None: the engine's default
    timeout_s: int = Field(default=60, ge=1)  # of one request to the engine
    level: Level | None = Field(
        default=None, ge=1
    )  # run at this level although more may hold; None: the highest


def container_options(
    config: DockerConfig,
    spec: SandboxSpec,
    *,
    command: Sequence[str],
    seccomp: str | None,
    runtime: str | None,
    cpus: float,
    namespaces: bool = True,
) -> dict[str, Any]:
    """Return the SDK's arguments for the container of one tree.

    Nothing of the host is mounted, nothing can be written but tmpfs, nothing is reachable, and
    no privilege can be had. Inside, the supervisor and its workers confine each other further.

    Args:
        config: the backend's options.
        spec: the tree's specification.
        command: the arguments of the interpreter.
        seccomp: the profile; None: the engine's own.
        runtime: the engine's name of it; None: its default.
        cpus: how many the tree may use.
        namespaces: whether the supervisor makes them; if not, states are directories.
    """
    user = USER if namespaces else _user_of_its_own()
    return {
        **_closed_off(seccomp, config.apparmor),
        **_limits(config, spec, cpus),
        "image": config.image,
        "runtime": runtime,
        "entrypoint": [config.python],
        "command": list(command),
        "user": user,
        "tmpfs": _tmpfs(spec, None if namespaces else user),
    }


def _closed_off(seccomp: str | None, apparmor: str | None) -> dict[str, Any]:
    """Return what is the same for every tree but for the profiles."""
    security = ["no-new-privileges"]
    if seccomp is not None:
        security.append(f"seccomp={seccomp}")
    if apparmor is not None:
        security.append(f"apparmor={apparmor}")
    return {
        "working_dir": "/",
        "hostname": "sandbox",
        "environment": _ENVIRONMENT,
        "healthcheck": {"test": ["NONE"]},
        "labels": owner.labels(),
        "stdin_open": True,
        "init": True,
        # The default driver would write each frame of the protocol to the host's disk.
        "log_config": LogConfig(type="none"),
        "network_mode": "none",
        "ipc_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": security,
        "read_only": True,
        "oom_score_adj": 500,
    }


def _limits(config: DockerConfig, spec: SandboxSpec, cpus: float) -> dict[str, Any]:
    """Return how much the container may use: all of a tree's states together."""
    limits = spec.limits
    memory_mb = config.memory_mb or spec.memory_budget_mb + _STEPS_AT_ONCE * limits.memory_mb
    files = 1024 + 4 * spec.max_states  # descriptors; the supervisor holds two of each state
    return {
        "mem_limit": memory_mb * _MIB,
        "memswap_limit": memory_mb * _MIB,
        "pids_limit": spec.max_states + _STEPS_AT_ONCE * limits.processes + 64,
        "nano_cpus": int(cpus * 1e9),
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=files, hard=files),
        ],
    }


def _user_of_its_own() -> str:
    """Return a user for one tree without a user namespace.

    The kernel counts a user's processes over all containers, so trees of one user would use up
    each other's limit.
    """
    number = _FIRST_USER + secrets.randbelow(_USERS)
    return f"{number}:{number}"


def _tmpfs(spec: SandboxSpec, owner_of_states: str | None) -> dict[str, str]:
    """Return the one place that can be written: for the supervisor, or for the states' files."""
    size = max(16, _TMP_STATES * spec.limits.workspace_mb)
    inodes = 1024 + _TMP_STATES * spec.limits.files
    room = f"rw,nosuid,nodev,size={size}m,nr_inodes={inodes}"
    if owner_of_states is None:
        return {"/tmp": f"{room},noexec,mode=1777"}
    user, group = owner_of_states.split(":")
    return {STATES: f"{room},exec,mode=700,uid={user},gid={group}"}
