"""Numbers computed by hand, edges, and messages of treegrpo.leaderboards.stats."""

from __future__ import annotations

import math

import pytest

from treegrpo.leaderboards.errors import TasksDiffer
from treegrpo.leaderboards.stats import (
    UNIT,
    clustered_interval,
    grouped_intervals,
    paired_difference,
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


def test_success_is_clipped_to_the_unit_interval() -> None:
    outcomes = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0], "d": [1.0, 0.0]}
    clipped = clustered_interval(outcomes, bounds=UNIT)
    assert (clipped.low, clipped.high) == (0.0, 1.0)


def test_a_task_weighs_the_same_however_often_it_ran() -> None:
    often = {"a": [1.0] * 100, "b": [0.0], "c": [0.0]}
    once = {"a": [1.0], "b": [0.0], "c": [0.0]}
    assert clustered_interval(often) == clustered_interval(once)


def test_one_task_has_no_interval() -> None:
    interval = clustered_interval({"a": [1.0, 0.0, 1.0, 1.0]}, bounds=UNIT)
    assert (interval.mean, interval.low, interval.high) == (0.75, None, None)
    assert str(interval) == "0.750 [no interval]"


def test_no_spread_is_not_certainty() -> None:
    perfect = clustered_interval({str(i): [1.0] for i in range(20)}, bounds=UNIT)
    # the 2.5 % quantile of Beta(20.5, 0.5), checked by numerical integration
    assert perfect.low == pytest.approx(0.883361, abs=1e-6)
    assert (perfect.high, perfect.method) == (1.0, "jeffreys")
    hopeless = clustered_interval({str(i): [0.0] for i in range(20)}, bounds=UNIT)
    assert hopeless.high == pytest.approx(1.0 - 0.883361, abs=1e-6)
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


def test_paired_difference_by_hand() -> None:
    before = {"a": [0.0], "b": [0.0], "c": [1.0], "d": [0.0], "e": [1.0]}
    after = {"a": [1.0], "b": [1.0], "c": [1.0], "d": [1.0], "e": [0.0]}
    # changes 1 1 0 1 -1: mean 0.4, variance 3.2 / 4
    half = T_975[4] * math.sqrt(0.8 / 5)
    found = paired_difference(before, after, bounds=UNIT)
    assert found.difference.mean == pytest.approx(0.4)
    assert found.difference.low == pytest.approx(0.4 - half, abs=1e-6)
    assert found.difference.high == 1.0
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    # t = 0.4 / 0.4 = 1 with 4 degrees of freedom
    assert found.p_value == pytest.approx(0.373901, abs=1e-6)


def test_pairing_is_tighter_than_two_separate_intervals() -> None:
    before = {str(i): [float(i % 2)] for i in range(40)}
    after = {str(i): [float(i % 2 or i % 8 == 0)] for i in range(40)}
    paired = paired_difference(before, after, bounds=UNIT).difference
    alone = clustered_interval(after, bounds=UNIT)
    assert paired.low is not None and paired.high is not None
    assert alone.low is not None and alone.high is not None
    assert paired.high - paired.low < alone.high - alone.low


def test_pairing_needs_the_same_tasks() -> None:
    with pytest.raises(TasksDiffer, match=r"1 only in the first \['a'\], 1 only in the second"):
        paired_difference({"a": [1.0]}, {"b": [1.0]})


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ({}, "at least one task"),
        ({"a": []}, "'a' has no trial"),
        ({"a": [math.nan]}, "'a' has the value nan"),
        ({"a": [1.5]}, "outside"),
    ],
)
def test_wrong_values_are_named(outcomes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustered_interval(outcomes, bounds=UNIT)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_confidence_must_be_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        clustered_interval({"a": [0.0], "b": [1.0]}, confidence=confidence)
