"""treegrpo.pack: every leaf once, every token of a row once, budgets kept, ids as sampled."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.packed_trees import (
    SHAPES,
    Case,
    Forest,
    Grown,
    case_of,
    forests,
    model_of,
    trained_leaves,
)
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import token_logps
from treegrpo.pack import (
    PAIR_COST,
    PackedBatch,
    Part,
    Weighted,
    cut,
    fill,
    group,
    pack,
    share_out,
    span,
    split,
)
from treegrpo.tree import Tree, path_hash

BUSH = SHAPES["five levels"]


def bush(seed: int = 1) -> Case:
    return case_of(BUSH, seed)


def weighted(case: Case) -> list[Weighted]:
    return case.weighted("leaf", "token_mean")


def path_ids(tree: Tree, leaf: int) -> list[int]:
    nodes = [tree.nodes[step] for step in tree.path(leaf)]
    return [token for node in nodes for token in (*node.action_ids, *node.observation_ids)]


def parts_of_sizes(*sizes: int) -> list[Part]:
    """Parts of one step each, of that many tokens and one more."""
    return split([_one_step(number, size) for number, size in enumerate(sizes)], 10**6)


def _one_step(number: int, size: int) -> Weighted:
    tree = Tree("q", number)
    tree.add(None, observation_ids=[1])
    tree.add(0, action_ids=[2] * size, action_logps=[-1.0] * size)
    return Weighted(tree, {1: [1.0]}, {1: [1.0]})


@given(forest=forests(max_trees=3), seed=st.integers(0, 99), slack=st.integers(0, 20))
@settings(max_examples=60)
def test_parts_hold_each_leaf_once_within_the_budget(forest: Forest, seed: int, slack: int) -> None:
    case = case_of(forest, seed)
    parts = split(weighted(case), case.longest + slack, need_all=True)
    found = [(part.number, leaf) for part in parts for leaf in part.leaves]
    wanted = [(n, leaf) for n, tree in enumerate(case.trees) for leaf in trained_leaves(tree)]
    assert sorted(found) == wanted
    for part in parts:
        tree = case.trees[part.number]
        assert part.tokens <= case.longest + slack
        assert set(part.nodes) == {step for leaf in part.leaves for step in tree.path(leaf)}
        depths: list[int] = []
        for step in part.nodes:
            node = tree.nodes[step]
            first = len(path_ids(tree, step)) - node.num_tokens
            inside = [child for child in node.children if child in part.nodes]
            # An observation that only empty nodes follow predicts nothing.
            is_idle = step != 0 and inside and not any(_tokens_in(tree, c) for c in inside)
            count = len(node.action_ids) if is_idle else node.num_tokens
            depths += range(first, first + count)
        assert part.tokens == len(depths) and part.pairs == sum(depth + 1 for depth in depths)
        assert part.cost == part.tokens + PAIR_COST * part.pairs


def test_a_part_is_in_depth_first_order_whatever_the_order_of_its_leaves() -> None:
    [one] = weighted(bush())
    part = span(one, 0, one.tree.leaves()[::-1])
    assert part.nodes == _preorder(one.tree, 0)
    assert part.nodes != sorted(part.nodes)


def _tokens_in(tree: Tree, name: int) -> int:
    """Return the tokens of a subtree."""
    return tree.nodes[name].num_tokens + sum(_tokens_in(tree, c) for c in tree.nodes[name].children)


def test_an_observation_that_ended_its_episode_needs_no_room() -> None:
    """Where the context has no room for one more step, an empty node ends the episode."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1, 2])
    tree.add(0, action_ids=[3], action_logps=[-1.0], observation_ids=[4] * 100)
    tree.add(1, truncated=True, end_reason="context_limit")
    tree.add(0, action_ids=[5], action_logps=[-1.0], terminated=True)
    every = {leaf: [1.0] * tree.nodes[leaf].depth for leaf in tree.leaves()}
    [batch] = pack(split([Weighted(tree, every, every)], max_tokens=4), max_tokens=4)
    assert batch.ids_BU.tolist() == [[1, 2, 3, 5]] and batch.target_E.tolist() == [3, 5]


def _preorder(tree: Tree, name: int) -> list[int]:
    below = [_preorder(tree, child) for child in tree.nodes[name].children]
    return [name, *itertools.chain.from_iterable(below)]


def test_a_cut_repeats_the_path_and_nothing_else() -> None:
    [one] = weighted(bush())
    longest = max(len(path_ids(one.tree, leaf)) for leaf in one.tree.leaves())
    parts = cut(one, 0, one.tree.leaves(), longest + 2)
    assert len(parts) > 2
    order = [name for name in _preorder(one.tree, 0) if not one.tree.nodes[name].children]
    assert [leaf for part in parts for leaf in part.leaves] == order
    for before, after in itertools.pairwise(parts):
        shared = set(before.nodes) & set(after.nodes)
        assert shared <= set(one.tree.path(after.leaves[0])) and 0 in shared
        step = one.tree.path(after.leaves[0])
        more = len(set(before.nodes) | set(step)) and sum(
            one.tree.nodes[name].num_tokens for name in {*before.nodes, *step}
        )
        assert more > longest + 2, "a leaf that still fits is not cut off"
    assert cut(one, 0, [], 5) == []


