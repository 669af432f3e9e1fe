"""The planner: against a table, against simulated experiments, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.planner import (
    Plan,
    observed,
    observed_correlation,
    plan,
    power_of,
)
from treegrpo.leaderboards.stats.reliability import VarianceSplit

UNIT_VARIANCE = VarianceSplit(task=0.5, trial=0.5)


def test_known_sample_sizes_of_the_t_test() -> None:
    # Cohen's table for two-sided 5 % and power 80 %: effect 0.5 of one standard deviation
    # takes 34 pairs, or 64 in each of two groups; 0.2 takes 199 pairs, or 394 in each
    alone: dict[str, Any] = {"power": 0.8, "variance": VarianceSplit(1.0, 0.0), "trials": 1}
    assert plan(0.5, correlation=0.5, **alone) == Plan(1, 34, 64)
    assert plan(0.2, correlation=0.5, **alone) == Plan(1, 199, 394)


@pytest.mark.parametrize(("groups", "trials"), [(1, 1), (1, 4), (2, 2)])
def test_planned_experiments_find_the_difference_as_often_as_planned(
    groups: int, trials: int
) -> None:
    split, correlation, difference = VarianceSplit(0.09, 0.16), 0.7, 0.12
    found = plan(difference, power=0.8, variance=split, correlation=correlation, trials=trials)
    tasks = found.paired_tasks if groups == 1 else found.unpaired_tasks
    rng = np.random.default_rng(groups)
    shape = (4_000, tasks)
    shared = math.sqrt(correlation if groups == 1 else 0.0) * rng.normal(size=shape)
    own = math.sqrt(1 - correlation if groups == 1 else 1.0)
    first, second = (
        math.sqrt(split.task) * (shared + own * rng.normal(size=shape))
        + math.sqrt(split.trial / trials) * rng.normal(size=shape)
        for _ in range(2)
    )
    test: Any = scipy.stats.ttest_rel if groups == 1 else scipy.stats.ttest_ind
    hits = float(np.mean(test(second + difference, first, axis=1).pvalue < 0.05))
    assert 0.775 <= hits <= 0.83  # standard error 0.6 points; one task more than asked at most


def test_pairing_and_trials_save_tasks() -> None:
    few = plan(0.1, power=0.8, variance=UNIT_VARIANCE, correlation=0.8, trials=1)
    many = plan(0.1, power=0.8, variance=UNIT_VARIANCE, correlation=0.8, trials=8)
    assert few.paired_tasks < few.unpaired_tasks
    assert many.paired_tasks < few.paired_tasks
    # without trial noise only the tasks' own differences are left
    endless = plan(0.1, power=0.8, variance=UNIT_VARIANCE, correlation=0.8, trials=10**9)
    alone = plan(0.1, power=0.8, variance=VarianceSplit(0.5, 0.0), correlation=0.8, trials=1)
    assert endless == Plan(10**9, alone.paired_tasks, alone.unpaired_tasks)


def test_the_least_number_is_the_least() -> None:
    found = plan(0.3, power=0.9, variance=UNIT_VARIANCE, correlation=0.0, trials=2)
    variance = 2 * 0.5 + 2 * 0.5 / 2
    assert power_of(0.3, variance, found.paired_tasks, groups=1) >= 0.9
    assert power_of(0.3, variance, found.paired_tasks - 1, groups=1) < 0.9


def test_power_is_the_same_on_both_sides_of_the_normal_approximation() -> None:
    below, above = (power_of(0.02, 0.4, n, groups=1) for n in (5_000, 5_001))
    assert below == pytest.approx(above, abs=2e-4)
    assert below != above


def test_without_noise_two_tasks_are_enough() -> None:
    found = plan(0.1, power=0.8, variance=VarianceSplit(0.2, 0.0), correlation=1.0, trials=1)
    assert found.paired_tasks == 2


def test_the_sign_of_the_difference_does_not_matter() -> None:
    settings: dict[str, Any] = {
        "power": 0.8, "variance": UNIT_VARIANCE, "correlation": 0.3, "trials": 2,
    }  # fmt: skip
    assert plan(-0.2, **settings) == plan(0.2, **settings)


def agents(correlation: float, trials: int = 3) -> list[dict[str, list[float]]]:
    rng = np.random.default_rng(7)
    shared = rng.normal(size=3_000)
    runs: list[dict[str, list[float]]] = []
    for _ in range(2):
        own = rng.normal(size=3_000)
        true = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        noisy = true[:, None] + 1.5 * rng.normal(size=(3_000, trials))
        runs.append({str(i): values.tolist() for i, values in enumerate(noisy)})
    return runs


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_the_correlation_is_that_of_the_true_scores(correlation: float) -> None:
    first, second = agents(correlation)
    assert observed_correlation(first, second) == pytest.approx(correlation, abs=0.08)


def test_observed_runs_give_variances_and_the_mean_of_all_pairs() -> None:
    first, second = agents(0.6)
    split, correlation = observed([first, second])
    assert split.task == pytest.approx(1.0, rel=0.08)
    assert split.trial == pytest.approx(2.25, rel=0.05)
    assert correlation == observed_correlation(first, second)
    assert observed([first])[1] is None
    elsewhere = {f"other {task}": values for task, values in second.items()}
    assert observed([first, elsewhere])[1] is None


def test_what_cannot_be_observed_says_what_to_do() -> None:
    flat = {str(i): [0.0, 1.0] for i in range(9)}
    with pytest.raises(TreegrpoError, match=r"do not differ beyond .* State --correlation"):
        observed_correlation(flat, flat)
    with pytest.raises(TreegrpoError, match="which have 0 tasks in common"):
        observed_correlation(flat, {"x": [0.0, 1.0], "y": [0.0, 1.0]})
    with pytest.raises(TreegrpoError, match="no run was given"):
        observed([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"difference": 0.0}, "difference 0.0 asked for; it is a finite number other than 0"),
        ({"difference": math.nan}, "difference nan"),
        ({"power": 1.0}, "power 1.0 asked for; it lies between the significance, 0.05, and 1"),
        ({"power": 0.05}, "power 0.05"),
        ({"power": math.nan}, "power nan"),
        ({"correlation": 1.5}, "correlation 1.5"),
        ({"correlation": math.nan}, "correlation nan"),
        ({"trials": 0}, "trials 0"),
        ({"significance": 0.0}, "significance 0.0"),
        ({"difference": 1e-6}, "needs more than 10,000,000 tasks"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {
        "difference": 0.1, "power": 0.8, "variance": UNIT_VARIANCE, "correlation": 0.5,
        "trials": 1,
    }  # fmt: skip
    with pytest.raises(TreegrpoError, match=message):
        plan(**settings | changes)
