"""Every tree begins at its question's reset."""

from __future__ import annotations

from treegrpo.rollout.starts.base import StartState, start_state


@start_state("reset")
class Reset(StartState):
    """The default; nothing is moved and nothing learned."""
