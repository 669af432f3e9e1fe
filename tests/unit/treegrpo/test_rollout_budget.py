"""treegrpo.rollout.budget: limits that are never exceeded."""

from treegrpo.rollout import Budget


def test_a_step_is_admitted_only_if_its_largest_cost_fits_beside_what_is_reserved() -> None:
    budget = Budget(max_sampled_tokens=20)
    assert budget.admit(8) and budget.admit(8)
    assert not budget.admit(8), "24 tokens might come of three steps"
    assert not budget.is_spent(8), "but those in flight may cost less"
    budget.settle(8, 2)
    budget.settle(8, 2)
    assert budget.sampled_tokens == 4 and budget.reserved_tokens == 0
    assert budget.admit(16)
    budget.settle(16, 16)
    assert budget.is_spent(1)


def test_what_is_spent_within_counts_against_the_whole() -> None:
    run = Budget(max_sampled_tokens=10)
    one, two = Budget(within=run), Budget(max_sampled_tokens=100, within=run)
    assert one.admit(6)
    assert not two.admit(6) and two.reserved_tokens == 0, "a refusal reserves nothing"
    one.settle(6, 5)
    assert run.sampled_tokens == 5 and two.sampled_tokens == 0
    assert two.admit(5)
    two.settle(5, 5)
    assert one.is_spent(1) and two.is_spent(1)


def test_tool_calls() -> None:
    assert Budget().tool_calls_left is None
    run = Budget(max_tool_calls=3)
    one, two = Budget(max_tool_calls=2, within=run), Budget(within=run)
    assert (one.tool_calls_left, two.tool_calls_left) == (2, 3)
    one.count_tool_calls(2)
    assert one.is_spent(1) and not two.is_spent(1)
    assert two.tool_calls_left == 1
    two.count_tool_calls(1)
    assert two.is_spent(1) and not two.admit(1)
