"""A sandbox's portable form: its history, replayed and verified on first opening.

Pickled sandboxes travel between one's own processes only, as every pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treegrpo.sandboxes.base import SandboxSpec
from treegrpo.sandboxes.history import Action, History
from treegrpo.sandboxes.tree import State, drive

if TYPE_CHECKING:
    from treegrpo.sandboxes.sandbox import Sandbox


def steps_of(history: History) -> tuple[tuple[Action, bytes], ...]:
    """Return actions with their outcomes, oldest first."""
    pairs = [(h.action, h.outcome) for h in history.back() if h.action is not None]
    return tuple(reversed(pairs))


def revive(
    backend: str,
    options: Mapping[str, Any],
    spec: str,
    steps: tuple[tuple[Action, bytes], ...],
) -> Sandbox:
    """Return the sandbox of a portable form; its code runs again, and is compared.

    Raises:
        ReplayDiverged: it did something else this time.
    """
    from treegrpo.sandboxes.backend import shared_backend

    opened = shared_backend(backend, **options)
    sandbox = opened.create(SandboxSpec.model_validate_json(spec))
    tree = sandbox.tree
    history = tree.seed.history
    for action, outcome in steps:
        history = history.then(action, outcome)
    if steps:
        number = drive(tree.replay(history))
        revived = opened.handle(tree, State(history, number))
        sandbox.close()
        return revived
    return sandbox
