"""The system call filters of a sandbox, from the one list in `syscalls.py`.

`compile_filter` gives the BPF program that a worker installs; `docker_profile` gives Docker's
JSON for a container in which our supervisor runs.
"""

from __future__ import annotations

import errno
import os
from types import ModuleType
from typing import Any

from treegrpo.sandboxes import syscalls
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.syscalls import Condition, Rule

_BINARY_TREE = 2  # of libseccomp's optimisations


def compile_filter(*, gate: bool) -> bytes:
    """Return the raw BPF program (sock_filter, 8 bytes each) for this machine's architecture.

    Args:
        gate: send chroot, kill, tkill and tgkill to a supervisor (SECCOMP_RET_USER_NOTIF).
            Without it chroot is EPERM, and the three signals are allowed to every process that
            the code can name: other namespaces, or nothing, keep it from its neighbours.

    Raises:
        SandboxUnavailable: libseccomp is not installed.
    """
    library = _library()
    made = library.SyscallFilter(library.ERRNO(errno.EPERM))
    # Calls of another architecture (int 0x80, x32) have other numbers: none is let through.
    made.set_attr(library.Attr.ACT_BADARCH, library.ERRNO(errno.ENOSYS))
    for name in syscalls.ALLOWED:
        _add(library, made, library.ALLOW, name)
    for rule in syscalls.CONDITIONAL:
        for name in rule.names:
            _add(library, made, library.ALLOW, name, rule.conditions)
    for name in syscalls.GATED if gate else syscalls.SIGNALS:
        _add(library, made, library.NOTIFY if gate else library.ALLOW, name)
    for name in syscalls.NOT_SUPPORTED:
        _add(library, made, library.ERRNO(errno.EOPNOTSUPP), name)
    for call in (*syscalls.NOT_IMPLEMENTED, *syscalls.NEWER):
        _add(library, made, library.ERRNO(errno.ENOSYS), call)
    _optimise(library, made)
    with os.fdopen(os.memfd_create("filter"), "w+b", buffering=0) as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def docker_profile() -> dict[str, Any]:
    """Return Docker's seccomp profile for a container in which our supervisor runs.

    It allows what a worker's filter allows, and the namespaces, mounts and filters that the
    supervisor makes for its workers; these get their own filter on top.
    """
    widened = set(syscalls.SUPERVISOR)
    plain = sorted({*syscalls.ALLOWED, *widened})
    conditional = [
        _entry([name for name in rule.names if name not in widened], rule)
        for rule in syscalls.CONDITIONAL
        if not widened.issuperset(rule.names)
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        # A map, of which Docker takes the line of its own machine, which may not be this one.
        "archMap": [
            {"architecture": f"SCMP_ARCH_{name}", "subArchitectures": []}
            for name in ("X86_64", "AARCH64")
        ],
        "syscalls": [
            {"names": plain, "action": "SCMP_ACT_ALLOW"},
            *conditional,
            {
                "names": [name for name in syscalls.NOT_IMPLEMENTED if name not in widened],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": errno.ENOSYS,
            },
        ],
    }


def _library() -> ModuleType:
    try:
        import pyseccomp  # looks for libseccomp.so when imported, which takes 20 ms
    except (RuntimeError, OSError) as error:
        raise SandboxUnavailable(
            f"A system call filter was asked for, but libseccomp is not installed ({error}). "
            "Install it with 'apt install libseccomp2' or 'dnf install libseccomp'. Without it the "
            "backend 'docker' still works, at level L1: "
            "open_backend('docker').create(SandboxSpec(min_level=1))."
        ) from error
    return pyseccomp


def _add(
    library: ModuleType,
    made: Any,
    action: int,
    call: str | int,
    conditions: tuple[Condition, ...] = (),
) -> None:
    """Add one rule; a call that this architecture does not have stays refused."""
    number = call if isinstance(call, int) else _number(library, call)
    if number >= 0:
        made.add_rule(action, number, *(_argument(library, one) for one in conditions))


def _number(library: ModuleType, name: str) -> int:
    known: int = library.resolve_syscall(library.Arch.NATIVE, name)
    return known if known >= 0 else syscalls.NUMBERS.get(name, -1)


def _argument(library: ModuleType, condition: Condition) -> Any:
    if condition.mask is None:
        return library.Arg(condition.argument, library.EQ, condition.value)
    masked = (library.MASKED_EQ, condition.mask, condition.value)
    return library.Arg(condition.argument, *masked)


def _optimise(library: ModuleType, made: Any) -> None:
    try:
        made.set_attr(library.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # libseccomp before 2.5: a longer search, no less strict
            raise


def _entry(names: list[str], rule: Rule) -> dict[str, Any]:
    def compared(one: Condition) -> dict[str, Any]:
        if one.mask is None:
            found = {"value": one.value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
        else:
            found = {"value": one.mask, "valueTwo": one.value, "op": "SCMP_CMP_MASKED_EQ"}
        return {"index": one.argument, **found}

    args = [compared(one) for one in rule.conditions]
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": args}
