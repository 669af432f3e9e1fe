"""The first guest process: warm, single-threaded, and forked once per tree.

It is started by exec, so nothing of the host's memory is in it, imports what its zygote
promises, lays the ground, and then turns each request into a supervisor in namespaces of its
own. In a container, where one tree is all there is, it becomes that supervisor itself.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import resource
import signal
import site
import socket
import sys
from typing import Any

from treegrpo.sandboxes.guest import gate, ground, inspection, kernel
from treegrpo.sandboxes.guest.supervisor import Supervisor

_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_CONTROL = 0


def main(config: dict[str, Any]) -> None:
    """Serve as the host's first frame says; never returns."""
    sys.prefix = config.get("prefix", sys.prefix)
    sys.path += config.get("paths", [])
    for name in config["imports"]:
        importlib.import_module(name)
    for give in (site.setquit, site.setcopyright, site.sethelper):
        give()  # exit, quit, help: what the interpreter's own start would have given
    gc.collect()
    gc.freeze()  # a collection in a fork must not touch, and thereby copy, these pages
    _raise_limits()
    if config["role"] == "tree":
        _serve_alone(config)
    kernel.die_with_parent()
    if config["namespaces"]:
        ground.lay(config["hidden"])
    _serve_launches(namespaces=config["namespaces"])


def _serve_launches(*, namespaces: bool) -> None:
    """Fork a supervisor for every descriptor that comes in; answer with its pid."""
    supervisors: set[int] = set()
    if namespaces:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps, and ends a tree whole
    else:
        kernel.adopt_orphans()
        signal.signal(signal.SIGCHLD, functools.partial(_on_orphans, supervisors))
    control = socket.socket(fileno=_CONTROL)
    control.send(b"up\n")
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            os._exit(0)
        uid, gid = os.getuid(), os.getgid()
        pid = kernel.fork_into(_NAMESPACES if namespaces else 0)
        if pid == 0:
            _supervise(descriptors[0], uid, gid, namespaces=namespaces)
        supervisors.add(pid)
        os.close(descriptors[0])
        control.send(b"%d\n" % pid)


def _on_orphans(supervisors: set[int], number: int, frame: object) -> None:
    _end_orphans(supervisors)


def _end_orphans(supervisors: set[int]) -> None:
    """Kill what a supervisor that crashed has left to us, and what that leaves in turn."""
    me = os.getpid()
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                supervisors.discard(ended)
        left = [p for p in inspection.processes() if inspection.parent_of(p) == me]
        left = [p for p in left if p not in supervisors]
        if not left:
            return
        for pid in left:
            gate.kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _supervise(stream: int, uid: int, gid: int, *, namespaces: bool) -> None:
    try:
        os.dup2(stream, _CONTROL)
        os.close(stream)
        if namespaces:
            kernel.die_with_parent()  # and the kernel ends the tree with it
            ground.enter_tree(uid, gid)
        supervisor = Supervisor(_CONTROL, _CONTROL)
        if not namespaces:
            supervisor.end_with(os.getppid())
        supervisor.run()
    except BaseException as error:  # noqa: BLE001 - said, then the process ends
        os.write(2, f"the supervisor failed: {error!r}\n".encode())
    finally:
        os._exit(70)


def _serve_alone(config: dict[str, Any]) -> None:
    """Be the one tree of a container; its namespaces are there already but the mounts."""
    if config["namespaces"]:
        ground.lay(config["hidden"])
        ground.clear_places()
    os.write(1, b"up\n")
    Supervisor(0, 1).run()


def _raise_limits() -> None:
    """Take as many descriptors as we may: a state costs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