def test_nothing_is_cut_that_fits() -> None:
    [one] = weighted(bush())
    assert [part.nodes for part in split([one], one.tree.unique_tokens, need_all=True)] == [
        _preorder(one.tree, 0)
    ]
    assert len(split([one], one.tree.unique_tokens - 1, need_all=True)) == 2


def test_flat_parts_are_the_paths() -> None:
    case = bush()
    [tree] = case.trees
    parts = split(weighted(case), 100, share=False, need_all=True)
    assert [part.nodes for part in parts] == [tree.path(leaf) for leaf in tree.leaves()]


def test_leaves_without_advantage_are_computed_only_where_needed() -> None:
    case = bush()
    [tree], first = case.trees, case.trees[0].leaves()[0]
    case.credits[0][first] = [0.0] * tree.nodes[first].depth
    for need_all in (False, True):
        [part] = split(weighted(case), 100, need_all=need_all)
        assert (first in part.leaves) is need_all
        assert set(part.leaves) | {first} == set(tree.leaves())


def test_failed_leaves_are_left_out() -> None:
    case = case_of(SHAPES["failed leaves"])
    [part] = split(weighted(case), 100, need_all=True)
    assert part.leaves == [3, 4, 5] and 2 not in part.nodes


@pytest.mark.parametrize("share", [True, False])
def test_a_path_over_the_budget_is_one_clear_error(share: bool) -> None:
    with pytest.raises(TreegrpoError) as caught:
        split([_one_step(3, 9)], max_tokens=9, share=share)
    assert str(caught.value) == (
        "Batches of at most 9 tokens asked for (micro_batch_tokens), but the path to leaf 1 of "
        "tree 3 of question 'q' has 10, and a path cannot be cut. Raise micro_batch_tokens, or "
        "lower max_context_tokens."
    )
    assert len(split([_one_step(3, 9)], max_tokens=10, share=share)) == 1


@given(st.lists(st.integers(1, 20), max_size=12), st.integers(1, 30))
def test_rows_hold_each_part_once_and_keep_to_their_length(sizes: list[int], most: int) -> None:
    parts = parts_of_sizes(*sizes)
    rows = fill(parts, most)
    assert sorted(part.number for row in rows for part in row) == list(range(len(parts)))
    assert all(row for row in rows)
    assert all(len(row) == 1 or sum(part.tokens for part in row) <= most for row in rows)
    total = sum(min(part.tokens, most) for part in parts)
    assert total <= len(rows) * most and len(rows) <= 2 * total / most + 1


def test_rows_are_of_even_cost() -> None:
    """First-fit alone would make rows of 12 and 4."""
    rows = fill(parts_of_sizes(3, 3, 3, 3), 12)
    assert [sum(part.tokens for part in row) for row in rows] == [8, 8]


def test_rows_beside_one_that_is_over_full_are_of_even_cost() -> None:
    """First-fit would fill 10 + 2 and leave 2 alone."""
    rows = fill(parts_of_sizes(14, 4, 4, 1, 1), 12)
    assert [[part.tokens for part in row] for row in rows] == [[15], [5, 2], [5, 2]]


def test_what_even_rows_cannot_hold_is_filled_first_fit() -> None:
    """Dealt out by cost, 6 + 6 | 4 + 4 + 4 would be 6 + 4 + 4 | 6 + 4: one row too long."""
    rows = fill(parts_of_sizes(5, 5, 3, 3, 3), 12)
    assert [[part.tokens for part in row] for row in rows] == [[6, 6], [4, 4, 4]]


def test_ranks_share_the_cost() -> None:
    parts = parts_of_sizes(9, 1, 5, 5, 1, 3)
    shares = share_out(parts, 2)
    assert [sorted(part.tokens - 1 for part in share) for share in shares] == [[3, 9], [1, 1, 5, 5]]
    costs = [sum(part.cost for part in share) for share in shares]
    assert max(costs) - min(costs) <= max(part.cost for part in parts)
    assert share_out(parts[:1], 3) == [parts[:1], [], []]


def test_batches_count_their_padding() -> None:
    rows = [[part] for part in parts_of_sizes(2, 9, 3, 4)]
    lengths = [[row[0].tokens for row in one] for one in group(rows, 10)]
    assert lengths == [[10], [5, 4], [3]]
    assert [len(one) for one in group(rows, 1)] == [1, 1, 1, 1], "a long row is a batch of its own"


