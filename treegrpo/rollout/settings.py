"""How rollouts are grown: the settings of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass


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
    environment_threads: int = 8
    episode_timeout_s: float | None = None
    max_live: int = 512
    barriers: bool = False
