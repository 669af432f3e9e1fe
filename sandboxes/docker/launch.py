"""A container for one tree with the supervisor up in it, or the reason why not."""

from __future__ import annotations

import json
import select
import time
from dataclasses import dataclass
from typing import Any

from treegrpo.sandboxes import delivery
from treegrpo.sandboxes.base import SandboxSpec
from treegrpo.sandboxes.connection import Connection
from treegrpo.sandboxes.docker import engine
from treegrpo.sandboxes.docker.config import STATES, DockerConfig, container_options
from treegrpo.sandboxes.docker.container import Container
from treegrpo.sandboxes.docker.footing import Footing, plain_filter, worker_filter
from treegrpo.sandboxes.errors import SandboxError, SandboxLost
from treegrpo.sandboxes.seccomp import docker_profile

RUNSC = "runsc"
_UP = "up"
_MOST_SAID = 4096
_GET_LANDLOCK = (
    "Boot the engine's host with 'lsm=landlock,...' on Linux 5.13 or newer, or use a newer "
    "engine, whose seccomp profile lets Landlock through."
)
_NEWER_KERNEL = "The engine's host must run Linux 6.8 or newer, for overlays in user namespaces."
# Where nothing hides the image, the interpreter in it says first what it must be able to read,
# and the ABI of its kernel's Landlock (444: landlock_create_ruleset), before anything else runs.
_TELL = """
import ctypes, json, os, sys
_paths = {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime"}
_paths |= {"/dev/" + name for name in ("zero", "full", "random", "urandom")}
_paths |= {sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix)}
_abi = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
_told = [_abi, [path for path in sorted(_paths - {"/"}) if os.path.exists(path)]]
os.write(1, json.dumps(_told).encode() + b"\\n")
"""


class LevelRefused(engine.EngineRefused):
    """The container cannot stand at this level; it may at a lower one."""


@dataclass(frozen=True)
class Started:
    """A container whose supervisor waits for the host's first request."""

    container: Container
    footing: Footing
    landlock_abi: int = 0  # as the container says it, at L1
    readable: tuple[str, ...] = ()  # what the interpreter needs of the image, at L1


def choose_runtime(config: DockerConfig, info: dict[str, Any]) -> str | None:
    """Return the runtime to ask for: the configured one, else runsc, else none by name."""
    if config.runtime is None and RUNSC in (info.get("Runtimes") or {}):
        return RUNSC
    return config.runtime


def choose_profile(footing: Footing, info: dict[str, Any]) -> str | None:
    """Return the container's seccomp profile; None: the engine's own.

    Ours allows the mounts that the supervisor makes. Without them the engine's own is narrower,
    unless it has been switched off.
    """
    off = any("profile=unconfined" in option for option in info.get("SecurityOptions") or ())
    return json.dumps(docker_profile()) if footing.namespaces or off else None


def start(
    client: Any, config: DockerConfig, spec: SandboxSpec, info: dict[str, Any], footing: Footing
) -> Started:
    """Return a container whose supervisor waits for the host's first request.

    Raises:
        LevelRefused: namespaces or mounts are refused in the container.
        SandboxUnavailable: the engine, the image or the interpreter in it would not.
    """
    asked = f"A sandbox in a container of {config.image} was asked for"
    tell = "" if footing.namespaces else _TELL
    with engine.refusals(asked, config.image):
        options = container_options(
            config,
            spec,
            command=["-s", "-c", tell + delivery.BOOT],
            seccomp=choose_profile(footing, info),
            runtime=choose_runtime(config, info),
            cpus=config.cpus or float(info["NCPU"]),
            namespaces=footing.namespaces,
        )
        container = Container(client, options)
    try:
        started = _await_up(container, config, spec, footing)
    except (OSError, ValueError) as error:
        container.close()
        found = f"its supervisor did not come up ({error})"
        refused = footing.namespaces and lacks_namespaces(found)
        kind = LevelRefused if refused else engine.EngineRefused
        raise kind(asked, found, remedy(found, config, spec, info)) from error
    except BaseException:
        container.close()
        raise
    if not footing.namespaces and started.landlock_abi < 1:
        container.close()
        raise engine.EngineRefused(asked, "its kernel gives no Landlock", _GET_LANDLOCK)
    return started


