"""Landlock: a process gives up files, TCP, abstract sockets and signals, by itself.

Runs inside a sandbox's host or container: the standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence

# The numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

NEWEST_ABI = 7  # that this module knows; 7 brought no rights of its own

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST_ABI = (1 << 13) - 1
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Nobody makes devices or named sockets, or drives a device by ioctl.
_WRITE = (_FIRST_ABI | _REFER | _TRUNCATE) & ~(_MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK)
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE  # the rights that a file can have

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the kernel's Landlock ABI, 0 where it has none or does not use it."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))
    except OSError:
        return 0


def restrict(read_write: Sequence[str], read_only: Sequence[str]) -> int:
    """Return the ABI applied to this thread and all it starts; 0 if nothing was restricted.

    What is at or below the paths may be used (read-only: read and executed); every other file is
    refused, from ABI 4 all TCP, from ABI 6 abstract sockets and signals to processes that are
    not restricted with this one. There is no way back. A file system that is mounted below a
    path is covered by it, one that is mounted on the path itself is not: the directory under a
    mount is never looked at.

    Raises:
        OSError: a path that is not there, or a refusal of the kernel.
    """
    level = min(abi(), NEWEST_ABI)
    if level == 0:
        return 0
    handled = _FIRST_ABI
    handled |= _REFER if level >= 2 else 0
    handled |= _TRUNCATE if level >= 3 else 0
    handled |= _IOCTL_DEV if level >= 5 else 0
    net = _TCP_BIND_AND_CONNECT if level >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if level >= 6 else 0
    # A kernel takes a longer structure than its own only if the rest is zero, as it is here.
    attributes = struct.pack("=QQQ", handled, net, scoped)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for paths, rights in ((read_write, _WRITE), (read_only, _READ)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise _error()
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return level


def _allow(ruleset: int, path: str, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _OF_A_FILE
        attributes = struct.pack("=Qi", rights, beneath)
        _call(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            attributes,
            ctypes.c_uint(0),
        )
    finally:
        os.close(beneath)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"Landlock: {os.strerror(number)}")
