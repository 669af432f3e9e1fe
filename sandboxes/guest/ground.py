"""The ground a sandbox stands on: a root of read-only mounts, made once and shared.

/base     what every state sees: /usr, the interpreter's prefix, a few devices, an /etc of
our own; no /proc, no home, nothing of the host besides. Read-only.
/layers   one small tmpfs per state: what it wrote
/nodes    one root per state: a copy of /base's mounts with its layer on top
/proc     for the supervisor alone
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from treegrpo.sandboxes.guest import kernel

USER_ID = 1000  # inside; outside it is whoever started us, or nobody if that was root
_NOBODY = 65534
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ETC = {
    "passwd": "sandbox:x:1000:1000:sandbox:/workspace:/bin/sh\n",
    "group": "sandbox:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_COPIED = ("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
_CHOICES = "/etc/alternatives"
"""Debian's links from /usr/bin to the program chosen for a name: awk, which, editor."""


def prefixes() -> list[str]:
    """Return the directories that the interpreter itself needs, /usr aside."""
    found = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    found |= {os.path.abspath(p) for p in (sys.prefix, sys.base_prefix)}
    return sorted(p for p in found if p != "/" and not p.startswith("/usr"))


def covered() -> list[str]:
    """Return the prefixes that a state's own /tmp or /workspace would hide."""
    return [p for p in prefixes() if p.startswith(("/tmp/", "/workspace/"))]


def lay(hidden: Sequence[str]) -> None:
    """Give this process a mount namespace with nothing but the ground.

    Args:
        hidden: directories that states must not see although a prefix holds them.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        map_user(uid, gid)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    target = _empty_place()
    kernel.mount("tmpfs", target, "tmpfs", 0, "size=64m,mode=755")
    os.chdir(target)
    for name in ("base", "layers", "making", "nodes", "proc", "old", "skeleton"):
        os.mkdir(name)
    for name in ("/workspace", "/tmp", "/shm", *covered()):
        os.makedirs("skeleton" + name)
    _build_base(hidden)
    kernel.mount("/proc", "proc", None, kernel.MS_BIND | kernel.MS_REC)
    kernel.pivot_root(".", "old")
    os.chdir("/")
    kernel.unmount("/old")
    if uid == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        kernel.set_dumpable(True)  # else /proc/self would still belong to root


def enter_tree(uid: int, gid: int) -> None:
    """Finish a tree's new namespaces: its user, its empty places, its /proc."""
    map_user(uid, gid)
    clear_places()
    kernel.mount("proc", "/proc", "proc", 0)


def clear_places() -> None:
    """Give this tree places of its own for layers and roots."""
    kernel.mount("tmpfs", "/layers", "tmpfs", 0, "size=1m,nr_inodes=100000,mode=755")
    kernel.mount("tmpfs", "/making", "tmpfs", 0, "size=1m,nr_inodes=100000,mode=0")
    # A state's ".." ends here: a folder of mode 0, through a mount on which it stays so.
    kernel.mount("/making", "/nodes", None, kernel.MS_BIND)
    kernel.mount(None, "/nodes", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)


def map_user(uid: int, gid: int) -> None:
    """Make this process user 1000 of its new user namespace."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{USER_ID} {uid} 1"),
        ("gid_map", f"{USER_ID} {gid} 1"),
    ):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)


def _empty_place() -> str:
    """Return a directory to mount on that hides nothing we need."""
    needed = [*prefixes(), "/usr", "/proc", "/dev"]
    for place in ("/mnt", "/media", "/srv", "/opt", "/home", "/tmp"):
        if os.path.isdir(place) and not any(p.startswith(place) for p in needed):
            return place
    raise OSError("no directory to build a root on: tried /mnt, /media, /srv, /opt, /home, /tmp")


def _build_base(hidden: Sequence[str]) -> None:
    for name in ("workspace", "tmp", "dev/shm", "proc", "etc"):
        os.makedirs("base/" + name)
    for name in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", *prefixes()):
        if os.path.islink(name) and name.count("/") == 1:
            os.symlink(os.readlink(name), "base" + name)
        elif os.path.isdir(name):
            os.makedirs("base" + name, exist_ok=True)
            _bind(name, "base" + name)
    for name in _DEVICES:
        with open("base/dev/" + name, "w"):
            pass
        kernel.mount("/dev/" + name, "base/dev/" + name, None, kernel.MS_BIND)
    for name, text in _ETC.items():
        with open("base/etc/" + name, "w") as file:
            file.write(text)
    for name in _COPIED:
        if os.path.isfile(name):
            with open(name, "rb") as source, open("base" + name, "wb") as copy:
                copy.write(source.read())
    _link_choices()
    for name in hidden:
        # A clone of ours may hold the environment it runs in; only that is seen of it.
        above = any(prefix == name or prefix.startswith(name + "/") for prefix in prefixes())
        if os.path.isdir("base" + name) and not above:
            kernel.mount("tmpfs", "base" + name, "tmpfs", kernel.MS_RDONLY, "size=4k,mode=555")
    kernel.mount("base", "base", None, kernel.MS_BIND | kernel.MS_REC)
    os.chdir(".")  # the bind lies on top of what the next path lookup finds
    _read_only("base")


def _link_choices() -> None:
    """Copy the links of _CHOICES that lead to programs of /usr; they hold nothing of the host."""
    if not os.path.isdir(_CHOICES):
        return
    os.mkdir("base" + _CHOICES)
    for name in sorted(os.listdir(_CHOICES)):
        link = f"{_CHOICES}/{name}"
        if os.path.islink(link) and os.readlink(link).startswith(("/usr/bin/", "/bin/")):
            os.symlink(os.readlink(link), "base" + link)


def _bind(source: str, target: str) -> None:
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    _read_only(target)


def _read_only(target: str) -> None:
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID
    try:
        kernel.mount(None, target, None, flags)
    except PermissionError:  # a locked flag of the host's mount must be kept as it is
        kernel.mount(None, target, None, flags | kernel.MS_NODEV)
