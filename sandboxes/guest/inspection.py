"""What a worker holds, seen from outside: whether its state can be forked.

The worker is not asked: the code in it may have changed what it would say. Everything is read
from /proc by the supervisor.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from treegrpo.sandboxes.guest.worker import CHANNEL, NULL

_SHARED_LINE = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ .w.s .*$", re.MULTILINE)
_MOST_FILES = 200
_OWN = (0, 1, 2, CHANNEL, NULL)


@dataclass(frozen=True)
class OpenFile:
    """A regular file or directory that the code holds open."""

    number: int
    flags: int
    offset: int
    path: str
    inside: bool  # `path` is counted from the state's root, not from ours


@dataclass(frozen=True)
class Finding:
    """A state as found: why it cannot be forked, and which files a fork must reopen."""

    reasons: tuple[tuple[str, str], ...]
    files: tuple[OpenFile, ...]


def look(pid: int, root: str, strays: list[int], *, max_mb: int) -> Finding:
    """Return what process `pid` holds; `root` is its view's root as we see it."""
    reasons: list[tuple[str, str]] = []
    threads = len(os.listdir(f"/proc/{pid}/task"))
    if threads > 1:
        reasons.append(("threads", f"{threads - 1} threads are still running"))
    if strays:
        shown = ", ".join(f"{p} ({_name(p)})" for p in strays[:5])
        reasons.append(("child_processes", f"{len(strays)} processes are still running: {shown}"))
    files, faults = _descriptors(pid, root)
    reasons += faults
    reasons += _shared_mappings(pid)
    used = memory_mb(pid)
    if used > max_mb:
        reasons.append(("memory_too_large", f"{used} MB resident; the limit is {max_mb} MB"))
    return Finding(tuple(reasons), tuple(files))


def strayed(pid: int, root: str) -> str:
    """Return what a new fork holds outside its own root, "" if there is nothing.

    Its memory is its parent's, so it may have kept a way into its parent's files.
    """
    files, faults = _descriptors(pid, root)
    held = [file.path for file in files if not file.inside] + [detail for _, detail in faults]
    where = os.readlink(f"/proc/{pid}/cwd")
    if where != root and not where.startswith(root + "/"):
        held.append(where)
    return ", ".join(held)


def memory_mb(pid: int) -> int:
    """Return the resident memory in MB."""
    return int(_read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def resident_bytes(pid: int) -> int:
    """Return what is resident and no file's: its growth is what a step has added."""
    words = _read(f"/proc/{pid}/statm").split()
    return (int(words[1]) - int(words[2])) * os.sysconf("SC_PAGE_SIZE")


def private_bytes(pid: int) -> int:
    """Return what this process alone holds: the price of keeping it parked."""
    total = 0
    try:
        text = _read(f"/proc/{pid}/smaps_rollup")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(b"Private_"):
            total += int(line.split()[1]) * 1024
    return total


def newest_pid() -> bytes:
    """Return the number that the last new process or thread of this pid namespace got."""
    return _read("/proc/loadavg").rsplit(b" ", 1)[1]


def root_of(pid: int) -> str:
    """Return the root directory of a process, "" if it has gone or lets nobody look.

    A process that nobody may look into (it runs a program that it cannot read) belongs to
    every state when strays are sought, and to none when it asks for something.
    """
    try:
        return os.readlink(f"/proc/{pid}/root")
    except OSError:
        return ""


def processes() -> list[int]:
    """Return the numbers of all processes that we can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def ancestors() -> set[int]:
    """Return our own number and those of the processes above us."""
    found: set[int] = set()
    pid = os.getpid()
    while pid:
        found.add(pid)
        pid = parent_of(pid)
    return found


def session_of(pid: int) -> int:
    """Return the session of a process, 0 if it has gone or is dead."""
    try:
        after_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if after_name[0] in (b"Z", b"X") else int(after_name[3])


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if it has gone."""
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def tasks_of(pid: int) -> int:
    """Return how many threads a process has, 0 if it has gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def is_dead(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def _descriptors(pid: int, root: str) -> tuple[list[OpenFile], list[tuple[str, str]]]:
    files: list[OpenFile] = []
    faults: list[tuple[str, str]] = []
    for number in sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd")):
        if number in _OWN:
            continue
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
        fault = _fault(link, root)
        if fault:
            faults.append((fault, f"descriptor {number} is {link}"))
        else:
            files.append(_open_file(pid, number, link, root))
    if len(files) > _MOST_FILES:
        faults.append(
            ("device", f"{len(files)} files are open; at most {_MOST_FILES} are reopened")
        )
    return files, faults


def _fault(link: str, root: str) -> str:
    """Return the kind of a descriptor that a fork cannot take along, or ""."""
    for prefix, kind in (
        ("socket:", "socket"),
        ("pipe:", "pipe"),
        ("anon_inode:", "anon_inode"),
        ("/memfd:", "deleted_open_file"),
    ):
        if link.startswith(prefix):
            return kind
    if link.endswith(" (deleted)"):
        return "deleted_open_file"
    return "" if link.startswith("/") else "device"


def _open_file(pid: int, number: int, link: str, root: str) -> OpenFile:
    facts = dict(
        line.split(":", 1) for line in _read(f"/proc/{pid}/fdinfo/{number}").decode().splitlines()
    )
    inside = link == root or link.startswith(root + "/")
    path = link[len(root) :] or "/" if inside else link
    return OpenFile(number, int(facts["flags"], 8), int(facts["pos"]), path, inside)


def _shared_mappings(pid: int) -> list[tuple[str, str]]:
    lines = _SHARED_LINE.findall(_read(f"/proc/{pid}/maps"))
    return [("shared_mapping", _told(line)) for line in lines[:3]]


def _told(line: bytes) -> str:
    """Return a mapping's rights and what it maps."""
    words = line.decode("utf-8", "replace").split(None, 5)
    return f"{words[1]} {words[5] if len(words) > 5 else 'anonymous memory'}"


def _name(pid: int) -> str:
    try:
        return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "gone"


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
