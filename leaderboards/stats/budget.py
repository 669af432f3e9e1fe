"""Score against budget, from one run: what part of the tasks is solved for at most b?

Every episode spent something (tool calls, sampled tokens, dollars, turns) until it ended. At
budget b

    an episode counts as solved if it succeeded and had spent at most b when it ended;
    every other episode counts as not solved: it failed, or it succeeded above b.

No episode leaves the denominator, so the curve never falls, and at the greatest cost it is the
plain score. The interval at each b is `clustered_interval`'s over tasks. What an episode that
ends above b spent counts as b in `spent`, because a run with that limit would have stopped
there.

This is the score of the recorded behaviour cut off at b. An agent that knows its budget may act
otherwise, so the curve is a lower bound for one that uses what it knows.

Source: the cost-limit charts of software benchmarks. Differences: intervals; any unit; the whole
curve from one run, with no new runs at each limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval
from treegrpo.leaderboards.stats.outcomes import UNIT, shown

MAX_POINTS = 50


@dataclass(frozen=True)
class Spent:
    """What one episode spent until it ended, and whether it succeeded; None: nobody counted."""

    cost: float | None
    success: bool


@dataclass(frozen=True)
class BudgetPoint:
    """The score at one budget; `spent` is the mean cost per episode under that limit."""

    budget: float
    score: Interval
    spent: float


def budget_curve(
    episodes: Mapping[str, Sequence[Spent]],
    *,
    budgets: Sequence[float] | None = None,
    unit: str = "cost",
    confidence: float = 0.95,
) -> list[BudgetPoint]:
    """Return the score at each budget, by rising budget.

    Args:
        episodes: task -> what each trial spent and whether it succeeded.
        budgets: where to look; by default where the curve rises, at most 50 places evenly
            spread among them, the first and the last always there.
        unit: the word for the cost in messages, such as "sampled tokens".
        confidence: in (0, 1).

    Raises:
        TreegrpoError: an episode without a count, a cost or budget that is negative or not
            finite.
        ValueError: no task, or a task without a trial.
    """
    costs = {task: [_cost(task, one, unit) for one in spent] for task, spent in episodes.items()}
    if budgets is None:
        budgets = _steps(episodes, costs)
    wrong = next((b for b in budgets if not (math.isfinite(b) and b >= 0)), None)
    if wrong is not None:
        raise TreegrpoError(
            f"The score at a budget of {wrong} {unit} asked for; a budget is a finite number "
            "from 0."
        )
    return [
        _point(episodes, costs, budget, confidence) for budget in sorted(set(map(float, budgets)))
    ]


def _point(
    episodes: Mapping[str, Sequence[Spent]],
    costs: Mapping[str, Sequence[float]],
    budget: float,
    confidence: float,
) -> BudgetPoint:
    solved = {
        task: [
            float(one.success and cost <= budget)
            for one, cost in zip(spent, costs[task], strict=True)
        ]
        for task, spent in episodes.items()
    }
    cut = [min(cost, budget) for trials in costs.values() for cost in trials]
    interval = clustered_interval(solved, bounds=UNIT, confidence=confidence)
    return BudgetPoint(budget, interval, math.fsum(cut) / len(cut))


def _steps(
    episodes: Mapping[str, Sequence[Spent]], costs: Mapping[str, Sequence[float]]
) -> list[float]:
    """Return the costs of successes, thinned; the greatest cost of all where none succeeded."""
    rising = sorted(
        {
            cost
            for task, spent in episodes.items()
            for one, cost in zip(spent, costs[task], strict=True)
            if one.success
        }
    )
    if not rising:
        return [max((cost for trials in costs.values() for cost in trials), default=0.0)]
    last = len(rising) - 1
    places = min(len(rising), MAX_POINTS)
    return [rising[round(place * last / max(1, places - 1))] for place in range(places)]


def _cost(task: str, one: Spent, unit: str) -> float:
    if one.cost is None:
        raise TreegrpoError(
            f"A budget curve in {unit} asked for, but an episode of task {shown(task)} has no "
            "count of them; unknown is not zero. Ask for another unit, or evaluate with an agent "
            "that counts."
        )
    if not (math.isfinite(one.cost) and one.cost >= 0):
        raise TreegrpoError(
            f"A budget curve in {unit} asked for, but an episode of task {shown(task)} spent "
            f"{one.cost}; a cost is a finite number from 0. Mend the record."
        )
    return float(one.cost)
