"""Two rows on the same tasks: t test, sign flips, effect size and Holm, all by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from treegrpo.leaderboards.errors import TasksDiffer
from treegrpo.leaderboards.stats import (
    UNIT,
    clustered_interval,
    compare_all,
    holm,
    paired_difference,
    sign_flip_p,
)

T_975_4 = 2.776445


def test_paired_difference_by_hand() -> None:
    before = {"a": [0.0], "b": [0.0], "c": [1.0], "d": [0.0], "e": [1.0]}
    after = {"a": [1.0], "b": [1.0], "c": [1.0], "d": [1.0], "e": [0.0]}
    # changes 1 1 0 1 -1: mean 0.4, variance 3.2 / 4
    half = T_975_4 * math.sqrt(0.8 / 5)
    found = paired_difference(before, after, bounds=UNIT)
    assert found.difference.mean == pytest.approx(0.4)
    assert found.difference.low == pytest.approx(0.4 - half, abs=1e-6)
    assert found.difference.high == 1.0
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    # t = 0.4 / 0.4 = 1 with 4 degrees of freedom
    assert found.p_value == pytest.approx(0.373901, abs=1e-6)
    assert found.effect_size == pytest.approx(0.4 / math.sqrt(0.8))
    # of 16 patterns of 4 changes of size 1, |sum| >= 2 holds for 2 (all) + 8 (one other)
    assert found.flip_p_value == 10 / 16


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


def test_no_difference_anywhere_is_not_certainty() -> None:
    rows = {str(i): [float(i % 2)] for i in range(20)}
    found = paired_difference(rows, rows, bounds=UNIT)
    assert (found.difference.method, found.p_value, found.effect_size) == ("wilson", None, None)
    # Wilson's ends for 10 of 20, on the range from -1 to 1
    w = 1.959964**2 / 20
    half = 2 * math.sqrt(w / 4 + w**2 / 4) / (1 + w)
    assert found.difference.high == pytest.approx(half, abs=1e-6)
    assert found.difference.low == pytest.approx(-half, abs=1e-6)
    assert (found.flip_p_value, found.ties) == (1.0, 20)
    assert paired_difference(rows, rows).difference.low is None


def test_one_task_has_a_difference_but_no_interval() -> None:
    found = paired_difference({"a": [0.0]}, {"a": [1.0, 0.0]}, bounds=UNIT)
    assert (found.difference.mean, found.difference.low) == (0.5, None)
    assert (found.p_value, found.flip_p_value, found.wins) == (None, 1.0, 1)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 16])
def test_all_wins_have_the_least_p_there_is(count: int) -> None:
    assert sign_flip_p([0.25] * count) == 2.0 / 2**count if count > 1 else 1.0


def test_exact_flips_equal_plain_enumeration() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        changes = [float(x) for x in rng.integers(-4, 5, size=7) / 4]
        seen = abs(sum(changes))
        patterns = list(itertools.product((-1, 1), repeat=7))
        hits = sum(
            abs(sum(s * c for s, c in zip(signs, changes, strict=True))) >= seen
            for signs in patterns
        )
        assert sign_flip_p(changes) == hits / len(patterns)


def test_many_tasks_are_sampled_the_same_way_each_time() -> None:
    changes = [0.3, -0.1] * 10 + [0.0] * 30
    # +0.3 and -0.1 ten times each: the sum's deviation under flips is sqrt(10 * .09 + 10 * .01)
    found = sign_flip_p(changes, seed=1)
    assert found == sign_flip_p(changes, seed=1)
    assert found != sign_flip_p(changes, seed=2)
    exact = _exact_by_convolution([0.3, -0.1] * 10)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))


def test_a_sampled_p_is_never_zero() -> None:
    assert sign_flip_p([1.0] * 40) == 1 / 20_000


def _exact_by_convolution(changes: list[float]) -> float:
    sums = {0: 1.0}
    for change in (round(10 * c) for c in changes):
        step: dict[int, float] = {}
        for total, chance in sums.items():
            for moved in (total + change, total - change):
                step[moved] = step.get(moved, 0.0) + chance / 2
        sums = step
    seen = abs(round(10 * sum(changes)))
    return sum(chance for total, chance in sums.items() if abs(total) >= seen)


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.9 x 1; the order given stays
    found = holm({"d": 0.9, "b": 0.02, "a": 0.01, "c": 0.03})
    assert list(found) == ["d", "b", "a", "c"]
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.9})
    assert holm({"a": 0.04, "b": 0.041, "c": 0.5})["b"] == pytest.approx(0.12)  # never falling
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("p_value", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p_value: float) -> None:
    with pytest.raises(ValueError, match="that of 'x' is"):
        holm({"x": p_value})


def test_several_rows_are_compared_in_pairs() -> None:
    low = {str(i): [0.0] for i in range(6)}
    high = {str(i): [1.0] for i in range(6)}
    found = compare_all({"low": low, "same": low, "high": high}, bounds=UNIT)
    assert [(one.before, one.after) for one in found] == [
        ("low", "same"), ("low", "high"), ("same", "high"),
    ]  # fmt: skip
    # 2 / 2^6, the smaller two of three: times 3, then not below that
    assert [one.adjusted_p for one in found] == pytest.approx([1.0, 6 / 64, 6 / 64])
    assert found[1].paired.difference.mean == 1.0


def test_comparing_needs_two_rows_on_the_same_tasks() -> None:
    with pytest.raises(ValueError, match="at least two rows; 1 given"):
        compare_all({"a": {"t": [1.0]}})
    with pytest.raises(TasksDiffer):
        compare_all({"a": {"t": [1.0]}, "b": {"u": [1.0]}})
