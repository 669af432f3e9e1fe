"""Agreement of trials, the split of the variance, and the worst tasks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.reliability import reliability, variance_split, worst_decile

OUTCOMES = {"a": [1.0, 1.0], "b": [1.0, 0.0], "c": [0.0, 0.0, 0.0, 1.0]}


def test_consistency_is_the_share_of_pairs_that_agree() -> None:
    found = reliability(OUTCOMES)
    # a 1 of 1 pairs, b 0 of 1, c 3 of 6
    assert found.consistency.mean == pytest.approx(0.5)
    assert found.consistency.num_tasks == 3


def test_the_variance_split_by_hand() -> None:
    found = variance_split(OUTCOMES)
    # within: 0 + 0.5 + 0.75 over 8 - 3; means 1, .5, .25; over episodes 4/8 = .5
    assert found.trial == pytest.approx(1.25 / 5)
    # between: (2 * .25 + 0 + 4 * .0625) / 2 = .375; size (8 - 24 / 8) / 2 = 2.5
    assert found.task == pytest.approx((0.375 - 0.25) / 2.5)
    assert found.task_share == pytest.approx(0.05 / 0.30)


def test_the_split_finds_the_variances_behind_the_data() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0.0, 2.0, size=4_000)
    outcomes = {
        str(i): (mean + rng.normal(0.0, 1.0, size=2 + i % 4)).tolist()
        for i, mean in enumerate(means)
    }
    found = variance_split(outcomes)
    assert found.task == pytest.approx(4.0, rel=0.08)
    assert found.trial == pytest.approx(1.0, rel=0.05)


def test_tasks_that_differ_less_than_trials_have_no_variance_of_their_own() -> None:
    found = variance_split({str(i): [0.0, 1.0] for i in range(5)})
    assert (found.task, found.trial, found.task_share) == (0.0, 0.5, 0.0)
    assert variance_split({"a": [1.0, 1.0], "b": [1.0, 1.0]}).task_share is None


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (10, 0.0), (11, 0.5), (20, 0.5)])
def test_the_worst_decile_rounds_up_to_whole_tasks(count: int, expected: float) -> None:
    assert worst_decile({str(i): [float(i)] for i in range(count)}) == expected


def test_one_trial_or_one_task_is_not_enough() -> None:
    with pytest.raises(TreegrpoError, match=r"Reliability asked for, .* 'b' has 1\. Evaluate with"):
        reliability({"a": [1.0, 0.0], "b": [1.0]})
    with pytest.raises(TreegrpoError, match="found 1 task, and two are the least"):
        variance_split({"a": [1.0, 0.0]})


def test_rewards_are_no_successes() -> None:
    with pytest.raises(ValueError, match="where success is 0 or 1"):
        reliability({"a": [0.5, 1.0], "b": [1.0, 1.0]})
