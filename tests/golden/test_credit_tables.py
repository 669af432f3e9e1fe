"""Credit of two questions, every step of every leaf computed by hand.

Two trees, with a fork at the root, three levels, uneven children and a leaf that a grader
failed (f). Rewards stand at the leaves, values V in brackets, state hashes after the @:

    X: 0 @s --+-- 1 @a [1/3] --+-- 2 @- [1/2] --+-- 4: 1        Y: 0 @s --- 1 @b [0] --- 2: 0
              |                |                +-- 5: 0
              |                |                +-- 6: f
              |                +-- 3: 0
              +-- 7 @a [1] ------- 8: 1

One tree whose trunk all leaves share, with rewards (r) on inner steps and a failure of the
policy's own, which counts. Episode rewards R at the leaves:

    Z: 0 @s --- 1 @a r=1/2 [11/16] --+-- 2: r=1/2, R=1
                                     +-- 3 @c r=1/4 [7/12] --+-- 4: r=1/4, R=1
                                                             +-- 5: r=-3/4, R=0
                                                             +-- 6: r=0, R=3/4 (policy)
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import pytest

from treegrpo.credit import (
    Credit,
    credit_names,
    get_credit,
    node_advantage,
    sibling_preferences,
)
from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Failure, Tree

EPS = 1e-6
BUILT_IN = [
    "gigpo",
    "group",
    "intra_inter",
    "leave_one_out",
    "rtpo",
    "sibling",
    "spo",
    "treepo",
    "treerl",
]


def grow(*steps: tuple[int, float, Failure | None, str], tree_id: int = 0) -> Tree:
    """A tree of (parent, reward, failure, state) below a root in state s."""
    tree = Tree("q", tree_id)
    tree.add(None, observation_ids=[1], state_hash="s")
    for parent, reward, failure, state in steps:
        tree.add(parent, reward=reward, failure=failure, state_hash=state)
    return tree


def x_and_y() -> list[Tree]:
    x = grow(
        (0, 0, None, "a"),
        (1, 0, None, ""),
        (1, 0, None, "end"),
        (2, 1, None, "end"),
        (2, 0, None, "end"),
        (2, 9, "grader", "end"),
        (0, 0, None, "a"),
        (7, 1, None, "end"),
    )
    return [x, grow((0, 0, None, "b"), (1, 0, None, "end"), tree_id=1)]


def z() -> list[Tree]:
    return [
        grow(
            (0, 1 / 2, None, "a"),
            (1, 1 / 2, None, "end"),
            (1, 1 / 4, None, "c"),
            (3, 1 / 4, None, "end"),
            (3, -3 / 4, None, "end"),
            (3, 0, "policy", "end"),
        )
    ]


def test_the_drawings_are_right() -> None:
    x, y = x_and_y()
    assert [x.value(n) for n in (1, 2, 7)] == pytest.approx([1 / 3, 1 / 2, 1])
    assert y.value(1) == 0
    assert [z()[0].value(n) for n in (1, 3)] == pytest.approx([11 / 16, 7 / 12])
    assert [z()[0].episode_reward(n) for n in (2, 4, 5, 6)] == [1, 1, 0, 3 / 4]


# The five scored rewards of X and Y: 1, 0, 0, 1, 0. Mean 2/5, squares 2 * 9/25 + 3 * 4/25 = 6/5,
# variance (6/5) / 4 = 3/10. X alone, 1, 0, 0, 1: mean 1/2, squares 1, variance 1/3.
HIGH, LOW = (3 / 5) / (sqrt(3 / 10) + EPS), (-2 / 5) / (sqrt(3 / 10) + EPS)
IN_X = (1 / 2) / (sqrt(1 / 3) + EPS)

# Returns, discount g = 19/20. From state s: X1 has (g^2 1 + g^2 0 + g 0) / 3 = 361/1200, X7 has
# g = 1140/1200, Y1 has 0. Mean 1501/3600; from it -418, 1919, -1501 in 3600ths; squares 174724 +
# 3682561 + 2253001 = 6110286, variance 3055143 / 3600^2.
STD_S = sqrt(3055143) / 3600 + EPS
X1, X7, Y1 = (n / 3600 / STD_S for n in (-418, 1919, -1501))
# From state a, the one of X1 and of X7: X2 has g (1 + 0) / 2 = 19/40, X3 has 0, X8 has 1. Mean
# 59/120; from it -2, -59, 61 in 120ths; squares 4 + 3481 + 3721 = 7206, variance 3603 / 120^2.
STD_A = sqrt(3603) / 120 + EPS
X2, X3, X8 = (n / 120 / STD_A for n in (-2, -59, 61))
# X4 and X5 start where there is no hash, Y2 is alone in state b: 0.

# Rows: the steps on the path to each leaf. X3: 1 3; X4: 1 2 4; X5: 1 2 5; X6: 1 2 6; X8: 7 8.
OF_X_AND_Y: dict[str, list[Credit]] = {
    "group": [
        {3: [LOW] * 2, 4: [HIGH] * 3, 5: [LOW] * 3, 6: [0] * 3, 8: [HIGH] * 2},
        {2: [LOW] * 2},
    ],
    "intra_inter": [
        {
            3: [LOW - IN_X] * 2,
            4: [HIGH + IN_X] * 3,
            5: [LOW - IN_X] * 3,
            6: [0] * 3,
            8: [HIGH + IN_X] * 2,
        },
        {2: [LOW] * 2},
    ],
    # Not below step 1: X8, Y2 = 1, 0. Step 2: X3, X8, Y2 = 0, 1, 0. Step 3: X4, X5, X8, Y2 =
    # 1, 0, 1, 0. Step 4: X3, X5, X8, Y2 = 0, 0, 1, 0. Step 5: X3, X4, X8, Y2 = 0, 1, 1, 0.
    # Steps 7, 8: X3, X4, X5, Y2 = 0, 1, 0, 0. Y's steps: X3, X4, X5, X8 = 0, 1, 0, 1.
    "leave_one_out": [
        {
            3: [-1 / 2, -1 / 2],
            4: [1 - 1 / 2, 1 - 1 / 3, 1 - 1 / 4],
            5: [-1 / 2, -1 / 3, -1 / 2],
            6: [0, 0, 0],
            8: [1 - 1 / 4, 1 - 1 / 4],
        },
        {2: [-1 / 2, -1 / 2]},
    ],
    # First steps 1/3, 1, 0: 1/3 - (1 + 0)/2, 1 - (1/3 + 0)/2, 0 - (1/3 + 1)/2. Under 1: 1/2, 0.
    # Under 2: 1, 0, and the failed leaf is no sibling. X8 and Y2 are only children.
    "rtpo": [
        {
            3: [-1 / 6, -1 / 2],
            4: [-1 / 6, 1 / 2, 1],
            5: [-1 / 6, 1 / 2, -1],
            6: [0, 0, 0],
            8: [5 / 6, 0],
        },
        {2: [-2 / 3, 0]},
    ],
    "sibling": [
        {
            3: [-1 / 6, -1 / 2],
            4: [-1 / 6, 1 / 2, 1],
            5: [-1 / 6, 1 / 2, -1],
            6: [0, 0, 0],
            8: [5 / 6, 5 / 6],
        },
        {2: [-2 / 3, -2 / 3]},
    ],
    # The root has 2/5. 1: 1/3 - 2/5; 2: 1/2 - 1/3; 3: 0 - 1/3; 4: 1 - 1/2; 5: 0 - 1/2.
    "spo": [
        {
            3: [-1 / 15, -1 / 3],
            4: [-1 / 15, 1 / 6, 1 / 2],
            5: [-1 / 15, 1 / 6, -1 / 2],
            6: [0, 0, 0],
            8: [3 / 5, 0],
        },
        {2: [-2 / 5, 0]},
    ],
    # 5 leaves at the root with mean 2/5, 3 below 1 with 1/3, 2 below 2 with 1/2.
    # X4: (5 * 3/5 + 3 * 2/3 + 2 * 1/2) / 10; X5: (-5 * 2/5 - 3 * 1/3 - 2 * 1/2) / 10;
    # X3: (-5 * 2/5 - 3 * 1/3) / 8; X8 and Y2 have the root's group alone.
    "treepo": [
        {3: [-3 / 8] * 2, 4: [3 / 5] * 3, 5: [-2 / 5] * 3, 6: [0] * 3, 8: [3 / 5] * 2},
        {2: [-2 / 5] * 2},
    ],
    # To the gains of spo come V - 2/5: 1: -1/15, 2: 1/10, 3: -2/5, 4: 3/5, 5: -2/5, 7, 8: 3/5,
    # Y: -2/5. There are 3 leaves below 1 and 2 below 2.
    "treerl": [
        {
            3: [-2 / 15 / sqrt(3), -11 / 15],
            4: [-2 / 15 / sqrt(3), 4 / 15 / sqrt(2), 11 / 10],
            5: [-2 / 15 / sqrt(3), 4 / 15 / sqrt(2), -9 / 10],
            6: [0, 0, 0],
            8: [6 / 5, 3 / 5],
        },
        {2: [-4 / 5, -2 / 5]},
    ],
    "gigpo": [
        {
            3: [LOW + X1, LOW + X3],
            4: [HIGH + X1, HIGH + X2, HIGH],
            5: [LOW + X1, LOW + X2, LOW],
            6: [0, 0, 0],
            8: [HIGH + X7, HIGH + X8],
        },
        {2: [LOW + Y1, LOW]},
    ],
}

# R = 1, 1, 0, 3/4: mean 11/16; from it 5, 5, -11, 1 in 16ths; squares 172/256, variance 43/192.
STD_Z = sqrt(43 / 192) + EPS
R1, R0, R34 = (n / 16 / STD_Z for n in (5, -11, 1))
# Returns: Z2 has 1/2; Z3 has 1/4 + 19/20 (1/4 - 3/4 + 0)/3 = 11/120: 24.5/120 from their mean,
# variance 2 (24.5/120)^2. Z4, Z5, Z6 have 1/4, -3/4, 0: mean -1/6; from it 5, -7, 2 in 12ths;
# squares 78/144, variance 39/144. Z1 is alone in s.
S2 = (24.5 / 120) / (sqrt(2) * 24.5 / 120 + EPS)
S4, S5, S6 = (n / 12 / (sqrt(39) / 12 + EPS) for n in (5, -7, 2))

# Z2: 1 2; Z4: 1 3 4; Z5: 1 3 5; Z6: 1 3 6.
OF_Z: dict[str, Credit] = {
    "group": {2: [R1] * 2, 4: [R1] * 3, 5: [R0] * 3, 6: [R34] * 3},
    "intra_inter": {2: [2 * R1] * 2, 4: [2 * R1] * 3, 5: [2 * R0] * 3, 6: [2 * R34] * 3},
    # Nothing is not below 1. Not below 2: 1, 0, 3/4, mean 7/12; below 3: Z2 = 1. Not below 4:
    # 1, 0, 3/4, mean 7/12; 5: 1, 1, 3/4, mean 11/12; 6: 1, 1, 0, mean 2/3.
    "leave_one_out": {
        2: [0, 1 - 7 / 12],
        4: [0, 1 - 1, 1 - 7 / 12],
        5: [0, 0 - 1, 0 - 11 / 12],
        6: [0, 3 / 4 - 1, 3 / 4 - 2 / 3],
    },
    # 2 and 3: 1 - 7/12 and 7/12 - 1. 4: 1 - (0 + 3/4)/2; 5: 0 - (1 + 3/4)/2; 6: 3/4 - (1 + 0)/2.
    "rtpo": {
        2: [0, 5 / 12],
        4: [0, -5 / 12, 5 / 8],
        5: [0, -5 / 12, -7 / 8],
        6: [0, -5 / 12, 1 / 4],
    },
    "sibling": {
        2: [0, 5 / 12],
        4: [0, -5 / 12, 5 / 8],
        5: [0, -5 / 12, -7 / 8],
        6: [0, -5 / 12, 1 / 4],
    },
    # 1: 11/16 - 11/16; 2: 1 - 11/16; 3: 7/12 - 11/16 = 28/48 - 33/48; then R - 7/12.
    "spo": {
        2: [0, 5 / 16],
        4: [0, -5 / 48, 5 / 12],
        5: [0, -5 / 48, -7 / 12],
        6: [0, -5 / 48, 1 / 6],
    },
    # The root and 1 have 4 leaves with 11/16 each, 3 has 3 with 7/12. Z2: 5/16.
    # Z4: (8 * 5/16 + 3 * 5/12) / 11; Z5: (-8 * 11/16 - 3 * 7/12) / 11; Z6: (8/16 + 3/6) / 11.
    "treepo": {2: [5 / 16] * 2, 4: [15 / 44] * 3, 5: [-29 / 44] * 3, 6: [1 / 11] * 3},
    # 2: 2 * 5/16; 3: -2 * 5/48 over the root of 3; 4: 5/16 + 5/12; 5: -11/16 - 7/12;
    # 6: 1/16 + 1/6.
    "treerl": {
        2: [0, 5 / 8],
        4: [0, -5 / 24 / sqrt(3), 35 / 48],
        5: [0, -5 / 24 / sqrt(3), -61 / 48],
        6: [0, -5 / 24 / sqrt(3), 11 / 48],
    },
    "gigpo": {
        2: [R1, R1 + S2],
        4: [R1, R1 - S2, R1 + S4],
        5: [R0, R0 - S2, R0 + S5],
        6: [R34, R34 - S2, R34 + S6],
    },
}


def assert_close(found: Credit, expected: Credit) -> None:
    assert list(found) == list(expected)
    for leaf, row in expected.items():
        assert found[leaf] == pytest.approx(row, abs=1e-12), f"leaf {leaf}"


def test_the_tables_leave_out_no_estimator() -> None:
    assert credit_names() == BUILT_IN == sorted(OF_X_AND_Y) == sorted(OF_Z)


@pytest.mark.parametrize("name", BUILT_IN)
def test_two_trees(name: str) -> None:
    for found, expected in zip(get_credit(name)(x_and_y()), OF_X_AND_Y[name], strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("name", BUILT_IN)
def test_one_tree_with_a_shared_trunk(name: str) -> None:
    (found,) = get_credit(name)(z())
    assert_close(found, OF_Z[name])


def chain(reward: float, length: int = 2, failure: Failure | None = None) -> Tree:
    last = (length - 1, reward, failure, "end")
    return grow(*[(n, 0.0, None, f"at {n}") for n in range(length - 1)], last)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("reward", [0.1, 1.0, -3.7])
def test_a_single_leaf_has_nothing_to_be_compared_with(name: str, reward: float) -> None:
    assert get_credit(name)([chain(reward)]) == [{2: [0.0, 0.0]}]
    failed = chain(5.0, failure="sandbox")
    assert get_credit(name)([chain(reward), failed]) == [{2: [0.0, 0.0]}, {2: [0.0, 0.0]}]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("reward", [0.1, 1 / 3, -3.7])
def test_equal_rewards_give_exactly_zero(name: str, reward: float) -> None:
    def bush() -> Tree:
        inner: list[tuple[int, float, Failure | None, str]] = [(0, 0, None, "a"), (0, 0, None, "a")]
        return grow(*inner, *[(1 + n % 2, reward, None, "end") for n in range(7)])

    for one in get_credit(name)([bush(), chain(reward), bush()]):
        assert all(row == [0.0, 0.0] for row in one.values())


def test_the_return_of_gigpo_depends_on_when_a_reward_comes() -> None:
    # Rewards 1, 1 after one and two steps, so no episode term. Returns of the first steps: 1 and
    # 19/20, deviations +-1/40, standard deviation sqrt(2)/40.
    score = (1 / 40) / (sqrt(2) / 40 + EPS)
    short, long = get_credit("gigpo")([chain(1, 1), chain(1, 2)])
    assert short[1] == pytest.approx([score], abs=1e-12)
    assert long[2] == pytest.approx([-score, 0], abs=1e-12)


def test_states_without_a_hash_do_not_meet() -> None:
    trees = [chain(1), chain(0)]
    for node in (node for tree in trees for node in tree.nodes):
        node.state_hash = ""
    assert get_credit("gigpo")(trees) == get_credit("group")(trees)


def test_siblings_as_preferences() -> None:
    pairs = sibling_preferences(x_and_y())
    assert [(pair.better, pair.worse) for pair in pairs] == [
        ((0, 7), (0, 1)),
        ((0, 1), (1, 1)),
        ((0, 7), (1, 1)),
        ((0, 2), (0, 3)),
        ((0, 4), (0, 5)),
    ]
    assert [pair.gap for pair in pairs] == pytest.approx([2 / 3, 1 / 3, 1, 1 / 2, 1])


def test_equal_values_are_no_preference() -> None:
    # 0.1 and the mean of three of it, whose float sum divided by 3 is another number.
    tree = grow((0, 0, None, ""), *[(1, 0.1, None, "")] * 3, (0, 0.1, None, ""))
    assert (0.1 + 0.1 + 0.1) / 3 != 0.1
    assert sibling_preferences([tree]) == []


@pytest.mark.parametrize("call", [get_credit("group"), get_credit("spo"), sibling_preferences])
@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_rewards_that_are_not_finite_are_refused(
    call: Callable[[list[Tree]], object], reward: float
) -> None:
    trees = x_and_y()
    trees[1].nodes[2].reward = reward
    with pytest.raises(TreegrpoError, match=r"node 2 of tree 1 of question 'q' has reward"):
        call(trees)


def test_preferences_are_of_one_question() -> None:
    trees = x_and_y()
    trees[1].question_id = "r"
    with pytest.raises(TreegrpoError, match=r"2 questions \(q, r\)"):
        sibling_preferences(trees)


def test_the_view_shows_the_mean_over_scored_leaves() -> None:
    x = x_and_y()[0]
    shown = node_advantage(x, get_credit("sibling")(x_and_y())[0])
    assert shown[1] == pytest.approx(-1 / 6)
    assert shown[6] == 0
