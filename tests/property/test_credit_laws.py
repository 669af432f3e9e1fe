"""Laws of credit that hold for every question, whatever the rewards and shapes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.credit import get_credit, node_advantage
from treegrpo.tree import Failure, Tree

NAMES = ["group", "intra_inter"]
EPS = 1e-6

# Exact in binary, so that equal rewards stay equal after scaling; deviations of 1/8 or more
# are far above EPS.
rewards = st.integers(-8, 8).map(lambda n: n / 8)
outcomes = st.tuples(rewards, st.sampled_from([None, None, None, "policy", "tool", "grader"]))
bushes = st.lists(st.lists(outcomes, min_size=1, max_size=5), min_size=1, max_size=4)
Outcomes = list[list[tuple[float, Failure | None]]]


def trees(question: Outcomes) -> list[Tree]:
    """One tree per list; leaf k hangs at depth 1 + k % 3 below its own inner nodes."""
    grown: list[Tree] = []
    for leaves in question:
        tree = Tree("q")
        tree.add(None, observation_ids=[1])
        for k, (reward, failure) in enumerate(leaves):
            above = 0
            for _ in range(k % 3):
                above = tree.add(above, observation_ids=[2]).id
            tree.add(above, reward=reward, failure=failure, truncated=True)
        grown.append(tree)
    return grown


def scores(name: str, question: Outcomes) -> list[list[float]]:
    grown = trees(question)
    return [[row[-1] for row in one.values()] for one in get_credit(name)(grown)]


@pytest.mark.parametrize("name", NAMES)
@given(question=bushes, scale=st.floats(0.5, 20), shift=st.floats(-5, 5))
def test_affine_invariance(name: str, question: Outcomes, scale: float, shift: float) -> None:
    moved: Outcomes = [[(scale * r + shift, f) for r, f in leaves] for leaves in question]
    # z = d / (s + EPS) becomes d / (s + EPS / scale); |z| < sqrt(n) <= 4.5, s >= 1/8 / sqrt(n).
    bound = 2 * 4.5 * EPS * (1 + 1 / scale) / (1 / 8 / 4.5)
    for before, after in zip(scores(name, question), scores(name, moved), strict=True):
        assert after == pytest.approx(before, abs=bound)


@pytest.mark.parametrize("name", NAMES)
@given(question=bushes, data=st.data())
def test_the_order_of_trees_and_leaves_is_of_no_matter(
    name: str, question: Outcomes, data: st.DataObject
) -> None:
    # Tenths: their sums do depend on the order, unless the mean is taken exactly.
    question = [[(r * 0.8, failure) for r, failure in leaves] for leaves in question]
    orders = [data.draw(st.permutations(range(len(leaves)))) for leaves in question]
    tree_order = data.draw(st.permutations(range(len(question))))
    shuffled = [[question[t][k] for k in orders[t]] for t in tree_order]
    before = scores(name, question)
    assert scores(name, shuffled) == [[before[t][k] for k in orders[t]] for t in tree_order]


@pytest.mark.parametrize("name", NAMES)
@given(question=bushes)
def test_advantages_of_a_question_sum_to_zero(name: str, question: Outcomes) -> None:
    assert math.fsum(a for row in scores(name, question) for a in row) == pytest.approx(0, abs=1e-9)


@given(question=bushes)
def test_intra_terms_sum_to_zero_in_every_tree(question: Outcomes) -> None:
    both, inter = scores("intra_inter", question), scores("group", question)
    for row, inter_row in zip(both, inter, strict=True):
        assert math.fsum(row) == pytest.approx(math.fsum(inter_row), abs=1e-9)


@given(question=st.lists(outcomes, min_size=1, max_size=8))
def test_chains_have_no_intra_term(question: list[tuple[float, Failure | None]]) -> None:
    chains: Outcomes = [[leaf] for leaf in question]
    assert scores("intra_inter", chains) == scores("group", chains)


@given(leaves=st.lists(outcomes, min_size=1, max_size=8))
def test_one_tree_is_twice_the_group(leaves: list[tuple[float, Failure | None]]) -> None:
    both, group = scores("intra_inter", [leaves]), scores("group", [leaves])
    assert both == [[2 * a for a in group[0]]]


@pytest.mark.parametrize("name", NAMES)
@given(question=bushes)
def test_failed_leaves_have_zero_and_change_nothing(name: str, question: Outcomes) -> None:
    def counts(failure: Failure | None) -> bool:
        return failure in (None, "policy")

    without: Outcomes = [[(r, f) for r, f in leaves if counts(f)] for leaves in question]
    for leaves, row, bare in zip(
        question, scores(name, question), scores(name, without), strict=True
    ):
        assert [a for a, (_, f) in zip(row, leaves, strict=True) if counts(f)] == bare
        assert all(a == 0 for a, (_, f) in zip(row, leaves, strict=True) if not counts(f))


@given(question=bushes)
def test_better_leaves_have_more_credit(question: Outcomes) -> None:
    for leaves, row in zip(question, scores("intra_inter", question), strict=True):
        scored = [(r, a) for (r, f), a in zip(leaves, row, strict=True) if f in (None, "policy")]
        for reward, advantage in scored:
            assert all(advantage >= a for r, a in scored if reward >= r)


@given(question=bushes)
def test_node_advantage_of_a_leaf_is_its_own(question: Outcomes) -> None:
    grown = trees(question)
    for tree, one in zip(grown, get_credit("group")(grown), strict=True):
        shown = node_advantage(tree, one)
        assert sorted(shown) == [node.id for node in tree.nodes[1:]]
        assert all(shown[leaf] == one[leaf][-1] for leaf in tree.leaves())
