"""The scripted agents of every environment: oracle (the ceiling), null and random (the floors).

Each takes an environment with a running episode and gives its next action text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.snapshot import core_of

REFUSAL = "I cannot help with that."
Policy = Callable[[ToolEnv], str]


def oracle_action(env: ToolEnv) -> str:
    """Return the scripted expert's next action.

    Raises:
        NotImplementedError: the environment ships no oracle.
    """
    return env.oracle()


def null_action(env: ToolEnv) -> str:
    """Return a plain refusal: no tool call, no answer."""
    return REFUSAL


def random_action(env: ToolEnv, rng: np.random.Generator) -> str:
    """Return a random action drawn from `rng`: mostly a tool call, at times junk."""
    return env.sample_action(rng)[: env.max_action_chars]


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went; `actions` are the texts as given."""

    task_id: str
    difficulty: int
    episode_return: float
    success: bool
    end_reason: str | None
    tool_calls: int
    actions: tuple[str, ...]


def run_episode(
    env: gymnasium.Env[str, str],
    policy: Policy,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> EpisodeResult:
    """Return the result of one episode, from reset to its end.

    Args:
        env: wrapped or bare; the policy sees the bare environment.
        policy: the next action for the episode as it stands.
        seed: goes to reset().
        options: go to reset().
    """
    core = core_of(env)
    _, info = env.reset(seed=seed, options=options)
    actions: list[str] = []
    total, ended = 0.0, False
    while not ended:
        actions.append(policy(core))
        _, reward, terminated, truncated, info = env.step(actions[-1])
        total += float(reward)
        ended = terminated or truncated
    return EpisodeResult(
        task_id=str(info["task_id"]),
        difficulty=int(info["difficulty"]),
        episode_return=total,
        success=bool(info["success"]),
        end_reason=info["end_reason"],
        tool_calls=int(info["tool_calls"]),
        actions=tuple(actions),
    )
