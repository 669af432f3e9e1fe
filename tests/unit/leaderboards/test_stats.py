"""Numbers computed by hand, edges, and messages of treegrpo.leaderboards.stats."""

from __future__ import annotations

import math

import pytest
import scipy.stats

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats import (
    UNIT,
    Interval,
    clustered_interval,
    grouped_intervals,
    these_tasks_interval,
)

# Quantiles from a printed t table, so that scipy is checked too.
T_975 = {2: 4.302653, 3: 3.182446, 4: 2.776445}


def test_t_interval_equals_the_hand_computation() -> None:
    outcomes = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0], "d": [1.0, 0.0]}
    # task means 0.5 1 0 0.5: mean 0.5, variance (0 + .25 + .25 + 0) / 3, error sqrt(var / 4)
    half = T_975[3] * math.sqrt(0.5 / 3 / 4)
    interval = clustered_interval(outcomes)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.5 - half, abs=1e-6)
    assert interval.high == pytest.approx(0.5 + half, abs=1e-6)
    assert (interval.num_tasks, interval.method) == (4, "t")


def test_a_rate_gets_wilsons_form_of_the_t_interval() -> None:
    outcomes = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0], "d": [1.0, 0.0]}
    # error^2 = 1/24, so the size is 0.25 * 24 = 6; w = t^2 / 6; centre 0.5 whatever w
    w = T_975[3] ** 2 / 6
    half = math.sqrt(w / 4 + w**2 / 4) / (1 + w)
    found = clustered_interval(outcomes, bounds=UNIT)
    assert found.low == pytest.approx(0.5 - half, abs=1e-6)
    assert found.high == pytest.approx(0.5 + half, abs=1e-6)
    assert (found.mean, found.method) == (0.5, "wilson")


def test_the_ends_of_wilsons_form_are_where_the_t_test_turns() -> None:
    found = clustered_interval({str(i): [float(i < 7)] for i in range(30)}, bounds=UNIT)
    size = found.num_tasks - 1  # of single trials: c (1 - c) / error^2 = n - 1
    assert found.low is not None and found.high is not None
    for end in (found.low, found.high):
        ratio = (found.mean - end) ** 2 / (end * (1 - end) / size)
        assert math.sqrt(ratio) == pytest.approx(2.045230, abs=1e-5)  # t, 29 degrees


def test_other_bounds_scale_the_interval() -> None:
    outcomes = {"a": [1.0], "b": [0.0], "c": [1.0], "d": [1.0]}
    wide = {task: [10.0 * values[0] - 5.0] for task, values in outcomes.items()}
    unit, scaled = (
        clustered_interval(outcomes, bounds=UNIT),
        clustered_interval(wide, bounds=(-5.0, 5.0)),
    )
    assert unit.low is not None and unit.high is not None
    assert scaled.low == pytest.approx(10.0 * unit.low - 5.0)
    assert scaled.high == pytest.approx(10.0 * unit.high - 5.0)


def test_a_task_weighs_the_same_however_often_it_ran() -> None:
    often = {"a": [1.0] * 100, "b": [0.0], "c": [0.0]}
    once = {"a": [1.0], "b": [0.0], "c": [0.0]}
    assert clustered_interval(often) == clustered_interval(once)


def test_one_task_has_no_interval() -> None:
    interval = clustered_interval({"a": [1.0, 0.0, 1.0, 1.0]}, bounds=UNIT)
    assert (interval.mean, interval.low, interval.high) == (0.75, None, None)
    assert str(interval) == "0.750 [no interval]"


def test_an_interval_is_written_with_three_digits() -> None:
    assert str(Interval(0.75, 0.6123, 0.8876, 9, "wilson")) == "0.750 [0.612, 0.888]"


def test_no_spread_is_not_certainty() -> None:
    perfect = clustered_interval({str(i): [1.0] for i in range(20)}, bounds=UNIT)
    # Wilson's lower end for 20 of 20: 20 / (20 + 1.959964^2)
    assert perfect.low == pytest.approx(0.838875, abs=1e-6)
    assert (perfect.high, perfect.method) == (1.0, "wilson")
    hopeless = clustered_interval({str(i): [0.0] for i in range(20)}, bounds=UNIT)
    assert hopeless.high == pytest.approx(1.0 - 0.838875, abs=1e-6)
    assert hopeless.low == 0.0


