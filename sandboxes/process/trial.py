"""What this host lets an unprivileged process do, found by doing it in a process of its own.

Runs as a program and prints one line of JSON: {"namespaces": null, "overlay": null,
"notification": null}, or instead of a null the step that failed, its errno and the message.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable

from treegrpo.sandboxes.guest import kernel

_NOBODY = 65534
_PLACE = "/tmp"  # covered in our own mount namespace
_ALL = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_RETURN, _ALLOW = 0x06, 0x7FFF_0000

Failure = tuple[str, int, str]


def main() -> None:
    """Try everything, and write what failed."""
    found: dict[str, Failure | None] = {"namespaces": _attempt(_namespaces)}
    found["overlay"] = found["namespaces"] or _attempt(_overlay)
    found["notification"] = _attempt(_notification)
    sys.stdout.write(json.dumps(found) + "\n")


def _attempt(steps: Callable[[], list[tuple[str, Callable[[], object]]]]) -> Failure | None:
    for name, step in steps():
        try:
            step()
        except OSError as error:
            return name, error.errno or 0, error.strerror or str(error)
    return None


def _namespaces() -> list[tuple[str, Callable[[], object]]]:
    uid, gid = os.getuid(), os.getgid()
    steps: list[tuple[str, Callable[[], object]]] = []
    if uid == 0:
        # As root the supervisor binds what only root may see, and goes on as nobody.
        steps.append(("root", lambda: kernel.unshare(kernel.CLONE_NEWNS)))
        steps.append(("root", _private))
        steps.append(("root", _become_nobody))
        uid = gid = _NOBODY
    return [
        *steps,
        ("unshare", lambda: kernel.unshare(_ALL)),
        ("map", lambda: _map(uid, gid)),
        ("mount", _private),
        ("mount", lambda: kernel.mount("tmpfs", _PLACE, "tmpfs", 0, "size=1m,mode=755")),
        ("process", _first_process),
    ]


def _private() -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    kernel.set_dumpable(True)  # else /proc/self would still belong to root


def _map(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)


def _first_process() -> None:
    """Start process 1 of the new process namespace."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(0, "the first process of a new process namespace is not number 1")


def _overlay() -> list[tuple[str, Callable[[], object]]]:
    return [("overlay", _mount_overlay)]


def _mount_overlay() -> None:
    os.chdir(_PLACE)
    for name in ("below", "beside", "above", "work", "seen"):
        os.mkdir(name)
    with open("below/file", "w") as file:
        file.write("below")
    lower = [("lowerdir+", f"{_PLACE}/{name}") for name in ("beside", "below")]
    upper = [("upperdir", f"{_PLACE}/above"), ("workdir", f"{_PLACE}/work")]
    mount = kernel.new_mount("overlay", [("userxattr", None), *lower, *upper])
    kernel.attach_mount(mount, f"{_PLACE}/seen")
    os.close(mount)
    with open("seen/file", "a") as file:
        file.write(" and above")
    os.unlink("seen/file")  # leaves a whiteout, which is a device of a kind


def _notification() -> list[tuple[str, Callable[[], object]]]:
    program = struct.pack("HBBI", _RETURN, 0, 0, _ALLOW)
    return [("listen", lambda: kernel.install_filter(program, listen=True))]


if __name__ == "__main__":
    main()
