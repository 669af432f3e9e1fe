"""The three splits of the versions with levels, decided by what a task asks."""

from __future__ import annotations

from treegrpo.envs.digest import digest
from treegrpo.envs.tasks import NUM_TASKS

SPLITS = tuple(NUM_TASKS)
# The first quarter goes to "test", as in version 0: no test task of one version is a training
# task of the other.
_QUARTERS = ("test", "validation", "train", "train")


def split_of_content(content: str) -> str:
    """Return the only split that a task of this content can be in."""
    return _QUARTERS[int(digest(content)[:8], 16) % len(_QUARTERS)]
