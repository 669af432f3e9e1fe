"""The scripted expert: keeps one note per person up to date, reads them, answers.

What it writes follows from the messages shown so far; what it answers stands in its notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treegrpo.envs.suite.notes.tasks import Script

Call = tuple[str, dict[str, Any]]


def next_call(
    script: Script, shown: int, notes: Sequence[str], answer: str, *, has_read: bool
) -> Call:
    """Return the expert's next tool and arguments.

    Args:
        script: of the task.
        shown: how many messages were shown, the question included.
        notes: as they stand.
        answer: the right one.
        has_read: whether the last thing the agent did was to read its notes.

    From any state it mends the notes first, so it goes on from other agents' episodes, too.
    """
    count = len(script.messages)
    if script.notes:
        wanted = script.notes[min(shown, count)]
        for slot, (now, text) in enumerate(zip(notes, wanted, strict=True), 1):
            if now != text:
                return "write_note", {"slot": slot, "text": text}
    if shown <= count:
        return "next", {}
    return ("answer", {"text": answer}) if has_read else ("read_notes", {})
