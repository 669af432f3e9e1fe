"""A real shell in a sandbox: a task's files put there, lines run there, files read back.

The workspace of the sandbox is the folder that holds the projects. Nothing of the sandbox is
believed: what is read back is bounded, and only regular files count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from treegrpo.envs.sandboxed import SandboxState, ours
from treegrpo.envs.suite.terminal.disk import (
    MAX_FILE_BYTES,
    Disk,
    Entry,
    File,
    Folder,
    Repo,
    disk_of,
    name_of,
    parent_of,
)
from treegrpo.envs.suite.terminal.goals import Goal
from treegrpo.envs.tasks import Task
from treegrpo.sandboxes import FileRefused, Result, Sandbox

PLACE = "/workspace"
"""Where a sandbox keeps its files; the projects, which are drawn for /srv, stand there."""
_DRAWN_FOR = "/srv/"
_MARK = b"\x00cwd\x00"
_LINE = (
    'cd -- "$1" 2>/dev/null || cd ' + PLACE + "; "
    'trap \'printf "\\\\000cwd\\\\000%s" "$(pwd)"\' EXIT; '
    "help() { echo 'POSIX sh, with the commands in /bin and /usr/bin.'; }; "
    'eval "$2"'
)


@dataclasses.dataclass
class ShellState(SandboxState):
    """An episode's sandbox, the folder its shell stands in, and what was submitted."""

    cwd: str = PLACE

    def __deepcopy__(self, memo: dict[int, Any]) -> ShellState:
        copied = super().__deepcopy__(memo)
        return ShellState(copied.sandbox, copied.submission, self.cwd)

    def state_facts(self) -> dict[str, Any]:
        """Return what the state hash covers."""
        return {**super().state_facts(), "cwd": self.cwd}


def relocated(task: Task) -> Task:
    """Return a task without a history, as it reads when its project stands in the workspace."""
    disk: Disk = task.data["disk"]
    files = {_there(path): _there(text) for path, text in disk.files().items()}
    goals = tuple(_goal_there(goal) for goal in task.data["goals"])
    data = {"disk": disk_of(files), "goals": goals, "root": _there(task.data["root"])}
    answer = None if task.answer is None else _there(str(task.answer))
    return dataclasses.replace(task, question=_there(task.question), answer=answer, data=data)


def has_history(task: Task) -> bool:
    """Return whether a task needs git, which a sandbox may not have."""
    disk: Disk = task.data["disk"]
    return any(isinstance(entry, Repo) for entry in disk.entries.values())


def _there(text: str) -> str:
    return text.replace(_DRAWN_FOR, f"{PLACE}/")


def _goal_there(goal: Goal) -> Goal:
    return Goal(
        _there(goal.ask),
        tuple(_there(look) for look in goal.looks),
        tuple(_there(do) for do in goal.does),
        tuple((_there(p), None if t is None else _there(t)) for p, t in goal.wanted),
        None if goal.answer is None else _there(goal.answer),
    )


def furnish(sandbox: Sandbox, disk: Disk) -> None:
    """Write a task's files into a fresh sandbox.

    Raises:
        SandboxFailed: the sandbox failed.
    """
    with ours():
        for path, text in sorted(disk.files().items()):
            sandbox.write(path, text.encode("ascii"))


def words_of(command: str, cwd: str) -> list[str]:
    """Return the words that run a line of shell in a folder; it ends with the folder it is in."""
    return ["/bin/sh", "-c", _LINE, "sh", cwd, command]


def told_apart(result: Result, cwd: str) -> tuple[Result, str]:
    """Return what a line printed, and the folder it ended in.

    The folder is `cwd` where the line did not say: it was stopped, replaced its shell or its
    trap, or printed more than is kept.
    """
    out, mark, where = result.stdout.rpartition(_MARK)
    if not mark:
        return result, cwd
    folder = where.decode("utf-8", "replace")
    is_path = folder.startswith("/") and len(folder) <= 1_000 and folder.isprintable()
    return dataclasses.replace(result, stdout=out), folder if is_path else cwd


def disk_in(sandbox: Sandbox, task: Task) -> Disk:
    """Return the entries of a task as they stand in a sandbox: its files and those wanted.

    What is there but is no regular text file of at most 64 KiB that can be read, is a Folder:
    equal to no text, and not gone.

    Raises:
        SandboxFailed: the sandbox failed.
    """
    start: Disk = task.data["disk"]
    paths = {*start.entries, *(path for goal in task.data["goals"] for path, _ in goal.wanted)}
    found: dict[str, Entry] = {"/": Folder(), PLACE: Folder()}
    listed: dict[str, Mapping[str, str]] = {}
    with ours():
        for path in sorted(paths - found.keys()):
            above = parent_of(path)
            if above not in listed:
                listed[above] = _kinds(sandbox, above)
            kind = listed[above].get(name_of(path))
            if kind is not None:
                found[path] = _file(sandbox, path) if kind == "file" else Folder()
    return Disk(found)


def _kinds(sandbox: Sandbox, folder: str) -> Mapping[str, str]:
    try:
        return {entry.name: entry.kind for entry in sandbox.list(folder)}
    except FileRefused:
        return {}


def _file(sandbox: Sandbox, path: str) -> Entry:
    try:
        return File(sandbox.read(path, max_bytes=MAX_FILE_BYTES).decode("utf-8"))
    except (FileRefused, UnicodeDecodeError):
        return Folder()
