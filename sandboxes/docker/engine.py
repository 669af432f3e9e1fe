"""The connection to a Docker engine, and its refusals in words that say what to do.

Every error of the engine becomes an EngineRefused here: what was asked, what was found, the remedy.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors

from treegrpo.sandboxes.errors import SandboxUnavailable

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
WITHOUT = "The process backend works without Docker: open_backend('process')."
START = "Start one: sudo systemctl start docker, or as root: dockerd &."


class EngineRefused(SandboxUnavailable):
    """What the engine would not do: the message says all, the attributes its two halves."""

    def __init__(self, asked: str, found: str, remedy: str) -> None:
        """Keep what was found and what to do about it."""
        self.found, self.remedy = found, remedy
        super().__init__(f"{asked}: {found}. {remedy} {WITHOUT}")


def connect(timeout_s: int = 60) -> Any:
    """Return a client of the engine that DOCKER_HOST, or the usual socket, leads to.

    Raises:
        EngineRefused: no engine answers there; the message says how to get one.
    """
    address = os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
    try:
        if address.startswith("unix://"):
            _reach(address.removeprefix("unix://"))
        client = docker.from_env(timeout=timeout_s)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise _no_engine(address, error) from error
    # The SDK pools connections by URL, and each container has its own: none would be used again.
    client.api.headers["Connection"] = "close"
    return client


def _reach(path: str) -> None:
    """Raise the operating system's own error where nobody listens; the SDK wraps it thrice."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)


def _no_engine(address: str, error: BaseException) -> EngineRefused:
    """Return why no engine answers at `address`."""
    asked = f"A Docker engine at {address} was asked for"
    root = _root_cause(error)
    if isinstance(root, PermissionError):
        return EngineRefused(
            asked,
            "access to it is denied",
            "Join the group that owns the socket (sudo usermod -aG docker $USER, then log in "
            "again), or point DOCKER_HOST at a rootless engine's socket.",
        )
    if isinstance(root, FileNotFoundError | ConnectionRefusedError | TimeoutError):
        return EngineRefused(
            asked,
            f"none answers ({root.strerror or root})",
            f"{START} Or point DOCKER_HOST at one that runs.",
        )
    return EngineRefused(
        asked,
        f"it cannot be reached ({error})",
        "Correct DOCKER_HOST (unix:///path or tcp://host:port), or unset it.",
    )


def _root_cause(error: BaseException) -> BaseException:
    """Return the operating system's error below an HTTP client's, where there is one."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, OSError) and one.errno is not None:
            return one
        if one not in seen:
            seen.append(one)
            below = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            waiting += [other for other in below if isinstance(other, BaseException)]
    return error


@contextmanager
def refusals(asked: str, image: str) -> Generator[None]:
    """Raise what the engine refuses in the block as EngineRefused, with the remedy."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        found = f"the engine does not have the image {image!r}"
        raise EngineRefused(asked, found, _get_image(image)) from error
    except docker.errors.APIError as error:
        said = str(error.explanation or error).strip().rstrip(".")
        raise EngineRefused(asked, f"the engine refused ({said})", _remedy(said, image)) from error
    except (docker.errors.DockerException, OSError) as error:
        # requests' errors are OSErrors: the engine went away between two calls
        raise EngineRefused(asked, f"the engine stopped to answer ({error})", START) from error


def _get_image(image: str) -> str:
    if image.startswith("treegrpo-sandbox:"):
        return "Build it: make docker-image (as root; needs debootstrap, no registry)."
    return (
        f"Get it: docker pull {image}. Without a registry: make docker-image, and the option "
        "image='treegrpo-sandbox:test'."
    )


def _remedy(said: str, image: str) -> str:
    """Return what to do about a refusal, by the engine's words; they have no codes."""
    lower = said.lower()
    if "runtime" in lower:
        return "Install that runtime, or leave the option runtime out."
    if "reference format" in lower:
        return f"Give image as name:tag, for example python:3.12-slim, not {image!r}."
    if "executable file not found" in lower or "no such file" in lower:
        return f"Name the interpreter inside {image} with the option python."
    if "seccomp" in lower:
        return "The engine needs seccomp (docker info lists it under Security Options)."
    if "apparmor" in lower:
        return "Name a loaded profile, or 'unconfined', with the option apparmor."
    if "max depth" in lower:
        return (
            f"{image} has all the layers that an engine stacks. Flatten it: docker export of a "
            "container of it, then docker import."
        )
    if "cpus" in lower or "memory" in lower:
        return "Ask for what the engine's host has: the options cpus and memory_mb."
    return "docker info and the engine's log say more."
