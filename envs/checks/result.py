"""What one check found, and the episode that shows a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["holds", "fails", "not checked", "measured"]


@dataclass(frozen=True)
class Counterexample:
    """An episode that shows a fault: reset(seed, options), then the actions, one by one.

    `minimal` says whether leaving out any one action was tried, and hides the fault.
    """

    seed: int
    actions: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    minimal: bool = False


@dataclass(frozen=True)
class Result:
    """One check: its name, how it came out, what was found, and the episode that shows it."""

    name: str
    outcome: Outcome
    found: str
    shown_by: Counterexample | None = None


def attempt(done: int, wanted: int, seconds: float, what: str) -> str:
    """Return "200 episodes", or how many of them the time allowed."""
    return f"{wanted} {what}" if done == wanted else f"{done} of {wanted} {what} in {seconds:g} s"
