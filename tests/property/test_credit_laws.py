"""Laws of credit that hold for every question, whatever the rewards and shapes.

Each question that is drawn is put to every estimator under the law.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tests.credit_trees import Drawn, build, drawn_steps
from treegrpo.credit import credit_names, get_credit, node_advantage, sibling_preferences
from treegrpo.tree import Failure, Tree

NAMES = ["group", "intra_inter"]
LINEAR = ["leave_one_out", "rtpo", "sibling", "spo", "treepo", "treerl"]
BY_STEP = ["rtpo", "sibling", "spo", "treerl"]
ALL = [*NAMES, *LINEAR, "gigpo"]
SHIFTABLE = [name for name in ALL if name != "gigpo"]
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


def each(names: Sequence[str]) -> Iterator[str]:
    """Yield the estimators; the last one noted is the one that fails."""
    for name in names:
        note(f"estimator {name}")
        yield name


def scores(name: str, question: Outcomes) -> list[list[float]]:
    grown = trees(question)
    return [[row[-1] for row in one.values()] for one in get_credit(name)(grown)]


@given(question=bushes, scale=st.floats(0.5, 20), shift=st.floats(-5, 5))
def test_affine_invariance(question: Outcomes, scale: float, shift: float) -> None:
    moved: Outcomes = [[(scale * r + shift, f) for r, f in leaves] for leaves in question]
    # z = d / (s + EPS) becomes d / (s + EPS / scale); |z| < sqrt(n) <= 4.5, s >= 1/8 / sqrt(n).
    bound = 2 * 4.5 * EPS * (1 + 1 / scale) / (1 / 8 / 4.5)
    for name in each(NAMES):
        for before, after in zip(scores(name, question), scores(name, moved), strict=True):
            assert after == pytest.approx(before, abs=bound)


@given(question=bushes, data=st.data())
def test_the_order_of_trees_and_leaves_is_of_no_matter(
    question: Outcomes, data: st.DataObject
) -> None:
    # Tenths: their sums do depend on the order, unless the mean is taken exactly.
    question = [[(r * 0.8, failure) for r, failure in leaves] for leaves in question]
    orders = [data.draw(st.permutations(range(len(leaves)))) for leaves in question]
    tree_order = data.draw(st.permutations(range(len(question))))
    shuffled = [[question[t][k] for k in orders[t]] for t in tree_order]
    for name in each(NAMES):
        before = scores(name, question)
        assert scores(name, shuffled) == [[before[t][k] for k in orders[t]] for t in tree_order]


@given(question=bushes)
def test_advantages_of_a_question_sum_to_zero(question: Outcomes) -> None:
    for name in each(NAMES):
        total = math.fsum(a for row in scores(name, question) for a in row)
        assert total == pytest.approx(0, abs=1e-9)


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


@given(question=bushes)
def test_failed_leaves_have_zero_and_change_nothing(question: Outcomes) -> None:
    def counts(failure: Failure | None) -> bool:
        return failure in (None, "policy")

    without: Outcomes = [[(r, f) for r, f in leaves if counts(f)] for leaves in question]
    for name in each(NAMES):
        before, after = scores(name, question), scores(name, without)
        for leaves, row, bare in zip(question, before, after, strict=True):
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


# From here on: trees of any shape. A question is its drawn trees and the state they start in.
drawn = st.lists(drawn_steps(), min_size=1, max_size=3)
Question = Sequence[Sequence[Drawn]]


def grow(question: Question) -> list[Tree]:
    return [build(steps, "s", i) for i, steps in enumerate(question)]


def rows(name: str, question: Question) -> list[dict[int, list[float]]]:
    return get_credit(name)(grow(question))


def leaves_of(steps: Sequence[Drawn]) -> list[int]:
    return [n for n in range(1, len(steps) + 1) if all(step.parent != n for step in steps)]


def is_scored(step: Drawn) -> bool:
    return step.failure in (None, "policy")


def renumbered(steps: Sequence[Drawn], order: Sequence[int]) -> list[Drawn]:
    """The steps in another order, parents before children; `order` holds old numbers."""
    new = {0: 0} | {old: n for n, old in enumerate(order, start=1)}
    return [steps[old - 1]._replace(parent=new[steps[old - 1].parent]) for old in order]


def test_every_estimator_is_under_law() -> None:
    assert sorted(ALL) == credit_names()


@given(question=drawn, data=st.data())
def test_the_order_of_siblings_and_trees_is_of_no_matter(
    question: Question, data: st.DataObject
) -> None:
    orders: list[list[int]] = []
    for steps in question:
        order: list[int] = []
        ready = [n for n, step in enumerate(steps, start=1) if step.parent == 0]
        while ready:
            old = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
            order.append(old)
            ready += [n for n, step in enumerate(steps, start=1) if step.parent == old]
        orders.append(order)
    tree_order = data.draw(st.permutations(range(len(question))))
    trees, shuffled = grow(question), grow([renumbered(question[t], orders[t]) for t in tree_order])
    for name in each(ALL):
        before, after = get_credit(name)(trees), get_credit(name)(shuffled)
        for one, t in zip(after, tree_order, strict=True):
            assert {orders[t][leaf - 1]: row for leaf, row in one.items()} == before[t]


@given(question=drawn)
def test_all_trees_share_one_root(question: Question) -> None:
    # The trees' steps, one tree after the other, hung under a single root.
    starts = [sum(map(len, question[:i])) for i in range(len(question))]
    merged: list[Drawn] = []
    for start, steps in zip(starts, question, strict=True):
        merged += [step._replace(parent=step.parent and step.parent + start) for step in steps]
    trees, whole = grow(question), grow([merged])
    for name in each([name for name in ALL if name != "intra_inter"]):
        apart = get_credit(name)(trees)
        assert get_credit(name)(whole)[0] == {
            leaf + start: row
            for start, one in zip(starts, apart, strict=True)
            for leaf, row in one.items()
        }


@given(question=drawn)
def test_a_failed_leaf_has_zero_and_is_as_if_never_grown(question: Question) -> None:
    kept: list[list[int]] = []
    for steps in question:
        scored = {leaf for leaf in leaves_of(steps) if is_scored(steps[leaf - 1])}
        for n in range(len(steps), 0, -1):
            if n in scored:
                scored.add(steps[n - 1].parent)
        kept.append(sorted(scored - {0}))
    trees = grow(question)
    pruned = grow([renumbered(s, keep) for s, keep in zip(question, kept, strict=True)])
    for name in each(ALL):
        before, after = get_credit(name)(trees), get_credit(name)(pruned)
        for one, rest, keep, steps in zip(before, after, kept, question, strict=True):
            assert {keep[leaf - 1]: row for leaf, row in rest.items()} == {
                leaf: row for leaf, row in one.items() if is_scored(steps[leaf - 1])
            }
            for leaf, row in one.items():
                assert is_scored(steps[leaf - 1]) or not any(row)


@given(question=drawn, shift=st.integers(-40, 40))
def test_a_constant_added_to_all_rewards_changes_nothing(question: Question, shift: int) -> None:
    def moved(steps: Sequence[Drawn]) -> list[Drawn]:
        ends = leaves_of(steps)
        return [
            step._replace(eighths=step.eighths + shift * (n in ends))
            for n, step in enumerate(steps, start=1)
        ]

    trees, shifted = grow(question), grow([moved(steps) for steps in question])
    for name in each(SHIFTABLE):
        before, after = get_credit(name)(trees), get_credit(name)(shifted)
        for one, other in zip(before, after, strict=True):
            assert list(one) == list(other)
            for leaf, row in one.items():
                assert other[leaf] == pytest.approx(row, abs=1e-9)
                assert name in NAMES or other[leaf] == row


@given(question=drawn)
def test_credit_without_a_deviation_is_linear_in_the_rewards(question: Question) -> None:
    turned = [[step._replace(eighths=-4 * step.eighths) for step in steps] for steps in question]
    before, after = grow(question), grow(turned)
    for name in each(LINEAR):
        for one, other in zip(get_credit(name)(before), get_credit(name)(after), strict=True):
            assert other == {leaf: [-4 * a for a in row] for leaf, row in one.items()}


@given(question=drawn, reward=st.sampled_from([0.1, 1 / 3, -3.7, 1e9 / 7]))
def test_equal_rewards_give_exactly_zero(question: Question, reward: float) -> None:
    trees = [build([step._replace(eighths=0) for step in steps], "s") for steps in question]
    for tree in trees:
        for leaf in tree.leaves():
            tree.nodes[leaf].reward = reward
    for name in each(SHIFTABLE):
        for one in get_credit(name)(trees):
            assert not any(a for row in one.values() for a in row)
    assert sibling_preferences(trees) == []


@given(question=drawn)
def test_leaves_that_share_a_step_share_its_credit(question: Question) -> None:
    trees = [build(steps, "s") for steps in question]
    for name in each(BY_STEP):
        for tree, one in zip(trees, get_credit(name)(trees), strict=True):
            seen: dict[int, float] = {}
            for leaf in tree.scored_leaves():
                for step, advantage in zip(tree.path(leaf)[1:], one[leaf], strict=True):
                    assert seen.setdefault(step, advantage) == advantage


@given(question=drawn)
def test_siblings_sum_to_zero_at_every_fork(question: Question) -> None:
    trees = [build(steps, "s") for steps in question]
    for name in each(["rtpo", "sibling"]):
        _require_zero_sums(name, trees)


def _require_zero_sums(name: str, trees: list[Tree]) -> None:
    first: list[float] = []
    for tree, one in zip(trees, get_credit(name)(trees), strict=True):
        by_step = {
            step: advantage
            for leaf in tree.scored_leaves()
            for step, advantage in zip(tree.path(leaf)[1:], one[leaf], strict=True)
        }
        for node in tree.nodes:
            group = [by_step[child] for child in node.children if child in by_step]
            if node.parent is None:
                first += group
            elif len(group) > 1:
                assert math.fsum(group) == pytest.approx(0, abs=1e-12)
            elif group:
                assert group[0] == (by_step[node.id] if name == "sibling" else 0)
    assert math.fsum(first) == pytest.approx(0, abs=1e-12)


@given(question=drawn)
def test_sibling_is_rtpo_wherever_rtpo_speaks(question: Question) -> None:
    for whole, forked in zip(rows("sibling", question), rows("rtpo", question), strict=True):
        for leaf, row in forked.items():
            assert all(a in (0, b) for a, b in zip(row, whole[leaf], strict=True))


@given(chains=st.lists(st.tuples(rewards, st.integers(1, 4)), min_size=1, max_size=6))
def test_without_forks_all_are_the_reward_minus_its_mean(chains: list[tuple[float, int]]) -> None:
    question: Question = [
        [Drawn(n, round(8 * r) if n == length - 1 else 0) for n in range(length)]
        for r, length in chains
    ]
    n = len(chains)
    gaps = [r - fmean(reward for reward, _ in chains) for r, _ in chains]
    found = {name: [row for one in rows(name, question) for row in one.values()] for name in LINEAR}
    for i, (gap, (_, length)) in enumerate(zip(gaps, chains, strict=True)):
        rloo, none = n / max(n - 1, 1) * gap, [0.0] * (length - 1)
        expected = {
            "leave_one_out": [rloo] * length,
            "rtpo": [rloo, *none],
            "sibling": [rloo] * length,
            "spo": [gap, *none],
            "treepo": [gap] * length,
            "treerl": [2 * gap, *[gap] * (length - 1)],
        }
        for name, row in expected.items():
            assert found[name][i] == pytest.approx(row, abs=1e-12), name


@given(chains=st.lists(rewards, min_size=1, max_size=6))
def test_one_step_from_one_state_has_twice_the_group(chains: list[float]) -> None:
    question: Question = [[Drawn(0, round(8 * r))] for r in chains]
    for both, one in zip(rows("gigpo", question), rows("group", question), strict=True):
        assert both == {1: [2 * one[1][0]]}


@given(question=drawn)
def test_preferences_go_one_way(question: Question) -> None:
    trees = [build(steps, "s") for steps in question]
    values = {(i, n): tree.value(n) for i, tree in enumerate(trees) for n in range(len(tree.nodes))}
    pairs = sibling_preferences(trees)
    assert len({frozenset((pair.better, pair.worse)) for pair in pairs}) == len(pairs)
    for pair in pairs:
        better, worse = values[pair.better], values[pair.worse]
        assert better is not None and worse is not None
        assert pair.gap == pytest.approx(better - worse) and pair.gap > 0
