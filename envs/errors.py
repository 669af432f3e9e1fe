"""The errors of the environments; those of every other floor derive from TreegrpoError, too.

    TreegrpoError                 wrong input; the command line prints it and exits with 2
    +-- UnknownEnv                no environment of that id
    +-- UnknownOption             an option, key or name that does not exist, or a value not taken
    +-- UnknownSplit              the environment has no such split
    +-- NoEpisode                 step, snapshot or fork before reset
    +-- EpisodeOver               step after the end
    +-- SnapshotUnsupported       state that cannot be captured, with the reasons
    +-- DataFileError             a task file that cannot be read: file, line, field
    +-- LogError                  an action log that is malformed or altered
    +-- LawViolation              an environment breaks a law of the contract, with its name

    GraderFailed                  (RuntimeError) score() raised: not the agent's fault
    SandboxFailed                 (RuntimeError) a sandbox of ours failed: not the agent's fault

What an agent does wrong (a malformed call, an unknown tool, bad arguments) is never an
exception: it is an observation.
"""

from __future__ import annotations

import difflib
import sysconfig
from collections.abc import Iterable
from pathlib import Path


class TreegrpoError(ValueError):
    """Wrong input: the message says what was asked, what was found, what to do."""


class UnknownEnv(TreegrpoError):
    """No environment of that id is registered."""


class UnknownOption(TreegrpoError):
    """An option, key or name that does not exist, or a value that an option does not take."""


class UnknownSplit(TreegrpoError):
    """The environment has no such split."""


class NoEpisode(TreegrpoError):
    """The call needs an episode, and reset() was not called yet."""


class EpisodeOver(TreegrpoError):
    """The episode has ended; only reset() or restore() may follow."""


class SnapshotUnsupported(TreegrpoError):
    """State that cannot be captured; `reasons` lists each part that stands in the way."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = list(reasons)
        super().__init__(
            "Snapshot asked for, but part of the state cannot be captured: "
            + "; ".join(self.reasons)
            + ". Keep episode state in plain data under self.state, or give the class "
            "__getstate__/__setstate__ and state_facts()."
        )


class DataFileError(TreegrpoError):
    """A task file is missing, empty or malformed; names file, line and field."""


class LogError(TreegrpoError):
    """An action log is malformed, or was altered after it was written."""


class LawViolation(TreegrpoError):
    """An environment breaks a law of the contract; the message begins with the law's name."""


class GraderFailed(RuntimeError):
    """The environment's score() raised; the episode's outcome is unknown."""


class SandboxFailed(RuntimeError):
    """A sandbox failed under a tool or a grader; the episode's outcome is unknown."""


def raised_at(error: BaseException) -> str:
    """Return where an error was raised, as "file.py:9": the last line of a user's own code.

    Where only code of ours or of a library ran, it is the last line of all.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    places: list[tuple[bool, str]] = []
    trace = error.__traceback__
    while trace is not None:
        code, module = trace.tb_frame.f_code, str(trace.tb_frame.f_globals.get("__name__"))
        is_library = any(code.co_filename.startswith(folder) for folder in _LIBRARIES)
        is_users = not is_library and not is_ours(module) and not code.co_filename.startswith("<")
        places.append((is_users, f"{Path(code.co_filename).name}:{trace.tb_lineno}"))
        trace = trace.tb_next
    own = [place for is_users, place in places if is_users]
    return (own or [place for _, place in places] or ["an unknown line"])[-1]


def is_ours(module: str) -> bool:
    """Return whether a module of that name is a part of this package."""
    return module.partition(".")[0] == "treegrpo"


_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
