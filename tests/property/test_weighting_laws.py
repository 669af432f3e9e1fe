"""Laws of weightings and normalisers that hold for every question.

Each question that is drawn is put to every weighting and normaliser under the law.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from treegrpo.tree import Failure, Tree
from treegrpo.weighting import NORMALISERS, Shares, get_weighting, token_weights

NAMES = ["depth", "leaf", "path", "unique"]
FAILURES: list[Failure | None] = [None, None, None, "policy", "tool"]
# Where each node hangs (counted back from the newest), how many tokens it has, who failed.
nodes = st.tuples(st.integers(0, 6), st.integers(0, 4), st.sampled_from(FAILURES))
questions = st.lists(st.lists(nodes, max_size=12), min_size=1, max_size=3)
chains = st.lists(st.lists(nodes, max_size=5), min_size=1, max_size=4)
Nodes = list[tuple[int, int, Failure | None]]


def grown(spec: Nodes, is_chain: bool = False) -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for back, tokens, failure in spec:
        above = 0 if is_chain else max(len(tree.nodes) - 1 - back, 0)
        above = len(tree.nodes) - 1 if is_chain else above
        ids = [5] * tokens
        tree.add(above, action_ids=ids, action_logps=[-1.0] * tokens, failure=failure)
    return tree


def each(names: Sequence[str]) -> Iterator[str]:
    """Yield the names; the last one noted is the one that fails."""
    for name in names:
        note(name)
        yield name


def scored(tree: Tree, node: int) -> list[int]:
    """The scored leaves below a node, found the slow way."""
    return [leaf for leaf in tree.leaves_below(node) if tree.nodes[leaf].has_outcome]


def steps(tree: Tree) -> list[int]:
    return [node.id for node in tree.nodes[1:] if scored(tree, node.id)]


def tokens(tree: Tree, node: int) -> int:
    return len(tree.nodes[node].action_ids)


def length(tree: Tree, leaf: int) -> int:
    return sum(tokens(tree, node) for node in tree.path(leaf))


def sums(tree: Tree, shares: Shares) -> dict[int, float]:
    """The sum of each step's shares over the leaves below."""
    found = {node: [0.0] for node in steps(tree)}
    for leaf, row in shares.items():
        for node, share in zip(tree.path(leaf)[1:], row, strict=True):
            found[node].append(share)
    return {node: math.fsum(row) for node, row in found.items()}


def share_by_hand(name: str, trees: Sequence[Tree], tree: Tree, leaf: int, node: int) -> float:
    """The documented definitions, one (leaf, step) at a time."""
    if name == "path":
        walk = 1.0
        for above in tree.path(leaf)[:-1]:
            walk /= len([c for c in tree.nodes[above].children if scored(tree, c)])
        return walk
    if name == "depth":
        d = tree.nodes[node].depth
        # Lengthen each ended episode by steps of its own, and count the steps at depth d.
        wide = [n for t in trees for n in steps(t) if t.nodes[n].depth == d]
        ended = [n for t in trees for n in t.scored_leaves() if t.nodes[n].depth < d]
        num_trees = sum(bool(t.scored_leaves()) for t in trees)
        return num_trees / (len(wide) + len(ended)) / len(scored(tree, node))
    return 1.0 if name == "leaf" else 1 / len(scored(tree, node))


@given(specs=chains)
def test_without_forks_every_share_is_exactly_one(specs: list[Nodes]) -> None:
    trees = [grown(spec, is_chain=True) for spec in specs]
    for name in each(NAMES):
        for tree, shares in zip(trees, get_weighting(name)(trees), strict=True):
            assert shares == {leaf: [1.0] * tree.nodes[leaf].depth for leaf in tree.scored_leaves()}


