"""The best policy of an environment that states its transitions, by value iteration.

Gymnasium's FrozenLake, Taxi and CliffWalking carry `P`: state -> action -> list of
(probability, next state, reward, done). Time is weighed lightly, so that of two sure ways the
shorter one is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_DISCOUNT = 0.999
_PRECISION = 1e-9
_MAX_SWEEPS = 5_000


def best_actions(transitions: Any) -> list[int]:
    """Return the best action of each state; of equal ones the first."""
    num_states, num_actions = len(transitions), len(transitions[0])
    chance_SAS = np.zeros((num_states, num_actions, num_states))
    reward_SA = np.zeros((num_states, num_actions))
    for state in range(num_states):
        for action in range(num_actions):
            for chance, after, reward, done in transitions[state][action]:
                reward_SA[state, action] += chance * reward
                if not done:
                    chance_SAS[state, action, int(after)] += chance
    value_S = np.zeros(num_states)
    value_SA = reward_SA
    for _ in range(_MAX_SWEEPS):
        value_SA = reward_SA + _DISCOUNT * (chance_SAS @ value_S)
        best_S = value_SA.max(axis=1)
        if np.abs(best_S - value_S).max() < _PRECISION:
            break
        value_S = best_S
    # Rounding makes equal values differ in their last digits.
    return [int(np.argmax(np.round(row, 7))) for row in value_SA]
