"""Budget curves: what counts when an episode ends above the budget, by hand."""

from __future__ import annotations

import math

import pytest

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.stats.budget import MAX_POINTS, Spent, budget_curve

EPISODES = {
    "a": [Spent(2, True), Spent(6, True)],
    "b": [Spent(4, True), Spent(1, False)],
    "c": [Spent(9, False), Spent(9, False)],
}


def test_the_curve_rises_where_a_success_ended() -> None:
    curve = budget_curve(EPISODES)
    assert [point.budget for point in curve] == [2.0, 4.0, 6.0]
    # solved trials per task at 2: 1 0 0 of 2; at 4: 1 1 0; at 6: 2 1 0
    assert [point.score.mean for point in curve] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    # min(cost, b) over 6 episodes: 2 2 2 1 2 2; 2 4 4 1 4 4; 2 6 4 1 6 6
    assert [point.spent for point in curve] == pytest.approx([11 / 6, 19 / 6, 25 / 6])


def test_at_the_greatest_cost_it_is_the_plain_score() -> None:
    plain = {task: [float(one.success) for one in spent] for task, spent in EPISODES.items()}
    (point,) = budget_curve(EPISODES, budgets=[9])
    assert point.score == clustered_interval(plain, bounds=UNIT)


def test_an_episode_that_ends_above_the_budget_is_not_solved_and_stays() -> None:
    just_below, exactly = budget_curve(EPISODES, budgets=[4.0, math.nextafter(4.0, 0.0)])
    assert (just_below.score.mean, exactly.score.mean) == pytest.approx((1 / 6, 2 / 6))
    assert just_below.score.num_tasks == exactly.score.num_tasks == 3


def test_no_budget_solves_nothing() -> None:
    (point,) = budget_curve(EPISODES, budgets=[0, 0])
    assert (point.score.mean, point.score.low, point.spent) == (0.0, 0.0, 0.0)


def test_without_a_success_there_is_one_point_at_the_end() -> None:
    (point,) = budget_curve({"a": [Spent(3, False)], "b": [Spent(5, False)]})
    assert (point.budget, point.score.mean, point.spent) == (5.0, 0.0, 4.0)


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    episodes = {str(i): [Spent(i, True)] for i in range(1, 301)}
    curve = budget_curve(episodes)
    assert len(curve) == MAX_POINTS
    assert (curve[0].budget, curve[-1].budget) == (1.0, 300.0)
    scores = [point.score.mean for point in curve]
    assert scores == sorted(scores)
    assert scores[-1] == 1.0


def test_unknown_is_not_zero() -> None:
    episodes = {"a": [Spent(1, True)], "b": [Spent(None, False)]}
    with pytest.raises(TreegrpoError) as refused:
        budget_curve(episodes, unit="dollars")
    assert str(refused.value) == (
        "A budget curve in dollars asked for, but an episode of task 'b' has no count of them; "
        "unknown is not zero. Ask for another unit, or evaluate with an agent that counts."
    )


@pytest.mark.parametrize("cost", [-1.0, math.inf, math.nan])
def test_costs_and_budgets_are_finite_and_not_negative(cost: float) -> None:
    with pytest.raises(TreegrpoError, match="a cost is a finite number from 0"):
        budget_curve({"a": [Spent(cost, True)]})
    with pytest.raises(TreegrpoError, match="a budget is a finite number from 0"):
        budget_curve(EPISODES, budgets=[1.0, cost])


def test_no_task_and_no_trial_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        budget_curve({})
    with pytest.raises(ValueError, match="'a' has no trial"):
        budget_curve({"a": []})