def plant(started: Started, config: DockerConfig, spec: SandboxSpec) -> tuple[Connection, int]:
    """Return the connection to a container's supervisor and the number of its first state.

    Raises:
        LevelRefused: the kernel refused the first state's view of the files.
        EngineRefused: the first worker did not come up.
    """
    connection = Connection(started.container, name=f"The container {started.container.id}")
    try:
        header, program = _opening(started, spec)
        answer, _ = connection.call("open", program, **header)
    except SandboxError as error:
        connection.close()
        spaces = started.footing.namespaces
        refused = spaces and not isinstance(error, SandboxLost)
        kind = LevelRefused if refused else engine.EngineRefused
        raise kind(
            f"A sandbox in a container of {config.image} was asked for",
            f"its first worker did not come up ({error})",
            _NEWER_KERNEL if spaces else "docker info and the engine's log say more.",
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection, answer["state"]


def _opening(started: Started, spec: SandboxSpec) -> tuple[dict[str, Any], bytes]:
    """Return what the supervisor is told first, and the workers' filter."""
    header: dict[str, Any] = {"spec": delivery.told_spec(spec), "landlock": True}
    if started.footing.namespaces:
        header |= {"views": "overlay", "gate": True, "read_write": ["/nodes"], "read_only": []}
        return header, worker_filter(gate=True)
    header |= {"views": "copy", "gate": False, "top": STATES}
    header |= {"read_write": [STATES, "/dev/null"], "read_only": list(started.readable)}
    return header, plain_filter()


def _await_up(
    container: Container, config: DockerConfig, spec: SandboxSpec, footing: Footing
) -> Started:
    """Send the supervisor its first frame and return what it says of itself.

    Raises:
        OSError, ValueError: it did not come up, or says something else.
    """
    end = time.monotonic() + config.timeout_s
    abi, readable = 0, list[str]()
    first: dict[str, Any] = {
        "role": "tree",
        "imports": delivery.IMPORTS[spec.zygote],
        "namespaces": footing.namespaces,
        "hidden": [],
    }
    container.sendall(delivery.first_frame(first))
    if not footing.namespaces:
        abi, readable = json.loads(_line(container, end))
    said = _line(container, end)
    if said != _UP:
        raise ConnectionError(f"it said {said!r}")
    return Started(container, footing, int(abi), tuple(map(str, readable)))


def _line(container: Container, end: float) -> str:
    said = b""
    while not said.endswith(b"\n"):
        left = max(0.0, end - time.monotonic())
        if not select.select([container], [], [], left)[0]:
            raise TimeoutError("nothing was heard in time (option timeout_s)")
        said += container.recv(1)
        if len(said) > _MOST_SAID:
            raise ConnectionError(f"it said {said[:100]!r}")
    return said[:-1].decode("utf-8", "replace")


def lacks_namespaces(said: str) -> bool:
    """Return whether these last words tell of refused namespaces or mounts."""
    laid = "guest.ground>" in said or "in lay" in said
    return laid or "PermissionError" in said or "Operation not permitted" in said


def remedy(said: str, config: DockerConfig, spec: SandboxSpec, info: dict[str, Any]) -> str:
    """Return what to do about a supervisor that ended with these words."""
    if "FATAL tini" in said or "exec " + config.python in said:
        return (
            f"Name the interpreter in {config.image} with the option python (Python >= 3.9; "
            f"{config.python!r} was tried), or use another image."
        )
    if spec.zygote != "bare" and f"'{spec.zygote}'" in said and "Error" in said:
        return f"Use an image with {spec.zygote} in it, or zygote='bare'."
    if lacks_namespaces(said):
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
