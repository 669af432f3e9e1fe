"""Laws of the board's statistics that hold for every input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.leaderboards.stats import UNIT, holm, sign_flip_p, these_tasks_interval
from treegrpo.leaderboards.stats.budget import Spent, budget_curve
from treegrpo.leaderboards.stats.passes import pass_at_k, pass_hat_k
from treegrpo.leaderboards.stats.ranks import ranked
from treegrpo.leaderboards.stats.reliability import reliability
from treegrpo.leaderboards.stats.suite_score import interquartile_mean

success = st.sampled_from([0.0, 1.0])
runs = st.dictionaries(
    st.text(max_size=3), st.lists(success, min_size=4, max_size=6), min_size=2, max_size=8
)
boards = st.lists(st.lists(success, min_size=6, max_size=6), min_size=1, max_size=5)


@given(runs)
def test_more_trials_help_one_success_and_hurt_all(outcomes: dict[str, list[float]]) -> None:
    plain = pass_at_k(outcomes, 1).mean
    assert pass_hat_k(outcomes, 2).mean <= plain <= pass_at_k(outcomes, 2).mean
    failures = {task: [1.0 - x for x in trials] for task, trials in outcomes.items()}
    assert pass_at_k(outcomes, 2).mean == pytest.approx(1 - pass_hat_k(failures, 2).mean)


@given(runs)
def test_a_rate_lies_in_its_interval_for_these_tasks(outcomes: dict[str, list[float]]) -> None:
    found = these_tasks_interval(outcomes, bounds=UNIT)
    assert found.low is not None and found.high is not None
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.high > found.low


@given(runs)
def test_agreement_is_the_same_for_failures(outcomes: dict[str, list[float]]) -> None:
    failures = {task: [1.0 - x for x in trials] for task, trials in outcomes.items()}
    there, back = reliability(outcomes), reliability(failures)
    assert there.consistency.mean == pytest.approx(back.consistency.mean)
    assert there.variance.task == pytest.approx(back.variance.task, abs=1e-12)
    assert there.variance.trial == pytest.approx(back.variance.trial, abs=1e-12)


@given(st.lists(st.floats(-1, 1), max_size=8))
def test_a_sign_flip_p_is_two_sided_and_positive(changes: list[float]) -> None:
    found = sign_flip_p(changes)
    assert 0.0 < found <= 1.0
    assert found == sign_flip_p([-change for change in changes])


@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values: dict[int, float]) -> None:
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= 1.0 for name in p_values)
    order = sorted(p_values, key=lambda name: p_values[name])
    values = [adjusted[name] for name in order]
    assert values == sorted(values)


@given(boards)
def test_a_rank_lies_in_its_range(board: list[list[float]]) -> None:
    rows = {
        f"row {i}": {str(task): [x] for task, x in enumerate(row)} for i, row in enumerate(board)
    }
    found = ranked(rows, bounds=UNIT, resamples=100)
    assert all(1 <= one.rank_low <= one.rank <= one.rank_high <= len(rows) for one in found)
    assert all(one.upper_bound_rank <= one.rank for one in found)
    assert found[0].tier == 1
    assert np.all(np.diff([one.tier for one in found]) >= 0)


@given(
    st.dictionaries(
        st.text(max_size=2),
        st.lists(st.builds(Spent, st.integers(0, 9), st.booleans()), min_size=1, max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_a_budget_curve_never_falls(episodes: dict[str, list[Spent]]) -> None:
    curve = budget_curve(episodes, budgets=range(11))
    scores = [point.score.mean for point in curve]
    assert scores == sorted(scores)
    plain = [np.mean([one.success for one in spent]) for spent in episodes.values()]
    assert scores[-1] == pytest.approx(float(np.mean(plain)))


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=9))
def test_an_interquartile_mean_lies_between_the_extremes(scores: list[float]) -> None:
    named = {str(place): score for place, score in enumerate(scores)}
    found = interquartile_mean(named, dict.fromkeys(named, 1 / len(named)))
    assert min(scores) - 1e-9 <= found <= max(scores) + 1e-9
