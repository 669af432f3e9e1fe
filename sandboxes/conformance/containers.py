"""The containers that a backend has made for this host's processes, seen through the engine."""

from __future__ import annotations

from typing import Any

from treegrpo.sandboxes.conformance.case import Bench


def containers_of(bench: Bench, pid: int) -> frozenset[str]:
    """Return the containers that process `pid` has made; none unless the backend is docker."""
    if bench.backend.name != "docker":
        return frozenset()
    client = _client()
    try:
        found = client.containers.list(
            all=True, filters={"label": f"treegrpo.pid={pid}"}, sparse=True
        )
        return frozenset(str(container.id) for container in found)
    finally:
        client.close()


def kill_containers(ids: frozenset[str]) -> None:
    """Kill containers from outside, as a crash of the engine or of the supervisor would."""
    client = _client()
    try:
        for name in ids:
            client.containers.get(name).kill()
    finally:
        client.close()


def _client() -> Any:
    import docker

    return docker.from_env()
