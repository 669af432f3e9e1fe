"""treegrpo.weighting on one question whose shares and weights were worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.tree import Failure, Tree
from treegrpo.weighting import (
    NORMALISERS,
    Shares,
    drop_weighting,
    get_weighting,
    token_weights,
    weighting,
    weighting_names,
)

BUILT_IN = ["depth", "leaf", "path", "unique"]


def step(tree: Tree, above: int, tokens: int, failure: Failure | None = None) -> int:
    return tree.add(
        above, action_ids=[7] * tokens, action_logps=[-1.0] * tokens, failure=failure
    ).id


def question() -> list[Tree]:
    """Two trees; (n) is a step of n sampled tokens.

    First: root -> a(2) -> b(1), c(3); c -> d(1), e(2); a -> a step whose tool failed.
    Second: root -> f(4).
    """
    first, second = Tree("q"), Tree("q", tree_id=1)
    for tree in (first, second):
        tree.add(None, observation_ids=[1])
    a = step(first, 0, 2)
    step(first, a, 1)
    c = step(first, a, 3)
    step(first, c, 1)
    step(first, c, 2)
    step(first, a, 9, failure="tool")
    step(second, 0, 4)
    return [first, second]


# Scored leaves: b = 2, d = 4, e = 5 in the first tree, f = 1 in the second.
# Below a 3, c 2, others 1. Depth 1: a, f. Depth 2: b, c, and f that ended. Depth 3: d, e, and
# f and b that ended.
SHARES: dict[str, list[Shares]] = {
    "leaf": [{2: [1, 1], 4: [1, 1, 1], 5: [1, 1, 1]}, {1: [1]}],
    "path": [{2: [1 / 2] * 2, 4: [1 / 4] * 3, 5: [1 / 4] * 3}, {1: [1]}],
    "unique": [{2: [1 / 3, 1], 4: [1 / 3, 1 / 2, 1], 5: [1 / 3, 1 / 2, 1]}, {1: [1]}],
    "depth": [
        {2: [1 / 3, 2 / 3], 4: [1 / 3, 1 / 3, 1 / 2], 5: [1 / 3, 1 / 3, 1 / 2]},
        {1: [1]},
    ],
}


def approx(shares: Sequence[Shares]) -> list[object]:
    return [{leaf: pytest.approx(row, abs=1e-15) for leaf, row in one.items()} for one in shares]


@pytest.mark.parametrize("name", BUILT_IN)
def test_shares_by_hand(name: str) -> None:
    assert get_weighting(name)(question()) == approx(SHARES[name])


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_trees_and_bare_trees_have_no_shares(name: str) -> None:
    bare = Tree("q")
    bare.add(None, observation_ids=[1])
    failed = question()[1]
    failed.nodes[1].failure = "grader"
    assert get_weighting(name)([]) == []
    assert get_weighting(name)([bare, failed]) == [{}, {}]


def test_token_weights_of_leaf_by_hand() -> None:
    """The flat batch: rows of 2 + 1, 2 + 3 + 1, 2 + 3 + 2 and 4 tokens, 20 in all."""
    trees, shares = question(), SHARES["leaf"]
    mean = token_weights(shares, trees, "token_mean", 1)
    assert mean == approx([{2: [1 / 20] * 2, 4: [1 / 20] * 3, 5: [1 / 20] * 3}, {1: [1 / 20]}])
    rows = token_weights(shares, trees, "sequence_mean", 1)
    assert rows == approx([{2: [1 / 12] * 2, 4: [1 / 24] * 3, 5: [1 / 28] * 3}, {1: [1 / 16]}])
    fixed = token_weights(shares, trees, "constant", 10)
    assert fixed == approx([{2: [1 / 40] * 2, 4: [1 / 40] * 3, 5: [1 / 40] * 3}, {1: [1 / 40]}])


def test_token_weights_of_path_by_hand() -> None:
    trees, shares = question(), SHARES["path"]
    # Tokens 3 / 2 + 6 / 4 + 7 / 4 + 4 = 35 / 4.
    mean = token_weights(shares, trees, "token_mean", 1)
    assert mean == approx([{2: [2 / 35] * 2, 4: [1 / 35] * 3, 5: [1 / 35] * 3}, {1: [4 / 35]}])
    # Each tree counts 1 / 2; its leaves divide that as 2 : 1 : 1.
    rows = token_weights(shares, trees, "sequence_mean", 1)
    assert rows == approx([{2: [1 / 12] * 2, 4: [1 / 48] * 3, 5: [1 / 56] * 3}, {1: [1 / 8]}])
    # Two trees of 10 tokens.
    fixed = token_weights(shares, trees, "constant", 10)
    assert fixed == approx([{2: [1 / 40] * 2, 4: [1 / 80] * 3, 5: [1 / 80] * 3}, {1: [1 / 20]}])


def test_token_weights_that_differ_along_the_path() -> None:
    trees, shares = question(), SHARES["unique"]
    # Each token once: 2 + 1 + 3 + 1 + 2 + 4 = 13.
    mean = token_weights(shares, trees, "token_mean", 1)
    assert mean == approx(
        [{leaf: [s / 13 for s in row] for leaf, row in o.items()} for o in shares]
    )
    # (2/3 + 1) / 3 + (2/3 + 3/2 + 1) / 6 + (2/3 + 3/2 + 2) / 7 + 1 = 5/9 + 19/36 + 25/42 + 1.
    total = 5 / 9 + 19 / 36 + 25 / 42 + 1
    rows = token_weights(shares, trees, "sequence_mean", 1)
    assert rows[0][4] == pytest.approx([s / 6 / total for s in (1 / 3, 1 / 2, 1)])
    # Two trunks: a counts once, f counts once.
    fixed = token_weights(shares, trees, "constant", 10)
    assert fixed[0][4] == pytest.approx([1 / 60, 1 / 40, 1 / 20])


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_leaves_without_sampled_tokens_drop_out(normaliser: str) -> None:
    trees = question()
    silent = Tree("q", tree_id=2)
    silent.add(None, observation_ids=[1])
    step(silent, step(silent, 0, 0), 0)
    trees.append(silent)
    for name in BUILT_IN:
        shares = get_weighting(name)(trees)
        assert list(shares[2]) == [2]
        weights = token_weights(shares, trees, normaliser, 10)
        assert weights == [*token_weights(shares[:2], trees[:2], normaliser, 10), {}]
        assert token_weights(shares[2:], trees[2:], normaliser, 10) == [{}]


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_shares_of_zero_are_weights_of_zero(normaliser: str) -> None:
    tree = question()[1]
    assert token_weights([{1: [0.0]}], [tree], normaliser, 10) == [{1: [0.0]}]
    assert token_weights([], [], normaliser, 10) == []


def test_a_constant_needs_first_steps_that_count() -> None:
    tree, shares = question()[0], [{2: [0.0, 1.0], 4: [0.0, 0.0, 0.0]}]
    assert token_weights(shares, [tree], "token_mean", 1)[0][2] == [0.0, 1.0]
    with pytest.raises(TreegrpoError, match="shares of their first steps"):
        token_weights(shares, [tree], "constant", 10)


def test_wrong_normalisers_are_refused() -> None:
    trees, shares = question(), SHARES["leaf"]
    with pytest.raises(UnknownOption, match=r"'tokenmean'\. Did you mean 'token_mean'"):
        token_weights(shares, trees, "tokenmean", 1)
    with pytest.raises(TreegrpoError, match="constant_tokens = 0"):
        token_weights(shares, trees, "constant", 0)
    assert token_weights(shares, trees, "token_mean", 0) == token_weights(
        shares, trees, "token_mean", 1
    )


def test_names() -> None:
    assert weighting_names() == BUILT_IN
    with pytest.raises(UnknownOption, match=r"Unknown weighting 'leave'\. Did you mean 'leaf'"):
        get_weighting("leave")
    with pytest.raises(TreegrpoError, match=r"'leaf'.*taken"):
        weighting("leaf")(get_weighting("path"))


def answer(shares: list[Shares]) -> Callable[[Sequence[Tree]], list[Shares]]:
    return lambda _question: shares


@pytest.mark.parametrize(
    ("shares", "is_right"),
    [
        ([{1: [0.5]}], True),
        ([{1: [0.0]}], True),
        ([{1: [1.0, 1.0]}], False),
        ([{}], False),
        ([{1: [1.0], 2: [1.0]}], False),
        ([], False),
        ([{1: [-0.1]}], False),
        ([{1: [float("nan")]}], False),
        ([{1: [float("inf")]}], False),
    ],
)
def test_a_weighting_of_ones_own_is_checked(shares: list[Shares], is_right: bool) -> None:
    trees = question()[1:]
    weighting("mine")(answer(shares))
    try:
        if is_right:
            assert get_weighting("mine")(trees) == shares
        else:
            with pytest.raises(TreegrpoError, match="Weighting 'mine' must give each scored leaf"):
                get_weighting("mine")(trees)
    finally:
        drop_weighting("mine")
    assert weighting_names() == BUILT_IN


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        (None, "found a NoneType, not a list of dicts."),
        ([], "found 0 dicts for 1 trees."),
        ([[1.0]], "found a list for tree 0, not a dict."),
        ([{}], "found no row for leaf 1 of tree 0."),
        ([{1: 1.0}], "found a float, not a list, for leaf 1 of tree 0."),
        ([{1: "1"}], "found a str, not a list, for leaf 1 of tree 0."),
        ([{1: [1.0, 1.0]}], "found a row of length 2, not 1, for leaf 1 of tree 0."),
        ([{1: [-0.1]}], "found -0.1 at step 1 for leaf 1 of tree 0."),
        ([{1: ["a"]}], "found 'a' at step 1 for leaf 1 of tree 0."),
        ([{1: [1.0], 7: [1.0]}], "found a row for 7 of tree 0, no scored leaf of it."),
    ],
)
def test_the_message_shows_what_is_wrong_first(shares: Any, found: str) -> None:
    weighting("mine")(answer(shares))
    try:
        with pytest.raises(TreegrpoError, match=re.escape(f"per step of its path; {found}")):
            get_weighting("mine")(question()[1:])
    finally:
        drop_weighting("mine")


def test_the_message_is_short_however_large_the_question() -> None:
    """One wrong leaf of a thousand is named, and nothing of the others is shown."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for _ in range(1000):
        tree.add(0, action_ids=[2], action_logps=[-1.0])
    shares: list[Shares] = [{leaf: [1.0] for leaf in tree.leaves()}]
    shares[0][700] = [1.0, 1.0]
    weighting("mine")(answer(shares))
    try:
        with pytest.raises(TreegrpoError, match="length 2, not 1, for leaf 700") as caught:
            get_weighting("mine")([tree])
    finally:
        drop_weighting("mine")
    assert len(str(caught.value)) < 300
