"""Where a task's absolute paths lie in a sandbox: /app is /workspace/app there, in every text.

A sandbox has two places that can be written, /workspace and /tmp. Folders that a task is
written for get a place below /workspace, and texts that name them are rewritten to match. A
name counts as a whole only: with /app renamed, /app/x and "/app" are, /apple, ./app and
lib/app are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from treegrpo.envs.suite.terminal.real import PLACE

SYSTEM = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys"}
    | {"usr", "var"}
)
"""The machine's own folders, which a sandbox has read-only or not at all."""
LOGS, TESTS, SOLUTION = "/logs", "/tests", "/solution"
VERDICT = f"{LOGS}/verifier"
"""Where a task's tests leave the reward."""
_AS_THEY_ARE = ("tmp", PLACE[1:])


def top_of(path: str) -> str:
    """Return the first name of an absolute path, "" for the root."""
    return path.split("/")[1]


def renaming(paths: Iterable[str]) -> dict[str, str]:
    """Return the new name of each first folder of some absolute paths, and of /logs."""
    tops = {top_of(path) for path in paths} - {"", *_AS_THEY_ARE}
    return {LOGS: PLACE + LOGS} | {f"/{top}": f"{PLACE}/{top}" for top in sorted(tops)}


def placed(path: str, names: Mapping[str, str]) -> str:
    """Return where an absolute path lies in the sandbox; the root is the workspace."""
    if path == "/":
        return PLACE
    old = f"/{top_of(path)}"
    return names.get(old, old) + path[len(old) :]


def rewritten(text: str, names: Mapping[str, str]) -> str:
    """Return a text with every renamed path in it as it is in the sandbox."""
    return _pattern(names).sub(lambda found: names[found[0]], text)


def rewritten_file(data: bytes, names: Mapping[str, str]) -> bytes:
    """Return a file with its paths rewritten if it is a text, else as it is."""
    text = _text(data)
    return data if text is None else rewritten(text, names).encode()


def path_in_binary(data: bytes, names: Mapping[str, str]) -> str | None:
    """Return a renamed path that a file names and that cannot be rewritten, as it is no text."""
    if _text(data) is not None:
        return None
    found = _pattern(names, re.ASCII).search(data.decode("latin-1"))
    return None if found is None else found[0]


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _pattern(names: Mapping[str, str], flags: int = 0) -> re.Pattern[str]:
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    any_of = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w.~$)}}*/-])(?:{any_of})(?![\w-])(?!\.\w)", flags)
