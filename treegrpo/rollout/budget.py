"""Hard budgets: sampled tokens and tool calls, counted once per edge of the trees.

Environments answer in any order, and who is admitted must not depend on it. So a question's
steps have an order of their own, by key: first the tick (how many steps had to come before),
then tree and branch. A step is admitted exactly if it would be, were the steps taken one after
the other in that order, each with its largest possible cost. Mostly that is plain at once,
because what is left covers every step that may still come before it; near the limit a step
waits until none can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Key: TypeAlias = tuple[int, int, tuple[int, ...]]
"""(tick, tree, branch) of a step."""


@dataclass
class Budget:
    """What the trees of one question may spend, and what has been; None means no limit.

    `before` in the calls below is how many steps with a smaller key may still be open: steps in
    flight, and those that may yet come.
    """

    max_sampled_tokens: int | None = None
    max_tool_calls: int | None = None
    step_tokens: int = 1
    """Most tokens of one step."""
    step_calls: int = 1
    """Most tool calls of one step."""
    _tokens: dict[Key, int] = field(default_factory=dict[Key, int])
    _calls: dict[Key, int] = field(default_factory=dict[Key, int])

    def admits(self, key: Key, before: float) -> bool | None:
        """Return whether the step may be sampled; None while that is open."""
        verdicts = [
            _verdict(self._tokens, key, before, self.step_tokens, self.max_sampled_tokens, 0),
            # A step without any call left could still answer, but not act: it is not begun.
            _verdict(self._calls, key, before, self.step_calls, self.max_tool_calls, 1),
        ]
        if False in verdicts:
            return False
        return None if None in verdicts else True

    def calls_left(self, key: Key, before: float) -> int | None:
        """Return the calls that the step may make; None while that is open.

        Without a limit, or far from it, that is all that a step can make.
        """
        limit = self.max_tool_calls
        if limit is None:
            return self.step_calls
        if sum(self._calls.values()) + self.step_calls * (before + 1) <= limit:
            return self.step_calls
        if before:
            return None
        return min(self.step_calls, max(0, limit - _spent_before(self._calls, key)))

    def settle_tokens(self, key: Key, tokens: int) -> None:
        """Note what the step sampled."""
        self._tokens[key] = tokens

    def settle_calls(self, key: Key, calls: int) -> None:
        """Note the calls the step made."""
        self._calls[key] = calls

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.max_sampled_tokens is not None or self.max_tool_calls is not None


def shares(limit: int | None, count: int, least: int) -> list[int | None]:
    """Return a limit divided among `count` questions, in equal parts decided beforehand.

    Whoever finishes first then takes nothing from the others. Where the parts would be smaller
    than `least`, the first questions get as much and the rest nothing.
    """
    if limit is None:
        return [None] * count
    served = min(count, limit // max(1, least))
    part, more = divmod(limit, served) if served else (0, 0)
    return [part + (number < more) if number < served else 0 for number in range(count)]


def _verdict(
    spent: dict[Key, int], key: Key, before: float, step: int, limit: int | None, least: int
) -> bool | None:
    """Return whether a step of cost `step` fits; `least` instead of `step` where it is capped."""
    if limit is None or sum(spent.values()) + step * (before + 1) <= limit:
        return True
    if before:
        return None
    return _spent_before(spent, key) + (least or step) <= limit


def _spent_before(spent: dict[Key, int], key: Key) -> int:
    return sum(cost for other, cost in spent.items() if other < key)