def nodes_by_column(batch: PackedBatch, case: Case) -> Iterator[tuple[int, int, int]]:
    """Yield (row, column, number of the step) by the edges' targets."""
    width = batch.ids_BU.shape[1]
    for edge, step in enumerate(batch.edges.step_E.tolist()):
        yield (*divmod(int(batch.predictor_E[edge]), width), step)


@given(
    forest=forests(max_trees=3),
    seed=st.integers(0, 99),
    row_tokens=st.sampled_from([None, 1, 15, 40]),
    share=st.booleans(),
)
@example(forest=SHAPES["empty steps"], seed=0, row_tokens=None, share=True)
@example(forest=[[Grown(0, 2), Grown(1, 2), Grown(1, 0)]], seed=0, row_tokens=None, share=True)
@settings(max_examples=60)
def test_a_batch_says_where_each_token_stands(
    forest: Forest, seed: int, row_tokens: int | None, share: bool
) -> None:
    """Walking up the columns that a token may see gives its path, and its depth."""
    case = case_of(forest, seed)
    max_tokens = case.longest + 10
    parts = split(weighted(case), max_tokens, share=share, need_all=True)
    batches = pack(parts, max_tokens=max_tokens, row_tokens=row_tokens)
    seen: list[tuple[int, tuple[int, ...]]] = []
    for batch in batches:
        rows, width = batch.ids_BU.shape
        assert rows * width <= max_tokens
        for row, column, step in nodes_by_column(batch, case):
            leave = batch.layout.leave_BU[row].tolist()
            above = [k for k in range(column + 1) if leave[k] > column]
            assert batch.layout.position_BU[row, above].tolist() == list(range(len(above)))
            number, name = batch.steps[step]
            seen.append((number, (name, *batch.ids_BU[row, above].tolist())))
        assert all(s.start < s.stop for row in batch.layout.segments for s in row)
        assert batch.num_tokens == sum(
            int(column < end)
            for row in range(rows)
            for end in [max((s.stop for s in batch.layout.segments[row]), default=0)]
            for column in range(width)
        )
    wanted = [
        (part.number, (name, *above))
        for part in parts
        for name in part.nodes
        for above in _contexts(case.trees[part.number], name)
    ]
    assert sorted(seen) == sorted(wanted)


def _contexts(tree: Tree, name: int) -> list[tuple[int, ...]]:
    """Return what stands before each sampled token of a step."""
    ids = path_ids(tree, name)
    start = len(ids) - tree.nodes[name].num_tokens
    return [tuple(ids[: start + at]) for at in range(len(tree.nodes[name].action_ids))]


def test_targets_and_numbers_belong_to_their_edges() -> None:
    case = bush()
    [tree], [source] = case.trees, weighted(case)
    [batch] = pack(split([source], 100, need_all=True), max_tokens=100, dtype=torch.float64)
    for number, (_, name) in enumerate(batch.steps):
        own = batch.edges.step_E == number
        assert batch.target_E[own].tolist() == tree.nodes[name].action_ids
        assert batch.edges.old_logp_E[own].tolist() == tree.nodes[name].action_logps
    branches = batch.edges.branches
    assert (branches.num_leaves, branches.num_steps) == (7, len(tree.nodes) - 1)
    order = [name for name in _preorder(tree, 0) if not tree.nodes[name].children]
    assert branches.leaf_P.unique().tolist() == list(range(7))
    for number, leaf in enumerate(order):
        own = branches.leaf_P == number
        path = [batch.steps[step][1] for step in branches.step_P[own].tolist()]
        assert path == tree.path(leaf)[1:]
        assert branches.adv_P[own].tolist() == case.credits[0][leaf]
        assert branches.weight_P[own].tolist() == source.weights[leaf]


@pytest.mark.parametrize("weighting", ["leaf", "path", "depth", "unique"])
@pytest.mark.parametrize("normaliser", ["token_mean", "sequence_mean"])
def test_the_weights_of_all_edges_sum_to_one(weighting: str, normaliser: str) -> None:
    case = case_of(SHAPES["several trees"])
    parts = split(case.weighted(weighting, normaliser), case.longest, need_all=True)
    batches = pack(parts, max_tokens=case.longest, dtype=torch.float64)
    total = sum(float(batch.edges.weight_E.sum()) for batch in batches)
    assert len(batches) > 2 and total == pytest.approx(1, abs=1e-12)


