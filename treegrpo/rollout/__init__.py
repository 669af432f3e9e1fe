"""Growing rollout trees: which nodes are forked, what may be spent, and the loop itself."""

from treegrpo.rollout.budget import Budget
from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.expansion import random_forks
from treegrpo.rollout.scheduler import Grown, Question, RolloutSettings, Scheduler

__all__ = [
    "Budget",
    "EnvironmentPool",
    "Grown",
    "Question",
    "RolloutSettings",
    "Scheduler",
    "random_forks",
]
