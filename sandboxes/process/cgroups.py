"""Control groups: a bound on the memory and the processes of a whole tree of sandboxes.

Works where the memory and pids controllers are ours to use: version 2 below a cgroup that
passes both on and that we may write to (root, or systemd's Delegate=yes), or two writable
hierarchies of version 1. Cgroups are named treegrpo-<pid>-<start time>-<n> after their owner, so
that a later run can tell what a dead one left.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from treegrpo.sandboxes.base import MIB, Feature

CONTROLLERS = ("memory", "pids")
_NAME = re.compile(r"treegrpo-(\d+)-(\d+)-\w+")
_CLOSE_WITHIN_S = 0.5  # a killed process leaves its cgroup a moment after it is reaped
_SYSTEMD_RUN = "run it with 'systemd-run --user --scope -p Delegate=yes <command>', or as root"


@dataclass(frozen=True)
class Cgroup:
    """One cgroup (in version 1 one per controller) with its limits."""

    memory: Path
    pids: Path
    version: int

    def add(self, pid: int) -> None:
        """Move a process here; what it starts from now on is here too."""
        for folder in self._folders():
            _write(folder / "cgroup.procs", pid)

    def memory_bytes(self) -> int:
        """Return the memory in use, with the files in its tmpfs mounts."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.memory / name).read_text())

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory; 0 once closed."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            words = (self.memory / name).read_text().split()
        except OSError:  # removed, perhaps while it is read
            return 0
        return int(words[words.index("oom_kill") + 1])

    def close(self) -> bool:
        """Return whether it is gone; False: a process still lives in it. It kills none."""
        until = time.monotonic() + _CLOSE_WITHIN_S
        left = self._folders()
        while left := [folder for folder in left if not _remove(folder)]:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys((self.memory, self.pids)))


@dataclass(frozen=True)
class CgroupHome:
    """A place where this process may make cgroups."""

    memory: Path
    pids: Path
    version: int

    def create(self, name: str, memory_mb: int, processes: int) -> Cgroup:
        """Return a new cgroup of so much memory, swap included, and so many processes."""
        made = Cgroup(self.memory / name, self.pids / name, self.version)
        folders: list[Path] = []
        try:
            for folder in dict.fromkeys((made.memory, made.pids)):
                folder.mkdir()
                folders.append(folder)
            _limit(made, memory_mb * MIB, processes)
        except OSError:
            for folder in folders:
                _remove(folder)
            raise
        return made


def own_name(number: int) -> str:
    """Return the name of this process's cgroup of that number."""
    return f"treegrpo-{os.getpid()}-{_start_time(os.getpid())}-{number}"


def find(proc: Path = Path("/proc")) -> CgroupHome | Feature:
    """Return where cgroups can be made, or the missing feature with reason and remedy.

    Each candidate is tried with a cgroup that is removed at once.
    """
    try:
        mounts = _mounts((proc / "self/mountinfo").read_text())
        own = _own_paths((proc / "self/cgroup").read_text())
    except OSError as error:
        return _missing(f"{error.filename} cannot be read", "mount /proc")
    tried: list[str] = []
    for home in itertools.chain(_version_2(mounts, own), _version_1(mounts, own)):
        fault = _fault(home)
        if fault is None:
            return home
        tried.append(fault)
    if tried:
        return _missing(tried[0], _SYSTEMD_RUN)
    return _missing(
        "no cgroup of ours or above it passes on the controllers memory and pids", _SYSTEMD_RUN
    )


def sweep(home: CgroupHome) -> int:
    """Return how many empty cgroups of dead owners were removed."""
    removed = 0
    for parent in dict.fromkeys((home.memory, home.pids)):
        for folder in parent.glob("treegrpo-*"):
            match = _NAME.fullmatch(folder.name)
            if match and _start_time(int(match[1])) != int(match[2]) and _remove(folder):
                removed += 1
    return removed


def _limit(made: Cgroup, memory_bytes: int, processes: int) -> None:
    if made.version == 2:
        _write(made.memory / "memory.max", memory_bytes)
        _write_if_there(made.memory / "memory.swap.max", 0)
    else:
        _write(made.memory / "memory.limit_in_bytes", memory_bytes)
        _write_if_there(made.memory / "memory.memsw.limit_in_bytes", memory_bytes)
    _write(made.pids / "pids.max", processes)


def _fault(home: CgroupHome) -> str | None:
    """Return why no cgroup can be made and used there, None if one can."""
    for folder in dict.fromkeys((home.memory, home.pids)):
        # Moving a process takes the right to write where it comes from and goes to meet.
        if home.version == 2 and not os.access(folder / "cgroup.procs", os.W_OK):
            return f"{folder} is not writable"
    try:
        # A name of its own: two threads may ask at once.
        made = home.create(own_name(0) + f"probe{time.monotonic_ns()}", 64, 16)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    made.close()
    return None


def _version_2(
    mounts: Mapping[str, tuple[Path, str]], own: Mapping[str, str]
) -> Iterator[CgroupHome]:
    if "" not in mounts or "" not in own:
        return
    for folder in _upwards(mounts[""], own[""]):
        with contextlib.suppress(OSError):
            passed_on = (folder / "cgroup.subtree_control").read_text().split()
            if set(CONTROLLERS) <= set(passed_on):
                yield CgroupHome(folder, folder, 2)


def _version_1(
    mounts: Mapping[str, tuple[Path, str]], own: Mapping[str, str]
) -> Iterator[CgroupHome]:
    if not all(name in mounts and name in own for name in CONTROLLERS):
        return
    memory, pids = (list(_upwards(mounts[name], own[name])) for name in CONTROLLERS)
    for one, other in itertools.zip_longest(memory, pids):
        yield CgroupHome(one or memory[-1], other or pids[-1], 1)


def _upwards(mount: tuple[Path, str], own: str) -> Iterator[Path]:
    """Yield our own cgroup's folder, then those above it that are mounted here."""
    point, root = mount
    inside = own[len(root.rstrip("/")) :] if own.startswith(root) else "/"
    folder = point / inside.lstrip("/")
    while True:
        if folder.is_dir():
            yield folder
        if folder == point or ".." in folder.parts:
            return
        folder = folder.parent


def _mounts(text: str) -> dict[str, tuple[Path, str]]:
    """Return {controller: (mount point, its root)}; "" is version 2."""
    found: dict[str, tuple[Path, str]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        place = (Path(point.encode().decode("unicode_escape")), root)
        if kind == "cgroup2":
            found.setdefault("", place)
        elif kind == "cgroup":
            found |= {name: place for name in CONTROLLERS if name in options.split(",")}
    return found


def _own_paths(text: str) -> dict[str, str]:
    """Return {controller: path of our cgroup}; "" is version 2."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        found |= dict.fromkeys(names.split(","), path)
    return found


def _start_time(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _write(file: Path, value: int) -> None:
    # Not write_text: that would make a file where the controller has none.
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        os.close(descriptor)


def _write_if_there(file: Path, value: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(file, value)


def _missing(reason: str, remedy: str) -> Feature:
    return Feature("cgroups", False, reason, remedy)
