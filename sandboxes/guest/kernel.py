"""The few system calls that Python does not offer, by ctypes.

Numbers are those of x86_64 and aarch64 (equal for the mount and openat2 families).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

CAP_SYS_CHROOT = 18
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _CLOEXEC = 1, 0o2000000
_SIGCHLD = 17
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_NEW_LISTENER = 1, 8
_IOCTL_NOTIF_RECV, _IOCTL_NOTIF_SEND = 0xC0502100, 0xC0182101
_NOTIF_CONTINUE = 1
_NOTIF_BYTES = 80

_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "seccomp": 317, "capset": 126},
    "aarch64": {"clone": 220, "pivot_root": 41, "seccomp": 277, "capset": 91},
}
_SYS = _NUMBERS.get(os.uname().machine, _NUMBERS["x86_64"])
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_OPENAT2 = 437

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter lock over the call: a fork must not run while it is let go.
_locked = ctypes.PyDLL(None)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _syscall(number: int, what: str, *arguments: Any) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def fork_sibling() -> int:
    """Return 0 in a new process whose parent is ours, and its pid here.

    A worker that forks this way stays no one's parent: the supervisor alone reaps, and the
    code in a state cannot wait for the states that were forked from it.
    """
    return _clone(CLONE_PARENT)


def fork_into(namespaces: int) -> int:
    """Return 0 in a child in new namespaces, and its pid here."""
    return _clone(namespaces)


def _clone(flags: int) -> int:
    """Fork with flags, and nothing else.

    Neither C libraries' nor Python's fork hooks run: with one thread, which is checked, they
    have nothing to repair, and they would touch (so copy) hundreds of pages, reseed `random`
    and show the code that it was forked. The interpreter lock is held over the call.
    """
    pid = int(_locked.syscall(ctypes.c_long(_SYS["clone"]), flags | _SIGCHLD, 0, 0, 0, 0))
    if pid < 0:
        raise OSError(errno.EAGAIN, "clone: refused")
    return pid


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a filesystem, or bind or change one, as the flags say."""
    result = _libc.mount(
        source.encode() if source else None,
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {kind or 'bind'} on {target}")


def unmount(target: str) -> None:
    """Detach a mount and all below it; what is still in use lives on unseen."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of this mount namespace."""
    _syscall(_SYS["pivot_root"], "pivot_root", new.encode(), old.encode())


def clone_mount(path: str, *, at: int = _AT_FDCWD, recursive: bool = False) -> int:
    """Return a descriptor of a detached copy of the mounts at `path`."""
    flags = _OPEN_TREE_CLONE | _CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _syscall(_SYS_OPEN_TREE, f"open_tree {path}", at, path.encode(), flags)


def attach_mount(descriptor: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    arguments = (descriptor, b"", _AT_FDCWD, target.encode(), 4)
    _syscall(_SYS_MOVE_MOUNT, f"move_mount {target}", *arguments)


def new_mount(kind: str, options: list[tuple[str, str | None]]) -> int:
    """Return a descriptor of a new, detached filesystem; an option of None is a flag."""
    context = _syscall(_SYS_FSOPEN, f"fsopen {kind}", kind.encode(), 1)
    try:
        for key, value in options:
            command = 0 if value is None else 1
            text = value.encode() if value is not None else None
            what = f"fsconfig {kind} {key}"
            _syscall(_SYS_FSCONFIG, what, context, command, key.encode(), text, 0)
        _syscall(_SYS_FSCONFIG, f"fsconfig {kind}", context, 6, None, None, 0)
        return _syscall(_SYS_FSMOUNT, f"fsmount {kind}", context, 1, MS_NOSUID & 0)
    finally:
        os.close(context)


def open_inside(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Return a descriptor of `path` below the directory `root`.

    No symlink, "..", or race with the code inside can lead out of it: that is EXDEV.
    """
    how = struct.pack("QQQ", flags | _CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    return _syscall(_SYS_OPENAT2, path, root, os.fsencode(path), how, len(how))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever the processes below leave behind."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_dumpable(value: bool) -> None:
    """Say whether others of the same user may look into this process."""
    _libc.prctl(_PR_SET_DUMPABLE, int(value), 0, 0, 0)


def keep_capabilities(*kept: int) -> None:
    """Drop every capability but those named, for good."""
    for capability in range(64):
        if capability not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    low = sum(1 << c for c in kept)
    header = struct.pack("II", 0x20080522, 0)
    _syscall(_SYS["capset"], "capset", header, struct.pack("6I", low, low, 0, 0, 0, 0))


def install_filter(program: bytes, *, listen: bool) -> int:
    """Install a seccomp program; return the descriptor of its notifications, or -1."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    flags = _SECCOMP_NEW_LISTENER if listen else 0
    result = _syscall(_SYS["seccomp"], "seccomp", _SECCOMP_SET_MODE_FILTER, flags, header)
    return result if listen else -1


def receive_notice(listener: int) -> tuple[int, int, int, tuple[int, ...]]:
    """Return (id, pid, call number, arguments) of a call that waits for our word."""
    buffer = bytearray(_NOTIF_BYTES)
    fcntl.ioctl(listener, _IOCTL_NOTIF_RECV, buffer)
    key, pid, _flags, number, _arch, _ip, *arguments = struct.unpack("QIIiIQ6Q", buffer)
    return key, pid, number, tuple(arguments)


def answer_notice(listener: int, key: int, error: int) -> None:
    """Let the call through (error 0), or have it fail with an errno."""
    word = struct.pack("QqiI", key, 0, -error, 0 if error else _NOTIF_CONTINUE)
    with contextlib.suppress(FileNotFoundError):  # the caller has died meanwhile
        fcntl.ioctl(listener, _IOCTL_NOTIF_SEND, word)
