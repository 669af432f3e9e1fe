"""The score over several environments, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats import UNIT, Interval, clustered_interval
from treegrpo.leaderboards.stats.suite_score import (
    combined,
    interquartile_mean,
    normalised,
    suite_score,
)

OUTCOMES = {
    "search": {str(i): [float(i < 6)] for i in range(10)},
    "sql": {str(i): [float(i < 5)] for i in range(20)},
}
SETTINGS: dict[str, Any] = {
    "weights": {"search": 3.0, "sql": 1.0},
    "nulls": {"search": 0.2, "sql": 0.0},
    "oracles": {"search": 1.0, "sql": 0.5},
}


def test_null_is_zero_and_oracle_is_one() -> None:
    found = suite_score(OUTCOMES, bounds=UNIT, **SETTINGS)
    # (0.6 - 0.2) / 0.8 = 0.5 and 0.25 / 0.5 = 0.5
    assert [one.mean for one in found.members.values()] == pytest.approx([0.5, 0.5])
    assert found.score.mean == pytest.approx(0.5)
    assert (found.score.num_tasks, found.score.method) == (30, "combined")
    raw = clustered_interval(OUTCOMES["search"], bounds=UNIT)
    assert raw.low is not None
    assert found.members["search"].low == pytest.approx((raw.low - 0.2) / 0.8)


def test_the_ends_are_combined_by_their_squares() -> None:
    members = {"a": Interval(0.5, 0.2, 0.6, 10, "t"), "b": Interval(1.0, 0.6, 1.0, 5, "wilson")}
    found = combined(members, {"a": 0.5, "b": 0.5})
    # below: sqrt(0.15^2 + 0.2^2) = 0.25; above: sqrt(0.05^2 + 0) = 0.05
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, 0.5, 0.8))


def test_one_member_without_an_interval_leaves_none() -> None:
    members = {"a": Interval(0.5, 0.2, 0.6, 10, "t"), "b": Interval(1.0, None, None, 1, "none")}
    found = combined(members, {"a": 0.5, "b": 0.5})
    assert (found.mean, found.low, found.high, found.method) == (0.75, None, None, "none")
    without = suite_score({"a": {"t": [0.5]}}, weights={"a": 1}, nulls={"a": 0}, oracles={"a": 1})
    assert (without.score.mean, without.score.low) == (0.5, None)


def test_below_null_is_below_zero() -> None:
    found = normalised(Interval(0.1, 0.0, 0.2, 9, "t"), null=0.2, oracle=0.7, env="x")
    assert (found.mean, found.low, found.high) == pytest.approx((-0.2, -0.4, 0.0))


def test_the_interquartile_mean_by_hand() -> None:
    equal = dict.fromkeys("abcd", 0.25)
    assert interquartile_mean({"a": 0.0, "b": 0.4, "c": 0.6, "d": 1.0}, equal) == 0.5
    # b reaches from 0.1 to 0.8 of the weight: all of the middle half
    assert interquartile_mean({"a": 0, "b": 0.3, "c": 1}, {"a": 0.1, "b": 0.7, "c": 0.2}) == (
        pytest.approx(0.3)
    )
    # two halves: a from 0.25 to 0.5, b from 0.5 to 0.75
    assert interquartile_mean({"a": 0.2, "b": 0.6}, {"a": 0.5, "b": 0.5}) == pytest.approx(0.4)
    assert interquartile_mean({"a": 0.7}, {"a": 1.0}) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracles": {"search": 0.2, "sql": 0.5}}, "oracle scores 0.2 and its null agent 0.2"),
        ({"oracles": {"search": 0.1, "sql": 0.5}}, "Leave 'search' out of the suite"),
        ({"oracles": {"search": math.nan, "sql": 0.5}}, "oracle scores nan"),
        ({"nulls": {"search": 0.2}}, r"nulls lack \['sql'\]"),
        ({"oracles": SETTINGS["oracles"] | {"extra": 1.0}}, r"oracles lack - and have \['extra'\]"),
        ({"weights": {"search": 1.0}}, r"outcomes lack - and have \['sql'\] without a weight"),
        ({"weights": {"search": 1.0, "sql": 0.0}}, "Weight 0.0 of 'sql'"),
        ({"weights": {"search": 1.0, "sql": math.inf}}, "Weight inf of 'sql'"),
        ({"weights": {}}, "no environment has a weight"),
    ],
)
def test_what_has_no_score_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TreegrpoError, match=message):
        suite_score(OUTCOMES, bounds=UNIT, **SETTINGS | changes)
