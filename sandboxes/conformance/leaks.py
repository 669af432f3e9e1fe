"""What a backend leaves on the host: processes, mounts, descriptors, files."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from treegrpo.sandboxes.conformance.case import PATIENCE_S, Bench, Checks
from treegrpo.sandboxes.conformance.containers import containers_of

PROC = Path("/proc")
_OURS = re.compile("treegrpo|sandbox|workspace")  # in a mount; others come and go beside us


def new_nonce() -> str:
    """Return a number of seconds that no other `sleep` of the host is given."""
    return f"86400.{uuid.uuid4().int % 10**15:015d}"


def commands_with(nonce: str) -> list[int]:
    """Return the processes of the host whose command line holds `nonce`, zombies left out."""
    found: list[int] = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if nonce.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is not ours to read
            continue
    return found


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    return int(_lines("/proc/self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def kills(nonce: str) -> Generator[None]:
    """End what is left of a case when it fails: the processes whose command holds `nonce`."""
    try:
        yield
    finally:
        for pid in commands_with(nonce):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def descendants(root: int | None = None) -> set[int]:
    """Return the processes below `root` (this process, if None), zombies included."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    open_ends = [os.getpid() if root is None else root]
    while open_ends:
        below = children.get(open_ends.pop(), [])
        found.update(below)
        open_ends += below
    return found


@dataclass(frozen=True)
class Footprint:
    """What is on the host at one moment that a tree of sandboxes could leave behind."""

    processes: frozenset[int]
    descriptors: int
    mounts: frozenset[str]
    files: frozenset[str]
    shared: frozenset[str]  # segments of System V and POSIX shared memory
    containers: frozenset[str]


def footprint(bench: Bench) -> Footprint:
    """Return what is there now: below this process, in its mounts, and in the private folder."""
    home = str(bench.home)
    return Footprint(
        frozenset(descendants()),
        len(os.listdir("/proc/self/fd")),
        frozenset(m for m in _lines("/proc/self/mountinfo") if _OURS.search(m) or home in m),
        frozenset(str(path) for path in bench.home.rglob("*")),
        frozenset((*_shared_names(), *_lines("/proc/sysvipc/shm")[1:])),
        containers_of(bench, os.getpid()),
    )


def check_nothing_left(
    bench: Bench, check: Checks, before: Footprint, nonce: str, *, within_s: float = PATIENCE_S
) -> None:
    """Check that the host is as before, once closed trees have had a moment to go.

    Processes and descriptors are counted, since a backend may replace a warm one that it keeps.
    """

    def more() -> dict[str, object]:
        now = footprint(bench)
        left: dict[str, object] = {
            "commands": commands_with(nonce),
            "containers": sorted(now.containers - before.containers),
            "mounts": sorted(now.mounts - before.mounts),
            "files": sorted(now.files - before.files)[:8],
            "shared memory": sorted(name for name in now.shared - before.shared if nonce in name),
        }
        if len(now.processes) > max(len(before.processes), bench.baseline):
            left["processes"] = sorted(now.processes - before.processes)
        if now.descriptors > before.descriptors:
            left["descriptors"] = now.descriptors - before.descriptors
        return {name: what for name, what in left.items() if what}

    check.empties(more, "left on the host", within_s)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _shared_names() -> list[str]:
    try:
        return [f"/dev/shm/{name}" for name in os.listdir("/dev/shm")]
    except OSError:
        return []
