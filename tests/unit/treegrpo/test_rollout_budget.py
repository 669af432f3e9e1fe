"""treegrpo.rollout.budget: verdicts in the order of keys, and budgets divided beforehand."""

import itertools

import pytest

from treegrpo.rollout.budget import Budget, shares

FIRST, SECOND, THIRD = (1, 0, ()), (1, 1, ()), (2, 0, ())


def test_far_from_the_limit_a_verdict_is_plain_at_once() -> None:
    budget = Budget(100, step_tokens=10)
    assert budget.admits(THIRD, before=9) is True
    assert budget.admits(THIRD, before=10) is None
    assert Budget(step_tokens=10).admits(THIRD, before=float("inf")) is True
    assert not Budget().is_limited and budget.is_limited


def test_near_the_limit_a_step_counts_what_came_before_it_only() -> None:
    budget = Budget(25, step_tokens=10)
    budget.settle_tokens(THIRD, 10)  # admitted early, because all before it would have fitted
    budget.settle_tokens(FIRST, 10)
    assert budget.admits(SECOND, before=0) is True, "25 - 10 leaves room for 10"
    budget.settle_tokens(SECOND, 5)
    assert budget.admits((3, 0, ()), before=0) is False


def test_a_settled_step_counts_what_it_took_not_what_it_might_have() -> None:
    budget = Budget(20, step_tokens=10)
    assert budget.admits(SECOND, before=1) is True
    budget.settle_tokens(FIRST, 2)
    budget.settle_tokens(SECOND, 3)
    assert budget.admits(THIRD, before=0) is True
    assert budget.admits(THIRD, before=1) is None


def test_calls_are_capped_exactly_where_the_limit_is_near() -> None:
    budget = Budget(max_tool_calls=5, step_calls=4)
    assert budget.calls_left(FIRST, before=0) == 4
    assert budget.calls_left(SECOND, before=1) is None
    budget.settle_calls(FIRST, 3)
    assert budget.calls_left(SECOND, before=0) == 2
    assert budget.admits(SECOND, before=0) is True
    budget.settle_calls(SECOND, 2)
    assert budget.calls_left(THIRD, before=0) == 0
    assert budget.admits(THIRD, before=0) is False, "without a call left it is not begun"
    assert Budget(step_calls=4).calls_left(THIRD, before=7) == 4


@pytest.mark.parametrize("limit", [0, 7, 8, 40, 41, 1000])
def test_shares_add_up_and_none_is_too_small_to_begin(limit: int) -> None:
    for count, least in itertools.product((1, 3, 5), (1, 8)):
        parts = [part or 0 for part in shares(limit, count, least)]
        assert sum(parts) in (limit, 0) and len(parts) == count
        assert all(part == 0 or part >= least for part in parts)
        assert sum(parts) == limit or limit < least
        assert parts == sorted(parts, reverse=True)
    assert shares(None, 3, 8) == [None, None, None]
