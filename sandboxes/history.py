"""What was done to reach a state: the actions, their outcomes, and one hash over all.

A state can be thrown away and come back: its history is replayed from the nearest ancestor
that still lives, and every outcome is compared with the recorded one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from treegrpo.sandboxes.base import Result, SandboxSpec
from treegrpo.sandboxes.guest.wire import fields

ActionKind = Literal["code", "argv", "write", "remove", "branch"]


@dataclass(frozen=True)
class Action:
    """One thing that changed a state.

    `payload` is the code, the argv (joined by `wire.fields`), the file's data, or a branch's
    seed; `path` belongs to write and remove; `stdin` and `timeout_s` to code and argv.
    """

    kind: ActionKind
    payload: bytes = b""
    path: str = ""
    stdin: bytes = b""
    timeout_s: float = 0.0

    def digest(self) -> bytes:
        """Return a hash of what was asked; the timeout is no part of it."""
        parts = (self.kind.encode(), self.payload, self.path.encode(), self.stdin)
        return hashlib.sha256(fields(*parts)).digest()


def outcome_digest(result: Result) -> bytes:
    """Return a hash of what the code could be seen to do; times are no part of it."""
    texts = (result.kind, result.value, result.exception, result.traceback)
    numbers = (result.exit_code, result.signal)
    return hashlib.sha256(
        fields(result.stdout, result.stderr, repr((texts, numbers)).encode())
    ).digest()


@dataclass(frozen=True, eq=False)
class History:
    """A linked list from a state back to the tree's start."""

    parent: History | None
    action: Action | None
    outcome: bytes  # outcome_digest, b"" where the action has no result
    hash: bytes

    @staticmethod
    def start(spec: SandboxSpec) -> History:
        """Return the history of a tree in which nothing has happened."""
        facts = (spec.zygote, spec.limits.model_dump_json(), spec.rng, spec.seed)
        return History(None, None, b"", hashlib.sha256(repr(facts).encode()).digest())

    def then(self, action: Action, outcome: bytes = b"") -> History:
        """Return the history one action longer."""
        joined = hashlib.sha256(fields(self.hash, action.digest(), outcome)).digest()
        return History(self, action, outcome, joined)

    def back(self) -> Iterator[History]:
        """Yield this and every earlier history, newest first."""
        at: History | None = self
        while at is not None:
            yield at
            at = at.parent

    def actions(self) -> tuple[Action, ...]:
        """Return the actions, oldest first."""
        found = [h.action for h in self.back() if h.action is not None]
        return tuple(reversed(found))
