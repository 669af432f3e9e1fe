"""The scripted expert: looks first, then does what is asked, then submits.

It goes on from any state, wherever the shell stands: a goal that a detour has undone is reached
anew, a few times at most. A file that was lost for good it does not bring back.
"""

from __future__ import annotations

from collections.abc import Mapping

from treegrpo.envs.suite.terminal.disk import Disk
from treegrpo.envs.suite.terminal.goals import Goal

MAX_TRIES = 3


def next_command(goals: tuple[Goal, ...], disk: Disk, said: Mapping[str, int]) -> str | None:
    """Return the expert's next command, None when it is time to submit.

    Args:
        goals: of the task.
        disk: as it stands; only read.
        said: how often each command was given so far.
    """
    for goal in goals:
        for look in goal.looks:
            if not said.get(look):
                return look
        if goal.is_reached(disk):
            continue
        tried = sum(said.get(command, 0) for command in goal.does)
        if tried < MAX_TRIES * len(goal.does):
            return goal.does[tried % len(goal.does)]
    return None
