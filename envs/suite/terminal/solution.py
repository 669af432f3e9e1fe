"""The scripted expert for task folders: writes the solution down in pieces, runs it, submits.

All of it are lines of shell that any agent could give; nothing of the solution is in the
sandbox before.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.suite.terminal.folder_tasks import Job
from treegrpo.envs.suite.terminal.places import SOLUTION, rewritten_file

DESK = f"/tmp{SOLUTION}"
"""Where the expert writes the solution's files."""
MAX_PIECE = 3_000
"""Characters of a file in one line of shell; spelled as an action they may take twice that."""


def lines_of(job: Job, name: str) -> list[str]:
    """Return the lines of shell that solve a task, in order.

    Raises:
        TreegrpoError: the task has no solution.
    """
    if "solve.sh" not in job.solution.contents:
        raise TreegrpoError(
            f"An oracle for task '{name}' asked for; it has no solution/solve.sh. Add one, or "
            "evaluate another agent."
        )
    names = {**job.names, SOLUTION: DESK}
    lines: list[str] = []
    for path, data in sorted(job.solution.contents.items()):
        lines += _writing(f"{DESK}/{path}", rewritten_file(data, names))
    runnable = [f"{DESK}/{path}" for path in sorted({*job.solution.runnable, "solve.sh"})]
    return [
        *lines,
        f"chmod +x {shlex.join(runnable)} && cd {shlex.quote(job.root)} && {DESK}/solve.sh",
    ]


def _writing(path: str, data: bytes) -> Iterator[str]:
    """Yield the lines that write a file: as it reads where it is plain text, else in base64."""
    folder, target = shlex.quote(str(PurePosixPath(path).parent)), shlex.quote(path)
    text = _plain(data)
    body = base64.encodebytes(data).decode() if text is None else text
    end = next(word for word in _endings() if word not in body)
    filter_words = "base64 -d" if text is None else "cat"
    for number, piece in enumerate(_pieces(body)):
        into = ">>" if number else ">"
        first = "" if number else f"mkdir -p {folder}\n"
        yield f"{first}{filter_words} {into} {target} <<'{end}'\n{piece}{end}"


def _plain(data: bytes) -> str | None:
    """Return the text of a file that a line of shell can hold as it is: short printable lines."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    is_plain = lines[-1] == "" and all(line.replace("\t", "").isprintable() for line in lines)
    return text if is_plain and max(map(len, lines)) < MAX_PIECE else None


def _pieces(body: str) -> Iterator[str]:
    """Yield whole lines, at most MAX_PIECE characters at a time; at least one piece."""
    piece = ""
    for line in body.splitlines(keepends=True):
        if piece and len(piece) + len(line) > MAX_PIECE:
            yield piece
            piece = ""
        piece += line
    yield piece


def _endings() -> Iterator[str]:
    yield "END"
    number = 0
    while True:
        number += 1
        yield f"END{number}"
