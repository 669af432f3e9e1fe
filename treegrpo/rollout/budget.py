"""Hard budgets of one question: sampled tokens and tool calls, counted once per edge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """What the trees of one question may spend together, and what they have spent.

    None means no limit. A limit is never exceeded: a step is admitted only if its largest
    possible cost still fits, with the costs of all steps in flight reserved.
    """

    max_sampled_tokens: int | None = None
    max_tool_calls: int | None = None
    sampled_tokens: int = 0
    tool_calls: int = 0
    reserved_tokens: int = 0

    def admit(self, max_tokens: int) -> bool:
        """Return whether a step of up to `max_tokens` may be sampled, and reserve them."""
        limit = self.max_sampled_tokens
        spent = self.sampled_tokens + self.reserved_tokens
        if limit is not None and spent + max_tokens > limit:
            return False
        if self.max_tool_calls is not None and self.tool_calls >= self.max_tool_calls:
            return False
        self.reserved_tokens += max_tokens
        return True

    def settle(self, reserved: int, sampled: int) -> None:
        """Replace a reservation by what was really sampled."""
        self.reserved_tokens -= reserved
        self.sampled_tokens += sampled

    @property
    def tool_calls_left(self) -> int | None:
        """Tool calls still allowed; None without a limit."""
        return None if self.max_tool_calls is None else self.max_tool_calls - self.tool_calls
