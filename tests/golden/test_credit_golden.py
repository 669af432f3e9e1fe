"""Credit of known rewards, by hand: fractions and square roots, no code of the package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import pytest

from treegrpo.credit import (
    Credit,
    credit,
    credit_names,
    drop_credit,
    get_credit,
    node_advantage,
)
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.tree import Failure, Tree

EPS = 1e-6


def bush(rewards: Sequence[float], failures: Sequence[Failure | None] = ()) -> Tree:
    """A tree whose first step is shared by one leaf per reward."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_ids=[2], action_logps=[-1.0], observation_ids=[3])
    for i, reward in enumerate(rewards):
        failure = failures[i] if failures else None
        tree.add(1, action_ids=[4], action_logps=[-1.0], reward=reward, failure=failure)
    return tree


def by_leaf(name: str, *trees: Tree) -> list[list[float]]:
    """The last step's advantage of every leaf, after checking that all steps have the same."""
    result: list[list[float]] = []
    for tree, one in zip(trees, get_credit(name)(trees), strict=True):
        assert list(one) == tree.leaves()
        assert all(row == [row[0]] * tree.nodes[leaf].depth for leaf, row in one.items())
        result.append([row[-1] for row in one.values()])
    return result


# Tree A has rewards (1, 0, 1), tree B (0, 0, 0).
# A alone: mean 2/3, squares 1/9 + 4/9 + 1/9 = 2/3, unbiased variance (2/3) / 2 = 1/3.
# A and B: mean 1/3, squares 2 * 4/9 + 4 * 1/9 = 4/3, unbiased variance (4/3) / 5 = 4/15.
STD_A = sqrt(1 / 3) + EPS
STD_Q = sqrt(4 / 15) + EPS


def test_group_of_two_trees() -> None:
    high, low = (2 / 3) / STD_Q, (-1 / 3) / STD_Q
    first, second = by_leaf("group", bush([1, 0, 1]), bush([0, 0, 0]))
    assert first == pytest.approx([high, low, high], abs=1e-12)
    assert second == pytest.approx([low, low, low], abs=1e-12)
    assert high == pytest.approx(1.2909919, abs=1e-7)


def test_intra_inter_of_two_trees() -> None:
    high = (1 / 3) / STD_A + (2 / 3) / STD_Q
    low = (-2 / 3) / STD_A + (-1 / 3) / STD_Q
    rest = (-1 / 3) / STD_Q
    first, second = by_leaf("intra_inter", bush([1, 0, 1]), bush([0, 0, 0]))
    assert first == pytest.approx([high, low, high], abs=1e-12)
    assert second == pytest.approx([rest] * 3, abs=1e-12)
    assert first == pytest.approx([1.868341, -1.800195, 1.868341], abs=1e-6)
    assert second == pytest.approx([-0.645496] * 3, abs=1e-6)


def test_it_is_not_the_population_deviation() -> None:
    # Divided by n: variance 2/9 in A, 2/9 in the question.
    biased = (1 / 3) / sqrt(2 / 9) + (2 / 3) / sqrt(2 / 9)
    assert biased == pytest.approx(2.1213, abs=1e-4)
    first, _ = by_leaf("intra_inter", bush([1, 0, 1]), bush([0, 0, 0]))
    assert abs(first[0] - biased) > 0.2


@pytest.mark.parametrize("name", ["group", "intra_inter"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.7])
def test_a_constant_group_gives_exactly_zero(name: str, reward: float) -> None:
    assert by_leaf(name, bush([reward] * 3), bush([reward] * 2)) == [[0.0] * 3, [0.0] * 2]


@pytest.mark.parametrize("name", ["group", "intra_inter"])
def test_a_single_leaf_gives_zero_not_its_reward(name: str) -> None:
    assert by_leaf(name, bush([1.0])) == [[0.0]]


def test_one_tree_gives_exactly_twice_the_group() -> None:
    tree = bush([1, 0, 0.2, 0.7])
    assert by_leaf("intra_inter", tree)[0] == [2 * a for a in by_leaf("group", tree)[0]]


def test_only_failures_of_the_policy_count() -> None:
    # Scored: 1, 0 and the policy's 0. Mean 1/3, squares 2/3, variance 1/3.
    tree = bush([1, 0, 0, 9, 9], [None, None, "policy", "environment", "grader"])
    std = sqrt(1 / 3) + EPS
    expected = [(2 / 3) / std, (-1 / 3) / std, (-1 / 3) / std, 0.0, 0.0]
    assert by_leaf("group", tree)[0] == pytest.approx(expected, abs=1e-12)
    assert by_leaf("intra_inter", tree)[0] == pytest.approx([2 * a for a in expected], abs=1e-12)
    assert by_leaf("group", bush([1, 0], ["tool", "sandbox"])) == [[0.0, 0.0]]


