"""Growing rollout trees: which nodes are forked, what may be spent, and the loop itself."""

from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.grown import Grown, Status
from treegrpo.rollout.growth import Question
from treegrpo.rollout.scheduler import Scheduler
from treegrpo.rollout.settings import RolloutSettings

__all__ = [
    "EnvironmentPool",
    "Grown",
    "Question",
    "RolloutSettings",
    "Scheduler",
    "Status",
]
