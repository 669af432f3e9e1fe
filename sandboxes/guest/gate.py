"""The gate: calls that workers may make only when the supervisor finds them in order.

    kill, tkill, tgkill   to processes of the caller's own state
    chroot                by a fork, once, into the root that was made for it

A state's processes are told apart by their root directory, which they cannot change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from treegrpo.sandboxes.guest import inspection, kernel
from treegrpo.sandboxes.guest.loop import Loop

_CHROOT = (161, 51)  # x86_64, aarch64
_TGKILL = (234, 131)
_EPERM, _ESRCH = errno.EPERM, errno.ESRCH


class Gate:
    """Answers the notifications of one tree's seccomp filter."""

    def __init__(self, loop: Loop, listener: int, *, rooted: bool) -> None:
        """Listen on the filter's descriptor; `rooted`: each state has a root of its own."""
        self._listener = listener
        self._rooted = rooted
        self._expected: dict[str, str] = {}  # cwd that a fork has moved to -> its old root
        loop.watch(listener, self._answer)

    def expect(self, new_root: str, old_root: str) -> None:
        """Allow one chroot by a process of `old_root` that stands in `new_root`."""
        self._expected[new_root] = old_root

    def settle(self, new_root: str) -> None:
        """Allow it no longer."""
        self._expected.pop(new_root, None)

    def _answer(self) -> None:
        try:
            key, pid, number, arguments = kernel.receive_notice(self._listener)
        except OSError:
            return  # the caller was killed before we looked
        if number in _CHROOT:
            error = self._judge_chroot(pid, arguments[0])
        else:
            error = self._judge_signal(pid, number, arguments)
        kernel.answer_notice(self._listener, key, error)

    def _judge_chroot(self, pid: int, address: int) -> int:
        """Allow `chroot(".")` from where a fork is expected, by a process all alone.

        The path lies in the caller's memory; with one thread and no shared mapping (forks of
        such states are refused) nobody can change it after we have read it.
        """
        try:
            where = os.readlink(f"/proc/{pid}/cwd")
            old_root = self._expected.get(where)
            if old_root is None or inspection.root_of(pid) != old_root:
                return _EPERM
            if len(os.listdir(f"/proc/{pid}/task")) != 1:
                return _EPERM
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                if memory.read(2) != b".\0":
                    return _EPERM
        except OSError:
            return _EPERM
        self.settle(where)
        return 0

    def _judge_signal(self, pid: int, number: int, arguments: tuple[int, ...]) -> int:
        """Allow signals within a state; elsewhere there is nobody."""
        target = _signed(arguments[0])
        if number in _TGKILL:
            target = arguments[0]
        if target == -1:
            return _ESRCH
        if target <= 0:
            target = -target if target else os.getpgid(pid)
        if target == pid:
            return 0
        identify = inspection.root_of if self._rooted else inspection.session_of
        whose = identify(pid)
        return 0 if whose and identify(target) == whose else _ESRCH


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def kill(pid: int) -> None:
    """Kill one process; nothing happens if it has gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