def test_rewards_of_all_steps_count() -> None:
    tree = bush([0, 0])
    tree.add(0, action_ids=[4], action_logps=[-1.0], reward=0.5)
    tree.nodes[1].reward = 1.0
    # Episode rewards 1, 1, 1/2: mean 5/6, squares 1/6, variance 1/12.
    std = sqrt(1 / 12) + EPS
    result = get_credit("group")([tree])[0]
    assert result[2] == pytest.approx([(1 / 6) / std] * 2, abs=1e-12)
    assert result[4] == pytest.approx([(-1 / 3) / std], abs=1e-12)


def test_node_advantage_averages_scored_leaves() -> None:
    tree = bush([0, 0, 0], [None, None, "tool"])
    tree.add(0, action_ids=[4], action_logps=[-1.0], failure="tool")
    per_step: Credit = {2: [1.0, 2.0], 3: [4.0, 8.0], 4: [0.0, 0.0], 5: [0.0]}
    assert node_advantage(tree, per_step) == {1: 2.5, 2: 2.0, 3: 8.0, 4: 0.0, 5: 0.0}


def test_questions_may_not_mix() -> None:
    other = bush([1, 0])
    other.question_id = "r"
    with pytest.raises(TreegrpoError, match=r"2 questions \(q, r\)"):
        get_credit("group")([bush([1, 0]), other])


def test_no_trees_no_credit() -> None:
    assert get_credit("group")([]) == []
    bare = Tree("q")
    bare.add(None, observation_ids=[1])
    assert get_credit("intra_inter")([bare, bush([1, 0])])[0] == {}


def test_unknown_credit_suggests() -> None:
    with pytest.raises(UnknownOption, match=r"Unknown credit 'grup'. Did you mean 'group'\?"):
        get_credit("grup")
    with pytest.raises(UnknownOption):
        drop_credit("grup")


@pytest.fixture
def mine() -> Iterator[str]:
    yield "mine"
    drop_credit("mine")


def test_users_add_an_estimator_by_a_decorator(mine: str) -> None:
    @credit(mine)
    def by_depth(question: Sequence[Tree]) -> list[Credit]:
        """Return the depth."""
        return [
            {leaf: [float(n) for n in range(tree.nodes[leaf].depth)] for leaf in tree.leaves()}
            for tree in question
        ]

    assert by_depth.__doc__ == "Return the depth."
    assert mine in credit_names()
    assert get_credit(mine)([bush([1, 0])]) == [{2: [0.0, 1.0], 3: [0.0, 1.0]}]
    with pytest.raises(TreegrpoError, match=r"Credit 'mine' .* the name is taken"):
        credit(mine)(by_depth)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ([{2: [0.0, 0.0]}], "no row for leaf 3 of tree 0"),
        ([{2: [0.0], 3: [0.0]}], "a row of length 1, not 2, for leaf 2 of tree 0"),
        ([{2: [0.0, 0.0], 3: [0.0, float("nan")]}], "nan at step 2 for leaf 3 of tree 0"),
        ([{2: [0.0, 0.0], 3: [-2e12, 0.0]}], "-2000000000000.0 at step 1 for leaf 3 of tree 0"),
        ([{2: [0.0, "1"], 3: [0.0, 0.0]}], "'1' at step 2 for leaf 2 of tree 0"),
        ([{2: [0, 0], 3: [0, 0], 1: [0]}], "a row for 1 of tree 0, which is no leaf of it"),
        ([], "0 dicts for 1 trees"),
        ([[0.0, 0.0]], "a list for tree 0, not a dict"),
        (None, "a NoneType, not a list of dicts"),
        ([{2: 0.0, 3: 0.0}], "a float, not a list, for leaf 2 of tree 0"),
        ([{2: "00", 3: "00"}], "a str, not a list, for leaf 2 of tree 0"),
    ],
)
def test_credit_of_the_wrong_shape_is_refused(mine: str, wrong: Any, found: str) -> None:
    """The message shows the first leaf that is wrong, and no other."""

    @credit(mine)
    def broken(question: Sequence[Tree]) -> list[Credit]:
        return wrong

    words = f"Credit 'mine' must give each leaf.*{re.escape(f'found {found}. ')}"
    with pytest.raises(TreegrpoError, match=words):
        broken([bush([1, 0])])
