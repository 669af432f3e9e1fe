"""The errors of the leaderboards floor.

    TreegrpoError
    +-- BundleError      a bundle that cannot be written, read or trusted: file, line, field
    +-- TasksDiffer      two results that were not taken on the same tasks
    +-- StoreError       the results database cannot be opened, read or written
    +-- Unverified       a bundle whose replay does not give the recorded results

What an agent or an environment does wrong during an evaluation is never an exception: it is
a failure recorded with its episode.
"""

from __future__ import annotations

from treegrpo.envs.errors import TreegrpoError


class BundleError(TreegrpoError):
    """A bundle cannot be written or read; the message names file, line and field."""


class TasksDiffer(TreegrpoError):
    """Two results were not taken on the same tasks, so they cannot be paired."""


class StoreError(TreegrpoError):
    """The results database cannot be opened, read or written."""


class Unverified(TreegrpoError):
    """A bundle was refused because its replay differs from what it records."""
