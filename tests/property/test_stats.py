"""Laws of the intervals: near nominal coverage, and what must hold for every input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.leaderboards.stats import UNIT, clustered_interval, paired_difference

rates = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4),
    min_size=2,
    max_size=12,
)
values = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.floats(-100, 100), min_size=1, max_size=4),
    min_size=2,
    max_size=12,
)


def test_coverage_is_near_nominal_where_episodes_would_mislead() -> None:
    """Tasks of very different difficulty: 60 tasks x 4 trials, logit spread 1.8."""
    rng = np.random.default_rng(0)
    population = 1.0 / (1.0 + np.exp(-rng.normal(0.5, 1.8, size=200_000)))
    truth = float(population.mean())
    covered, covered_by_episodes, repeats = 0, 0, 600
    for _ in range(repeats):
        chances = rng.choice(population, size=60)
        solved = (rng.random((60, 4)) < chances[:, None]).astype(float)
        tasks = {str(i): row.tolist() for i, row in enumerate(solved)}
        episodes = {str(i): [value] for i, value in enumerate(solved.ravel().tolist())}
        for outcomes, name in ((tasks, "tasks"), (episodes, "episodes")):
            found = clustered_interval(outcomes, bounds=UNIT)
            assert found.low is not None and found.high is not None
            inside = found.low <= truth <= found.high
            covered += inside and name == "tasks"
            covered_by_episodes += inside and name == "episodes"
    # 600 repeats: the standard error of a 95 % coverage is 0.9 points
    assert 0.92 <= covered / repeats <= 0.98
    assert covered_by_episodes / repeats < 0.91


@given(rates)
def test_a_rate_lies_in_its_interval_and_the_interval_in_the_unit(
    outcomes: dict[str, list[float]],
) -> None:
    found = clustered_interval(outcomes, bounds=UNIT)
    assert found.low is not None and found.high is not None
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.high - found.low > 0.0


@given(rates, st.randoms(use_true_random=False))
def test_order_of_tasks_and_trials_does_not_matter(
    outcomes: dict[str, list[float]], random: np.random.RandomState
) -> None:
    names = list(outcomes)
    random.shuffle(names)
    shuffled = {name: sorted(outcomes[name]) for name in names}
    first, second = (clustered_interval(o, bounds=UNIT) for o in (outcomes, shuffled))
    assert first.low is not None and second.low is not None
    assert np.isclose(first.mean, second.mean, atol=1e-9)
    assert np.isclose(first.low, second.low, atol=1e-9)


@given(values, st.floats(-50, 50))
def test_a_shift_moves_the_interval_along(outcomes: dict[str, list[float]], by: float) -> None:
    moved = {task: [v + by for v in trials] for task, trials in outcomes.items()}
    first, second = clustered_interval(outcomes), clustered_interval(moved)
    assert np.isclose(second.mean, first.mean + by, atol=1e-6)
    if first.low is not None and second.low is not None:
        assert np.isclose(second.low, first.low + by, atol=1e-6)


@given(values, st.sampled_from([0.5, 0.8, 0.9]))
def test_more_confidence_is_wider(outcomes: dict[str, list[float]], confidence: float) -> None:
    narrow = clustered_interval(outcomes, confidence=confidence)
    wide = clustered_interval(outcomes, confidence=0.95)
    if narrow.low is not None and narrow.high is not None:
        assert wide.low is not None and wide.high is not None
        assert wide.low <= narrow.low <= narrow.high <= wide.high


@given(rates)
def test_swapping_before_and_after_turns_the_sign(outcomes: dict[str, list[float]]) -> None:
    other = {task: [1.0 - trials[0]] for task, trials in outcomes.items()}
    there = paired_difference(outcomes, other, bounds=UNIT)
    back = paired_difference(other, outcomes, bounds=UNIT)
    assert there.difference.low is not None and back.difference.high is not None
    assert np.isclose(there.difference.low, -back.difference.high, atol=1e-9)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wins + there.ties + there.losses == len(outcomes)
