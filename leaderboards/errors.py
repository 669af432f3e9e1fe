"""The errors of the leaderboards floor.

    TreegrpoError
    +-- AgentUnusable    an agent that cannot act at all: a wrong key, no such model
    +-- BundleError      a bundle that cannot be written, read or trusted: file, line, field
    +-- ProviderFailed   the service behind an agent failed, which is not the agent's fault
    +-- TasksDiffer      two results that were not taken on the same tasks
    +-- StoreError       the results database cannot be opened, read or written
    |   +-- NotInStore   it was asked for a run, board, ... that it does not have
    +-- Unverified       a bundle whose replay does not give the recorded results

What an agent or an environment does wrong during an evaluation is never an exception: it is
a failure recorded with its episode.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from treegrpo.envs.errors import TreegrpoError


class AgentUnusable(TreegrpoError):
    """Raised by an agent that cannot act in any episode; the evaluation stops, to be resumed."""


class BundleError(TreegrpoError):
    """A bundle cannot be written or read; the message names file, line and field."""


class ProviderFailed(TreegrpoError):
    """Raised by an agent whose model could not be reached; its episode fails as "provider"."""


class TasksDiffer(TreegrpoError):
    """Two results were not taken on the same tasks, so they cannot be paired."""


class StoreError(TreegrpoError):
    """The results database cannot be opened, read or written."""


class NotInStore(StoreError):
    """The results database was asked for something that it does not have."""


class Unverified(TreegrpoError):
    """A bundle was refused because its replay differs from what it records."""


def first_fault(error: ValidationError | PydanticSerializationError) -> str:
    """Return the first fault of a model's data: its field and what is wrong with it."""
    if isinstance(error, PydanticSerializationError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, fault["loc"])) or "(whole)"
    more = f" ({error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
    # Names of unknown fields come from the file: cut, and free of control characters.
    return f"field {ascii(field)[1:-1][:200]}: {ascii(fault['msg'])[1:-1][:300]}{more}"
