"""How rollouts are grown: what the scheduler is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from treegrpo.config import RolloutOptions


@dataclass(frozen=True)
class RolloutSettings:
    """The shape of the trees and the limits of an episode; see TrainConfig for each field."""

    trunks: int
    forks: int
    rounds: int
    noise: str
    temperature: float
    max_action_tokens: int
    max_context_tokens: int
    max_sampled_tokens_per_question: int | None = None
    max_tool_calls_per_question: int | None = None
    rollout_options: RolloutOptions = field(default_factory=RolloutOptions)
