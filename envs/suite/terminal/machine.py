"""The state of an episode: a disk, a working directory, variables; and what commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from treegrpo.envs.suite.terminal.disk import (
    CommandError,
    Disk,
    Entry,
    File,
    Folder,
    resolved,
)

HOME = "/home/agent"
MAX_WORK = 100_000_000
"""The most that one line of shell may come to, in steps of a matcher: under a second or two."""
CHANGE_WORK = 20_000
READ_WORK = 20
"""Of a character that a command reads."""
MAX_OUTPUT = 131_072
"""The most characters that one command may print."""
NULL = "/dev/null"


@dataclass
class Machine:
    """What the agent's commands change. The disk is shared by copies: it never changes itself."""

    disk: Disk
    cwd: str = HOME
    variables: dict[str, str] = field(default_factory=dict[str, str])
    status: int = 0
    clock: int = 0
    submission: str | None = None
    work: int = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Machine:
        variables = dict(self.variables)
        return replace(self, variables=variables)

    def spend(self, work: int) -> None:
        """Count work of the line that is run.

        Raises:
            CommandError: it comes to too much.
        """
        self.work += work
        if self.work > MAX_WORK:
            raise CommandError("this takes too long here; ask for less at once", 2)

    def change(self, changes: Mapping[str, Entry | None]) -> None:
        """Set entries of the disk, or remove them where None.

        Raises:
            CommandError: as Disk.changed(), or too many changes for one line.
        """
        self.spend(CHANGE_WORK)
        self.disk = self.disk.changed(changes)

    def path(self, text: str) -> str:
        """Return the absolute path that a text means here."""
        return resolved(self.cwd, text)

    def entry(self, text: str) -> Entry:
        """Return what is at a path.

        Raises:
            CommandError: nothing is.
        """
        entry = self.disk.get(self.path(text)) if text else None
        if entry is None:
            raise CommandError(f"{text}: No such file or directory")
        if text.endswith("/") and isinstance(entry, File):
            raise CommandError(f"{text}: Not a directory")
        return entry

    def read(self, text: str) -> str:
        """Return the text of a file.

        Raises:
            CommandError: it is missing, a folder, or may not be read.
        """
        if self.path(text) == NULL:
            return ""
        entry = self.entry(text)
        if not isinstance(entry, File):
            raise CommandError(f"{text}: Is a directory")
        if not entry.mode & 0o400:
            raise CommandError(f"{text}: Permission denied")
        self.spend(READ_WORK * len(entry.text))
        return entry.text

    def write(self, text: str, content: str, *, is_appended: bool = False) -> None:
        """Set or extend the text of a file; a new one is made.

        Raises:
            CommandError: a folder, no permission, no folder to hold it, no space.
        """
        path = self.path(text)
        if path == NULL:
            return
        entry = self.disk.get(path)
        if isinstance(entry, File):
            if not entry.mode & 0o200:
                raise CommandError(f"{text}: Permission denied")
            before = entry.text if is_appended else ""
            changed = File(before + content, entry.mode, self.clock)
        elif entry is not None or text.endswith("/"):
            raise CommandError(f"{text}: Is a directory")
        elif not text:
            raise CommandError(f"{text}: No such file or directory")
        else:
            changed = File(content, mtime=self.clock)
        self.change({path: changed})

    def require_folder(self, text: str) -> str:
        """Return the path of a folder.

        Raises:
            CommandError: there is none.
        """
        if not isinstance(self.entry(text), Folder) and not self.disk.is_folder(self.path(text)):
            raise CommandError(f"{text}: Not a directory")
        return self.path(text)


@dataclass(frozen=True)
class Output:
    """What a command printed, and its exit code."""

    out: str = ""
    err: str = ""
    code: int = 0


Program = Callable[[Machine, list[str], str], Output]
"""A command: the machine it may change, the words after its name, what it reads from a pipe."""


@dataclass(frozen=True)
class Options:
    """The words of a command taken apart."""

    flags: frozenset[str]
    values: dict[str, str]
    operands: list[str]

    def __contains__(self, flag: str) -> bool:
        """Return whether a flag was given."""
        return flag in self.flags

    def number(self, name: str, default: int) -> int:
        """Return the whole number given with an option.

        Raises:
            CommandError: it is no number.
        """
        return to_number(self.values[name]) if name in self.values else default


def options(args: list[str], flags: str, valued: str = "") -> Options:
    """Return options of one letter and operands, in any order, as GNU commands take them.

    Raises:
        CommandError: an option that the command does not have, or one without its value.
    """
    found: set[str] = set()
    values: dict[str, str] = {}
    operands: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--":
            operands += left
        elif arg.startswith("--"):
            raise CommandError(f"unrecognized option '{arg[:40]}'", 2)
        elif len(arg) < 2 or arg[0] != "-":
            operands.append(arg)
        else:
            for at, letter in enumerate(arg[1:], 2):
                if letter in valued:
                    value = arg[at:] or next(left, None)
                    if value is None:
                        raise CommandError(f"option requires an argument -- '{letter}'", 2)
                    if letter in values:
                        raise CommandError(f"option '-{letter}' is supported once only", 2)
                    values[letter] = value
                    break
                if letter not in flags:
                    raise CommandError(f"invalid option -- '{letter}'", 2)
                found.add(letter)
    return Options(frozenset(found), values, operands)


def to_number(text: str) -> int:
    """Return a whole number of at most nine digits.

    Raises:
        CommandError: the text is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise CommandError(f"invalid number: '{text[:40]}'")
    return int(text)


def need(operands: list[str], least: int, most: int | None = None) -> list[str]:
    """Return the operands.

    Raises:
        CommandError: too few or too many.
    """
    if len(operands) < least:
        after = f" after '{operands[-1][:60]}'" if operands else ""
        raise CommandError(f"missing operand{after}")
    if most is not None and len(operands) > most:
        raise CommandError(f"extra operand '{operands[most][:60]}'")
    return operands


def each(name: str, items: Iterable[str], work: Callable[[str], str]) -> Output:
    """Return what the work printed for every item; one that fails does not stop the others."""
    out: list[str] = []
    err: list[str] = []
    code = size = 0
    for item in items:
        try:
            out.append(work(item))
            size += len(out[-1])
            if size > MAX_OUTPUT:
                raise CommandError(f"output cut, it is longer than {MAX_OUTPUT} characters")
        except CommandError as error:
            err.append(f"{name}: {error.text}\n")
            code = error.code
            if size > MAX_OUTPUT:
                break
    return Output("".join(out), "".join(err), code)


def lines_of(text: str) -> list[str]:
    """Return the lines without their ends; a last line needs no end."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def text_of(lines: Iterable[str]) -> str:
    """Return lines as a text in which every line ends."""
    return "".join(f"{line}\n" for line in lines)
