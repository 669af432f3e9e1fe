"""Ranks, their ranges, tiers, and the upper-bound rank."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from treegrpo.leaderboards.errors import TasksDiffer
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.stats.ranks import ranked, tiers


def row(solved: int, of: int = 40) -> dict[str, list[float]]:
    return {f"t{i:03}": [float(i < solved)] for i in range(of)}


def test_rows_far_apart_keep_their_places() -> None:
    found = ranked({"low": row(2), "high": row(39), "middle": row(20)}, bounds=UNIT)
    assert [one.name for one in found] == ["high", "middle", "low"]
    assert [one.rank for one in found] == [1, 2, 3]
    assert [(one.rank_low, one.rank_high) for one in found] == [(1, 1), (2, 2), (3, 3)]
    assert [one.upper_bound_rank for one in found] == [1, 2, 3]
    assert [one.tier for one in found] == [1, 2, 3]
    assert found[0].score == clustered_interval(row(39), bounds=UNIT)


def test_equal_rows_share_rank_range_and_tier() -> None:
    found = ranked({"b": row(20), "a": row(20), "c": row(1)}, bounds=UNIT)
    assert [(one.name, one.rank) for one in found] == [("a", 1), ("b", 1), ("c", 3)]
    assert [(one.rank_low, one.rank_high) for one in found] == [(1, 2), (1, 2), (3, 3)]
    assert [one.tier for one in found] == [1, 1, 2]


def test_the_range_equals_the_enumeration_of_all_draws() -> None:
    rows = {"a": [1.0, 1.0, 0.0, 1.0], "b": [1.0, 0.0, 1.0, 0.0], "c": [0.0, 0.0, 0.0, 1.0]}
    outcomes = {n: {str(i): [v] for i, v in enumerate(vs)} for n, vs in rows.items()}
    best: dict[str, list[int]] = {name: [] for name in rows}
    worst: dict[str, list[int]] = {name: [] for name in rows}
    for draw in itertools.product(range(4), repeat=3):  # n - 1 = 3 of 4 tasks
        sums = {name: sum(values[i] for i in draw) for name, values in rows.items()}
        for name in rows:
            best[name].append(1 + sum(s > sums[name] for s in sums.values()))
            worst[name].append(sum(s >= sums[name] for s in sums.values()))
    for one in ranked(outcomes, confidence=0.5, resamples=20_000):
        ends = [np.quantile(best[one.name], 0.25, method="inverted_cdf"),
                np.quantile(worst[one.name], 0.75, method="inverted_cdf")]  # fmt: skip
        assert [one.rank_low, one.rank_high] == [min(ends[0], one.rank), max(ends[1], one.rank)]


def test_the_same_draw_is_hard_for_everybody() -> None:
    """A row that is better by little but everywhere is first in every draw."""
    rng = np.random.default_rng(0)
    base = {str(i): [float(x)] for i, x in enumerate(rng.random(30))}
    better = {task: [values[0] + 0.01] for task, values in base.items()}
    first, second = ranked({"base": base, "better": better})
    assert (first.name, first.rank_low, first.rank_high) == ("better", 1, 1)
    assert (second.rank_low, second.rank_high) == (2, 2)
    # intervals alone would not tell them apart
    assert second.upper_bound_rank == 1


def test_neither_order_nor_names_of_tasks_matter() -> None:
    rows = {name: row(solved) for name, solved in (("a", 20), ("b", 22), ("c", 18))}
    turned = {name: dict(reversed(list(rows[name].items()))) for name in reversed(list(rows))}
    assert ranked(rows, seed=4) == ranked(turned, seed=4)


def test_rows_are_compared_on_their_common_tasks() -> None:
    more = row(10) | {"easy": [1.0], "easier": [1.0]}
    found = ranked({"a": row(10), "b": more}, bounds=UNIT)
    assert [one.score.num_tasks for one in found] == [40, 40]
    assert [one.rank for one in found] == [1, 1]


def test_too_few_common_tasks_are_refused() -> None:
    with pytest.raises(TasksDiffer, match="Ranks of 2 rows asked for, which have 1 tasks"):
        ranked({"a": {"t": [1.0], "u": [1.0]}, "b": {"t": [1.0], "v": [0.0]}})


@pytest.mark.parametrize("changes", [{"rows": {}}, {"resamples": 99}])
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"rows": {"a": row(3)}} | changes
    with pytest.raises(ValueError, match="at least 100 resamples"):
        ranked(**settings)


def test_one_row_is_first() -> None:
    (only,) = ranked({"a": row(3)}, bounds=UNIT)
    assert (only.rank, only.rank_low, only.rank_high, only.upper_bound_rank) == (1, 1, 1, 1)


def test_rows_without_an_interval_stand_at_their_score() -> None:
    flat = {name: {"a": [value], "b": [value]} for name, value in (("x", 2.0), ("y", 3.0))}
    assert [one.upper_bound_rank for one in ranked(flat)] == [1, 2]


def test_a_tier_ends_where_a_range_leaves_that_of_its_first_row() -> None:
    # (2, 4) overlaps (1, 2); (3, 5) does not overlap (1, 2), though it overlaps (2, 4)
    assert tiers([(1, 2), (2, 4), (3, 5), (4, 5), (6, 6)]) == [1, 1, 2, 2, 3]
    assert tiers([]) == []


def test_rows_apart_are_drawn_each_by_itself() -> None:
    """The range equals the enumeration of all pairs of draws; nothing is in common."""
    rows = {"a": [1.0, 1.0, 0.0, 1.0], "b": [1.0, 0.0, 0.5, 0.0, 0.0]}
    outcomes = {n: {f"{n}{i}": [v] for i, v in enumerate(vs)} for n, vs in rows.items()}
    means = {
        name: [
            sum(draw) / (len(values) - 1)
            for draw in itertools.product(values, repeat=len(values) - 1)
        ]
        for name, values in rows.items()
    }
    pairs = list(itertools.product(means["a"], means["b"]))
    best = {"a": [1 + (b > a) for a, b in pairs], "b": [1 + (a > b) for a, b in pairs]}
    worst = {"a": [1 + (b >= a) for a, b in pairs], "b": [1 + (a >= b) for a, b in pairs]}
    for confidence in (0.5, 0.8, 0.95):
        found = ranked(outcomes, apart=True, confidence=confidence, resamples=20_000)
        tail = (1 - confidence) / 2
        for one in found:
            low = np.quantile(best[one.name], tail, method="inverted_cdf")
            high = np.quantile(worst[one.name], 1 - tail, method="inverted_cdf")
            assert [one.rank_low, one.rank_high] == [min(low, one.rank), max(high, one.rank)]


def test_a_row_apart_needs_two_tasks() -> None:
    rows = {"a": row(1), "b": {"only": [1.0]}}
    with pytest.raises(TasksDiffer, match="'b' has a single task, and two are the least"):
        ranked(rows, apart=True)
