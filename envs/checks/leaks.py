"""Does an environment leave something behind? Processes, threads, open files, temporary files."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from treegrpo.envs.baselines import null_action
from treegrpo.envs.checks.result import Result
from treegrpo.envs.law_cases import Case
from treegrpo.envs.snapshot import core_of

LEAKS = "leaks"
ROUNDS = 5
_PROC = Path("/proc/self")
_SETTLE_S = 10.0
_CHILD = "child process"


def leaks(case: Case) -> Result:
    """Return whether making, playing, forking and closing environments leaves anything.

    The first rounds warm up whatever a process keeps for good; growth after them is a leak.
    """
    if not _PROC.is_dir():
        return Result(LEAKS, "not checked", "this system has no /proc to count in")
    with _own_temporary_folder() as folder:
        for _ in range(2):
            _use(case)
        before, children = _held(folder), _children()
        for _ in range(ROUNDS):
            _use(case)
        left = _settled(before, folder)
        left = _with_names(left, children)
    if left:
        shown = ", ".join(f"{count} x {what}" for what, count in sorted(left.items())[:5])
        to_do = "Let close() and the end of an episode let go of what was opened"
        return Result(LEAKS, "fails", f"after {ROUNDS} episodes were closed: {shown}. {to_do}")
    return Result(LEAKS, "holds", f"nothing left of {ROUNDS} episodes and their forks")


def _use(case: Case) -> None:
    """Play an episode and a fork of it, and close both."""
    env = case.make()
    env.reset(seed=case.seed)
    core = core_of(env)
    for action in case.actions:
        if core.episode.ended:
            break
        env.step(action)
    twin = core.fork()
    if not twin.episode.ended:
        twin.step(null_action(twin))
    twin.close()
    env.close()


def _settled(before: Counter[str], folder: Path) -> Counter[str]:
    """Return what is held beyond `before`, once processes had a moment to end."""
    deadline = time.perf_counter() + _SETTLE_S
    while True:
        gc.collect()
        left = _held(folder) - before
        if not left or time.perf_counter() > deadline:
            return left
        time.sleep(0.05)


def _with_names(left: Counter[str], before: set[int]) -> Counter[str]:
    """Return the same with the child processes that were not there before told by name.

    They are compared by count and named only here: a child of a moment ago may still bear its
    parent's name.
    """
    new = sorted(_children() - before)[: left[_CHILD]]
    others = Counter({what: count for what, count in left.items() if what != _CHILD})
    return others + Counter(f"{_CHILD} {_name(pid)}" for pid in new)


def _held(folder: Path) -> Counter[str]:
    """Return what this process holds, by what it is."""
    held = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    held[_CHILD] = len(_children())
    for link in (_PROC / "fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own, gone by now
            target = os.readlink(link)
            if target != f"/proc/{os.getpid()}/fd":
                held[f"open file {_target(target, folder)}"] += 1
    held.update(f"temporary file {_family(path)}" for path in folder.iterdir())
    return held


def _children() -> set[int]:
    """Return the ids of this process's children."""
    found: set[int] = set()
    for task in (_PROC / "task").iterdir():
        with contextlib.suppress(OSError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "that has ended"


def _target(link: str, folder: Path) -> str:
    """Return what a descriptor points at, without the numbers of sockets and pipes."""
    if link.startswith(f"{folder}/"):
        return f"in the temporary folder, {_family(Path(link))}"
    return link.partition(":[")[0]


def _family(path: Path) -> str:
    """Return a temporary file's prefix: the random part of its name says nothing."""
    return f"{path.name[:4]}..."


@contextlib.contextmanager
def _own_temporary_folder() -> Generator[Path]:
    """Let temporary files of this process and its children go to a folder of their own."""
    old = os.environ.get("TMPDIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = old[1]
            if old[0] is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = old[0]
