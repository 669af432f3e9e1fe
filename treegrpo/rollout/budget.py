"""Hard budgets: sampled tokens and tool calls, counted once per edge of the trees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """What may be spent, and what has been; None means no limit.

    A limit is never exceeded: a step is admitted only if its largest possible cost still fits
    beside what is spent and what the steps in flight have reserved. `within` is a larger budget
    (the run's) that everything spent here counts against too.
    """

    max_sampled_tokens: int | None = None
    max_tool_calls: int | None = None
    within: Budget | None = None
    sampled_tokens: int = 0
    tool_calls: int = 0
    reserved_tokens: int = 0

    def admit(self, max_tokens: int) -> bool:
        """Return whether a step of up to `max_tokens` may be sampled now, and reserve them."""
        if self.is_spent(max_tokens) or not self._has_room(self.reserved_tokens + max_tokens):
            return False
        if self.within is not None and not self.within.admit(max_tokens):
            return False
        self.reserved_tokens += max_tokens
        return True

    def is_spent(self, max_tokens: int) -> bool:
        """Return whether such a step can never be admitted again, whatever is in flight."""
        if self.within is not None and self.within.is_spent(max_tokens):
            return True
        left = self.tool_calls_left
        return not self._has_room(max_tokens) or (left is not None and left <= 0)

    def settle(self, reserved: int, sampled: int) -> None:
        """Replace a reservation by what was really sampled."""
        self.reserved_tokens -= reserved
        self.sampled_tokens += sampled
        if self.within is not None:
            self.within.settle(reserved, sampled)

    def count_tool_calls(self, calls: int) -> None:
        """Count calls that were made."""
        self.tool_calls += calls
        if self.within is not None:
            self.within.count_tool_calls(calls)

    @property
    def tool_calls_left(self) -> int | None:
        """Tool calls still allowed; None without a limit."""
        own = None if self.max_tool_calls is None else self.max_tool_calls - self.tool_calls
        outer = None if self.within is None else self.within.tool_calls_left
        return min((left for left in (own, outer) if left is not None), default=None)

    def _has_room(self, tokens: int) -> bool:
        limit = self.max_sampled_tokens
        return limit is None or self.sampled_tokens + tokens <= limit
