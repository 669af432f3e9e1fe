"""A tree's first worker: a fork of the supervisor that gives up all a worker must not have."""

from __future__ import annotations

import os
import resource
import socket
from typing import Any

from treegrpo.sandboxes.guest import kernel, landlock, worker
from treegrpo.sandboxes.guest.views import View

_OPEN_FILES = 1024  # the channel's number lies below


def start_first(
    view: View, mode: str, order: dict[str, Any], program: bytes
) -> tuple[int, socket.socket, int]:
    """Return pid, channel, and the descriptor of the filter's notifications (-1: none)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = kernel.fork_into(0)
    if pid == 0:
        ours.close()
        _become_worker(theirs, view, mode, order, program)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 64, 1)
    ours.setblocking(False)
    return pid, ours, descriptors[0] if descriptors else -1


def _become_worker(
    channel: socket.socket, view: View, mode: str, order: dict[str, Any], program: bytes
) -> None:
    """Turn into the worker; never returns."""
    try:
        kernel.die_with_parent()
        os.setsid()
        _set_limits(order["spec"])
        if order["landlock"]:
            landlock.restrict(order["read_write"], order["read_only"])
        if mode != "copy":
            os.fchdir(view.descriptor)
            os.chroot(".")
        kernel.keep_capabilities(*([kernel.CAP_SYS_CHROOT] if order["gate"] else []))
        os.chdir(view.home)
        listener = kernel.install_filter(program, listen=order["gate"]) if program else -1
        if listener >= 0:
            socket.send_fds(channel, [b"up"], [listener])
        else:
            channel.send(b"up")
        worker.start(channel, files=mode, seed=order["spec"]["seed"])
    except BaseException as error:  # noqa: BLE001 - said, then the process ends
        os.write(2, f"the first worker failed: {error!r}\n".encode())
    finally:
        os._exit(70)


def _set_limits(spec: dict[str, Any]) -> None:
    memory = spec["memory_mb"] << 20
    written = max(1, spec["workspace_mb"]) << 20
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(kind, (value, value))
