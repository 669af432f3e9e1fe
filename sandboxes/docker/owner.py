"""Labels that say whose a container is, and the removal of those whose owner is gone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker.errors

MARK = "treegrpo.sandbox"
_HOST = "treegrpo.host"
_PID = "treegrpo.pid"
_STARTED = "treegrpo.started"


def labels() -> dict[str, str]:
    """Return the labels of a container that this process makes.

    A process id comes back after a while and means nothing on another machine, so the start
    time and the host (this boot, this pid namespace) stand beside it.
    """
    pid = os.getpid()
    return {MARK: "1", _HOST: _host(), _PID: str(pid), _STARTED: _start_time(pid) or ""}


def remove_leftovers(client: Any) -> int:
    """Remove the containers of crashed runs; return how many went.

    Gone is an owner of this host whose process is not there any more. Of other hosts, which
    cannot be asked, only containers that have ended are removed.
    """
    removed = 0
    for container in client.containers.list(all=True, filters={"label": f"{MARK}=1"}, sparse=True):
        if is_leftover(container.attrs["Labels"], container.attrs["State"]):
            removed += remove(container)
    return removed


def remove(container: Any) -> bool:
    """Kill and remove a container, with its volumes; say whether it was there."""
    try:
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if error.status_code != 409:  # someone else is removing it
            raise
        return False
    return True


def is_leftover(found: Mapping[str, str], state: str) -> bool:
    """Say whether the owner that the labels name is gone, for a container in `state`."""
    if found.get(_HOST) != _host():
        return state in ("exited", "dead")
    pid = found.get(_PID, "")
    return not pid.isdigit() or _start_time(int(pid)) != found.get(_STARTED)


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything; the fields are counted behind it.
    return text.rpartition(")")[2].split()[19]
