from __future__ import annotations

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from tests.unit.envs.toys import Sum
from treegrpo.envs import ToolEnv
from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode


def test_the_oracle_solves_and_the_null_agent_does_not() -> None:
    result = run_episode(Sum(), oracle_action, seed=1, options={"split": "test", "index": 3})
    assert (result.episode_return, result.success, result.end_reason) == (1.0, True, "answered")
    assert (result.difficulty, result.tool_calls, len(result.actions)) == (2, 2, 2)
    result = run_episode(Sum(), null_action, seed=1)
    assert (result.episode_return, result.success, result.end_reason) == (0.0, False, "turn_limit")
    assert (result.tool_calls, len(result.actions)) == (0, 8)


def test_a_wrapped_environment_ends_when_its_wrapper_says_so() -> None:
    result = run_episode(TimeLimit(Sum(), max_episode_steps=3), null_action, seed=1)
    assert len(result.actions) == 3 and result.end_reason is None


def test_the_random_agent_is_seeded_and_within_the_space() -> None:
    rng = np.random.default_rng(0)

    def policy(env: ToolEnv) -> str:
        text = random_action(env, rng)
        assert text in env.action_space
        return text

    results = [run_episode(Sum(), policy, seed=seed).actions for seed in range(5)]
    rng = np.random.default_rng(0)
    assert results == [run_episode(Sum(), policy, seed=seed).actions for seed in range(5)]
    numbers = [a for actions in results for a in actions if '"number": ' in a]
    assert numbers and not any('"number": "' in action for action in numbers)


def test_an_environment_without_an_oracle_says_so() -> None:
    class Silent(Sum):
        oracle = ToolEnv.oracle

    with pytest.raises(NotImplementedError, match="Silent ships no oracle"):
        run_episode(Silent(), oracle_action, seed=0)