def test_no_spread_in_an_unbounded_quantity_gives_no_interval() -> None:
    interval = clustered_interval({"a": [3.0], "b": [3.0]})
    assert (interval.mean, interval.low, interval.method) == (3.0, None, "none")


@pytest.mark.parametrize("count", [2, 3, 5, 10, 50, 200])
def test_all_solved_ranks_above_one_missed(count: int) -> None:
    full = clustered_interval({str(i): [1.0] for i in range(count)}, bounds=UNIT)
    missed = clustered_interval({str(i): [float(i > 0)] for i in range(count)}, bounds=UNIT)
    assert full.low is not None and missed.low is not None
    assert full.low > missed.low


def test_groups_by_difficulty() -> None:
    outcomes = {"a": [1.0], "b": [0.0], "c": [1.0], "d": [1.0]}
    groups = grouped_intervals(outcomes, {"a": 2, "b": 2, "c": 1}, bounds=UNIT)
    assert list(groups) == [1, 2]
    assert groups[2].mean == 0.5
    assert groups[1].num_tasks == 1


def test_these_tasks_by_hand() -> None:
    outcomes = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 1.0, 1.0]}
    # v: a 0.5 / 2 = 1/4, b 0, c (1/3) / 3 = 1/9; error^2 = (13/36) / 9
    degrees = (13 / 36) ** 2 / (1 / 16 / 1 + 1 / 81 / 2)
    found = these_tasks_interval(outcomes)
    assert found.low is not None and found.high is not None
    assert found.mean == pytest.approx((0.5 + 1 + 2 / 3) / 3)
    half = float(scipy.stats.t.ppf(0.975, degrees)) * math.sqrt(13 / 36 / 9)
    assert found.high - found.mean == pytest.approx(half, abs=1e-9)
    assert found.mean - found.low == pytest.approx(half, abs=1e-9)


def test_these_tasks_leave_out_what_makes_tasks_differ() -> None:
    outcomes = {str(i): [float(i % 2), float(i % 2), float(i < 5)] for i in range(20)}
    like, these = (f(outcomes, bounds=UNIT) for f in (clustered_interval, these_tasks_interval))
    assert like.low is not None and like.high is not None
    assert these.low is not None and these.high is not None
    assert these.mean == like.mean
    assert like.low < these.low < these.high < like.high


def test_trials_that_agree_everywhere_count_as_episodes() -> None:
    outcomes = {str(i): [float(i % 2)] * 5 for i in range(4)}
    found = these_tasks_interval(outcomes, bounds=UNIT)
    # half of 20 episodes: Wilson's ends with z = 1.959964 and N = 20
    w = 1.959964**2 / 20
    assert found.low == pytest.approx(0.5 - math.sqrt(w / 4 + w**2 / 4) / (1 + w), abs=1e-6)
    assert these_tasks_interval(outcomes).low is None


def test_these_tasks_need_two_trials() -> None:
    with pytest.raises(TreegrpoError, match=r"'b' has 1\. Evaluate with --trials 2"):
        these_tasks_interval({"a": [1.0, 0.0], "b": [1.0]})


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ({}, "at least one task"),
        ({"a": []}, "'a' has no trial"),
        ({"a": [math.nan]}, "'a' has the value nan"),
        ({"a": [1.5]}, "outside"),
        ({"a": ["1"]}, "'a' has a value of type str; give numbers"),
        ({"a": [None]}, "type NoneType"),
        ({"\x1b[31m" + "b" * 100: [2.0]}, r"'\\x1b\[31mb{75}\.\.\.' has the value 2"),
    ],
)
def test_wrong_values_are_named(outcomes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustered_interval(outcomes, bounds=UNIT)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_confidence_must_be_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        clustered_interval({"a": [0.0], "b": [1.0]}, confidence=confidence)