@given(specs=questions)
def test_shares_are_what_is_documented(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    for name in each(NAMES):
        for tree, shares in zip(trees, get_weighting(name)(trees), strict=True):
            assert list(shares) == tree.scored_leaves(), "a failed leaf has no share"
            for leaf, row in shares.items():
                by_hand = [share_by_hand(name, trees, tree, leaf, n) for n in tree.path(leaf)[1:]]
                assert row == pytest.approx(by_hand, rel=1e-12)


@given(specs=questions)
def test_path_shares_of_the_children_sum_to_the_parents(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    for tree, shares in zip(trees, get_weighting("path")(trees), strict=True):
        total = {**sums(tree, shares), 0: 1.0}
        for node in (0, *steps(tree)):
            below = [total[child] for child in tree.nodes[node].children if child in total]
            assert not below or math.fsum(below) == pytest.approx(total[node], rel=1e-12)
            assert len(set(below)) <= 1, "children count the same"


@given(specs=questions)
def test_unique_gives_each_step_the_same_total(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    for tree, shares in zip(trees, get_weighting("unique")(trees), strict=True):
        assert list(sums(tree, shares).values()) == pytest.approx([1.0] * len(steps(tree)))


@given(specs=questions)
def test_depth_gives_the_steps_of_a_depth_the_same_total(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    by_depth: dict[int, list[float]] = {}
    for tree, shares in zip(trees, get_weighting("depth")(trees), strict=True):
        for node, total in sums(tree, shares).items():
            by_depth.setdefault(tree.nodes[node].depth, []).append(total)
    for totals in by_depth.values():
        assert totals == pytest.approx([totals[0]] * len(totals))
    # At depth 1 nothing has ended: the steps stand for the trees, exactly.
    num_trees = sum(bool(tree.scored_leaves()) for tree in trees)
    assert math.fsum(by_depth.get(1, [])) == pytest.approx(num_trees)


@given(specs=questions, at=st.integers(0, 100))
def test_a_failed_leaf_changes_nothing(specs: list[Nodes], at: int) -> None:
    trees = [grown(spec) for spec in specs]
    before = [get_weighting(name)(trees) for name in NAMES]
    inner = [node.id for node in trees[0].nodes if node.children] or [0]
    trees[0].add(inner[at % len(inner)], action_ids=[5], action_logps=[-1.0], failure="sandbox")
    assert [get_weighting(name)(trees) for name in NAMES] == before


@given(specs=questions, constant=st.integers(1, 50))
def test_token_weights_are_what_is_documented(specs: list[Nodes], constant: int) -> None:
    trees = [grown(spec) for spec in specs]
    for name in each(NAMES):
        shares = get_weighting(name)(trees)
        for normaliser in each(NORMALISERS):
            _require_token_weights(trees, shares, normaliser, constant)


def _require_token_weights(
    trees: list[Tree], shares: list[Shares], normaliser: str, constant: int
) -> None:
    weights = token_weights(shares, trees, normaliser, constant)
    pairs = [
        (i, leaf, j, tokens(tree, node))
        for i, tree in enumerate(trees)
        for leaf in tree.scored_leaves()
        if length(tree, leaf)
        for j, node in enumerate(tree.path(leaf)[1:])
    ]
    raw = {
        (i, leaf, j): shares[i][leaf][j]
        / (length(trees[i], leaf) if normaliser == "sequence_mean" else 1)
        for i, leaf, j, _ in pairs
    }
    if normaliser == "constant":
        total = constant * math.fsum(s for (_, _, j), s in raw.items() if j == 0)
    else:
        total = math.fsum(raw[i, leaf, j] * n for i, leaf, j, n in pairs)
    found = {
        (i, leaf, j): w
        for i, one in enumerate(weights)
        for leaf, row in one.items()
        for j, w in enumerate(row)
    }
    assert found == pytest.approx({key: s / total for key, s in raw.items()}, rel=1e-12)
    if pairs and normaliser != "constant":
        assert math.fsum(found[i, leaf, j] * n for i, leaf, j, n in pairs) == pytest.approx(1)


@given(specs=questions, constant=st.integers(1, 50))
def test_a_constant_makes_first_steps_share_one_over_it(specs: list[Nodes], constant: int) -> None:
    trees = [grown(spec) for spec in specs]
    for name in each(NAMES):
        weights = token_weights(get_weighting(name)(trees), trees, "constant", constant)
        first = [row[0] for one in weights for row in one.values()]
        assert math.fsum(first) == pytest.approx(1 / constant if first else 0)


@given(specs=questions)
def test_leaf_weights_are_those_of_the_flat_batch(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    shares = get_weighting("leaf")(trees)
    rows = [length(t, leaf) for t in trees for leaf in t.scored_leaves() if length(t, leaf)]
    expected = {
        "token_mean": [1 / sum(rows) for _ in rows],
        "sequence_mean": [1 / (len(rows) * n) for n in rows],
        "constant": [1 / (len(rows) * 8) for _ in rows],
    }
    for normaliser, by_row in expected.items():
        weights = token_weights(shares, trees, normaliser, 8)
        found = [row for one in weights for row in one.values()]
        assert all(len(set(row)) == 1 for row in found)
        assert [row[0] for row in found] == pytest.approx(by_row, rel=1e-12)


@given(specs=questions)
def test_unique_by_token_counts_each_sampled_token_once(specs: list[Nodes]) -> None:
    trees = [grown(spec) for spec in specs]
    # A leaf that sampled nothing on its whole path shares no token with anybody.
    num_unique = sum(tokens(tree, node) for tree in trees for node in steps(tree))
    weights = token_weights(get_weighting("unique")(trees), trees, "token_mean", 1)
    for tree, one in zip(trees, weights, strict=True):
        for node, total in sums(tree, one).items():
            assert not tokens(tree, node) or total == pytest.approx(1 / num_unique)


@given(specs=questions, scale=st.floats(0.1, 10))
def test_the_scale_of_shares_is_of_no_matter(specs: list[Nodes], scale: float) -> None:
    trees = [grown(spec) for spec in specs]
    for name in each(NAMES):
        shares = get_weighting(name)(trees)
        scaled = [{leaf: [s * scale for s in row] for leaf, row in one.items()} for one in shares]
        for normaliser in each(NORMALISERS):
            before = token_weights(shares, trees, normaliser, 8)
            after = token_weights(scaled, trees, normaliser, 8)
            for one, other in zip(before, after, strict=True):
                assert other == {leaf: pytest.approx(row, rel=1e-9) for leaf, row in one.items()}