def test_padding_sees_itself_and_is_seen_by_nobody() -> None:
    parts = [*parts_of_sizes(2), *split(weighted(bush()), 100, need_all=True)]
    [batch] = pack(parts, max_tokens=200, row_tokens=1)
    row = min(range(2), key=lambda index: len(batch.layout.segments[index]))
    mask_UU = batch.layout.mask_B1UU[row, 0]
    width = mask_UU.shape[0]
    assert mask_UU[3:].tolist() == torch.eye(width, dtype=torch.bool)[3:].tolist()
    assert not mask_UU[:3, 3:].any() and mask_UU[:3, :3].equal(torch.ones(3, 3).tril().bool())
    assert batch.ids_BU[row, 3:].unique().tolist() == [0]
    assert batch.layout.position_BU[row, 3:].unique().tolist() == [0]
    assert batch.num_tokens == 3 + bush().trees[0].unique_tokens


def test_a_row_of_several_trees_keeps_them_apart() -> None:
    case = case_of(SHAPES["several trees"])
    parts = split(weighted(case), 1000, need_all=True)
    [batch] = pack(parts, max_tokens=1000)
    assert batch.ids_BU.shape == (1, sum(tree.unique_tokens for tree in case.trees))
    starts = [c for c, at in enumerate(batch.layout.position_BU[0].tolist()) if at == 0]
    assert len(starts) == 3
    mask_UU = batch.layout.mask_B1UU[0, 0]
    for start in starts[1:]:
        assert not mask_UU[start:, :start].any() and not mask_UU[:start, start:].any()


def test_pack_is_deterministic() -> None:
    case = case_of(SHAPES["several trees"])
    first, second = (
        pack(split(weighted(case), case.longest, need_all=True), max_tokens=60, row_tokens=20)
        for _ in range(2)
    )
    assert [batch.steps for batch in first] == [batch.steps for batch in second]
    assert all(a.ids_BU.equal(b.ids_BU) for a, b in zip(first, second, strict=True))


def test_nothing_to_pack_is_no_batch() -> None:
    assert pack([], max_tokens=5) == [] and fill([], 5) == []
    assert split([], 5) == []


@pytest.mark.parametrize("part", ["action_ids", "observation_ids"])
def test_ids_other_than_the_sampled_ones_are_refused(part: str) -> None:
    case = bush()
    node = case.trees[0].nodes[1]
    getattr(node, part)[0] += 1
    parts = split(weighted(case), 100, need_all=True)
    with pytest.raises(TreegrpoError) as caught:
        pack(parts, max_tokens=100)
    assert str(caught.value) == (
        "Node 1 of tree 0 of question 'q' is to be trained on ids other than those that were "
        "sampled. Never re-tokenise or edit a node."
    )


def test_a_token_moved_from_observation_to_action_is_refused() -> None:
    case = bush()
    node = case.trees[0].nodes[1]
    node.action_ids.append(node.observation_ids.pop(0))
    node.action_logps.append(-1.0)
    with pytest.raises(TreegrpoError, match="other than those that were sampled"):
        pack(split(weighted(case), 100, need_all=True), max_tokens=100)


def test_what_is_trained_hashes_to_what_was_sampled() -> None:
    """Read back from the rows, by leaf."""
    case = bush()
    [tree] = case.trees
    parts = split(weighted(case), 99, share=False, need_all=True)
    batches = pack(parts, max_tokens=99, row_tokens=1)
    rows = [row for batch in batches for row in batch.ids_BU.tolist()]
    assert len(rows) == 7
    for leaf in tree.leaves():
        nodes, at, segments = [tree.nodes[step] for step in tree.path(leaf)], 0, []
        row = next(row for row in rows if row[: len(path_ids(tree, leaf))] == path_ids(tree, leaf))
        for node in nodes:
            middle, end = at + len(node.action_ids), at + node.num_tokens
            segments.append((row[at:middle], row[middle:end]))
            at = end
        assert path_hash(segments) == tree.nodes[leaf].content_hash


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out


@pytest.mark.parametrize(("attention", "is_square"), [("segments", False), ("dense", True)])
def test_no_tensor_is_as_large_as_all_pairs(attention: str, is_square: bool) -> None:
    """But for `dense`, which is the reference, forward and backward."""
    steps = [Grown(0, 5, 10), *(Grown(1 + n // 3, 10, 5) for n in range(39))]
    rng = random.Random(0)
    tree = Tree("q")
    tree.add(None, observation_ids=[3] * 20)
    for step in steps:
        ids = [rng.randrange(19) for _ in range(step.sampled)]
        tree.add(step.parent, action_ids=ids, action_logps=[-1.0] * len(ids), observation_ids=[1])
    every = {leaf: [1.0] * tree.nodes[leaf].depth for leaf in tree.leaves()}
    largest = Largest()
    with largest:
        [part] = split([Weighted(tree, every, every)], 10**6)
        [batch] = pack([part], max_tokens=10**6)
        logp_E = token_logps(model_of(torch.float32), batch, 1.0, attention)
        logp_E.sum().backward()
    for weight in model_of(torch.float32).parameters():
        weight.grad = None
    width = batch.num_tokens
    assert width > 400 and (largest.numbers >= width**2) is is_square
