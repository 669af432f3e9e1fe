"""pass@k and pass^k against the enumeration of all subsets of trials, and what is refused."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.passes import pass_at_k, pass_hat_k


def by_subsets(trials: list[float], k: int) -> tuple[float, float]:
    """Return the shares of k-subsets with at least one success, and with nothing else."""
    subsets = list(itertools.combinations(trials, k))
    one = Fraction(sum(any(subset) for subset in subsets), len(subsets))
    every = Fraction(sum(all(subset) for subset in subsets), len(subsets))
    return float(one), float(every)


@pytest.mark.parametrize("n", range(1, 9))
def test_both_equal_the_enumeration_of_all_subsets(n: int) -> None:
    for c in range(n + 1):
        trials = [1.0] * c + [0.0] * (n - c)
        for k in range(1, n + 1):
            one, every = by_subsets(trials, k)
            assert pass_at_k({"a": trials}, k).mean == one
            if n >= 2 * k:
                assert pass_hat_k({"a": trials}, k).mean == every


def test_tasks_weigh_the_same_and_have_an_interval() -> None:
    outcomes = {"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0] * 4, "c": [0.0] * 8}
    at, hat = pass_at_k(outcomes, 2), pass_hat_k(outcomes, 2)
    # a: 1 - C(3,2)/C(4,2) = 1/2 and 0; b: 1 and 1; c: 0 and 0
    assert at.mean == pytest.approx(0.5)
    assert hat.mean == pytest.approx(1 / 3)
    assert (at.num_tasks, at.method) == (3, "wilson")


def test_one_trial_is_the_plain_rate() -> None:
    outcomes = {"a": [1.0, 0.0, 0.0], "b": [1.0, 1.0, 0.0]}
    assert pass_at_k(outcomes, 1) == pass_hat_k(outcomes, 1)
    assert pass_at_k(outcomes, 1).mean == 0.5


def test_many_trials_do_not_overflow() -> None:
    trials = [1.0] * 1_500 + [0.0] * 1_500
    assert pass_at_k({"a": trials}, 1_500).mean == 1.0
    assert 0.0 <= pass_hat_k({"a": trials}, 1_500).mean < 1e-300


def test_pass_hat_k_needs_twice_k_trials_and_says_what_helps() -> None:
    with pytest.raises(TreegrpoError) as refused:
        pass_hat_k({"a": [1.0] * 8, "b": [1.0] * 5}, 3)
    assert str(refused.value) == (
        "pass^3 asked for, which needs n >= 2k = 6 trials of every task; task 'b' has n = 5. "
        "Evaluate with --trials 6, or ask for k <= 2."
    )
    with pytest.raises(TreegrpoError, match=r"n = 1\. Evaluate with --trials 2\.$"):
        pass_hat_k({"a": [1.0]}, 1)


def test_pass_at_k_needs_k_trials() -> None:
    with pytest.raises(TreegrpoError, match=r"pass@4 asked for, which needs n >= k = 4 .* n = 3"):
        pass_at_k({"a": [1.0] * 3}, 4)


@pytest.mark.parametrize("k", [0, -1])
def test_k_counts_trials(k: int) -> None:
    for function in (pass_at_k, pass_hat_k):
        with pytest.raises(TreegrpoError, match="k is the number of trials"):
            function({"a": [1.0]}, k)


def test_rewards_are_no_successes() -> None:
    with pytest.raises(ValueError, match=r"'a' has the value 0.5, where success is 0 or 1"):
        pass_at_k({"a": [0.5]}, 1)
