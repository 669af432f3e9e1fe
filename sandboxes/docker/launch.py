"""A container for one tree with the supervisor up in it, or the reason why not."""

from __future__ import annotations

import json
import select
import time
from functools import cache
from typing import Any

from treegrpo.sandboxes import delivery
from treegrpo.sandboxes.base import Level, SandboxSpec
from treegrpo.sandboxes.connection import Connection
from treegrpo.sandboxes.docker import engine
from treegrpo.sandboxes.docker.config import DockerConfig, container_options
from treegrpo.sandboxes.docker.container import Container
from treegrpo.sandboxes.errors import SandboxError, SandboxUnavailable
from treegrpo.sandboxes.seccomp import compile_filter, docker_profile

RUNSC = "runsc"
_UP = b"up\n"
_LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "pids",
    "CpuCfsQuota": "cpu",
}
_IMPORTS: dict[str, list[str]] = {
    "bare": [],
    "numpy": ["numpy", "numpy.linalg", "numpy.random", "numpy.fft"],
}


def choose_runtime(config: DockerConfig, info: dict[str, Any]) -> str | None:
    """Return the runtime to ask for: the configured one, else runsc, else none by name."""
    if config.runtime is None and RUNSC in (info.get("Runtimes") or {}):
        return RUNSC
    return config.runtime


def level_of(info: dict[str, Any]) -> Level:
    """Return the level of a container whose supervisor came up, on an engine that says this."""
    return Level.L2 if missing_limits(info) else Level.L3


def missing_limits(info: dict[str, Any]) -> list[str]:
    """Return what this engine cannot limit."""
    return [name for key, name in _LIMITS.items() if not info.get(key)]


def start(client: Any, config: DockerConfig, spec: SandboxSpec, info: dict[str, Any]) -> Container:
    """Return a container whose supervisor waits for the host's first request.

    Raises:
        SandboxUnavailable: the engine, the image or the interpreter in it would not.
    """
    worker_filter()  # without it, nothing needs to be started
    asked = f"A sandbox in a container of {config.image} was asked for"
    with engine.refusals(asked, config.image):
        options = container_options(
            config,
            spec,
            command=["-s", "-c", delivery.BOOT],
            seccomp=json.dumps(docker_profile()),
            runtime=choose_runtime(config, info),
            cpus=config.cpus or float(info["NCPU"]),
        )
        container = Container(client, options)
    first = {"role": "tree", "imports": _IMPORTS[spec.zygote], "namespaces": True, "hidden": []}
    try:
        container.sendall(delivery.first_frame(first))
        _await_up(container, config.timeout_s)
    except OSError as error:
        found = f"its supervisor did not come up ({error})"
        container.close()
        raise engine.EngineRefused(asked, found, remedy(found, config, spec, info)) from error
    except BaseException:
        container.close()
        raise
    return container


def plant(container: Container, config: DockerConfig, spec: SandboxSpec) -> tuple[Connection, int]:
    """Return the connection to a container's supervisor and the number of its first state.

    Raises:
        EngineRefused: the first worker did not come up.
    """
    connection = Connection(container, name=f"The container {container.id}")
    told: dict[str, Any] = spec.model_dump(mode="json")
    try:
        answer, _ = connection.call(
            "open",
            worker_filter(),
            spec=told | told.pop("limits"),
            views="overlay",
            gate=True,
            landlock=True,
            read_write=["/nodes"],
            read_only=[],
        )
    except SandboxError as error:
        connection.close()
        raise engine.EngineRefused(
            f"A sandbox in a container of {config.image} was asked for",
            f"its first worker did not come up ({error})",
            "The engine's host must run Linux 6.8 or newer, for overlays in user namespaces.",
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection, answer["state"]


@cache
def worker_filter() -> bytes:
    """Return the system call filter that the workers install; made once.

    Raises:
        SandboxUnavailable: libseccomp is missing on this side.
    """
    try:
        return compile_filter(gate=True)
    except SandboxUnavailable as error:
        raise SandboxUnavailable(
            "The docker backend makes the filter of the workers here, on this side, and libseccomp "
            "is not installed. Install it with 'apt install libseccomp2' or 'dnf install "
            "libseccomp'."
        ) from error


def _await_up(container: Container, timeout_s: float) -> None:
    end, said = time.monotonic() + timeout_s, b""
    while len(said) < len(_UP):
        left = max(0.0, end - time.monotonic())
        if not select.select([container], [], [], left)[0]:
            raise TimeoutError(f"nothing heard for {timeout_s} s")
        said += container.recv(len(_UP) - len(said))
    if said != _UP:
        raise ConnectionError(f"it said {said!r}")


def remedy(said: str, config: DockerConfig, spec: SandboxSpec, info: dict[str, Any]) -> str:
    """Return what to do about a supervisor that ended with these words."""
    if "FATAL tini" in said or "exec " + config.python in said:
        return (
            f"Name the interpreter in {config.image} with the option python (Python >= 3.9; "
            f"{config.python!r} was tried), or use another image."
        )
    if spec.zygote != "bare" and f"'{spec.zygote}'" in said and "Error" in said:
        return f"Use an image with {spec.zygote} in it, or zygote='bare'."
    if "PermissionError" in said or "Operation not permitted" in said:
        return _namespaces_remedy(info)
    return "The option python must name a CPython 3.9 or newer; docker info says more."


def _namespaces_remedy(info: dict[str, Any]) -> str:
    """Return how to let containers of this engine have user namespaces and mounts."""
    if any("apparmor" in option for option in info.get("SecurityOptions") or ()):
        return (
            "The engine's AppArmor profile refuses mounts: give the option apparmor='unconfined' "
            "(the seccomp profile stays), and on Ubuntu 23.10 or newer run 'sudo sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0'."
        )
    if RUNSC in (info.get("Runtimes") or {}):
        return "gVisor may lack the mount calls: give the option runtime='runc'."
    return (
        "The engine's host refuses user namespaces: run 'sudo sysctl -w "
        "user.max_user_namespaces=10000' there, and use Linux 6.8 or newer."
    )
