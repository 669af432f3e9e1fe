"""treegrpo.plan: the cheapest way is taken, by counting and never by the clock."""

import pytest

from tests.packed_trees import Grown, case_of
from treegrpo.bound import ModelSizes
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import FLAT, WHOLE
from treegrpo.pack import Weighted, pack
from treegrpo.plan import plan
from treegrpo.tree import Tree

SIZES = ModelSizes(body_params=10**7, layers=4, d_attn=256, d_model=256, vocab_size=4096)
TINY = ModelSizes(body_params=10**4, layers=2, d_attn=16, d_model=16, vocab_size=19)
EVERY = ("segments", "dense", FLAT)


def star(prompt: int, leaves: int, sampled: int) -> Weighted:
    """A prompt and its answers: sharing from none to nearly `leaves`."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1] * prompt)
    for _ in range(leaves):
        tree.add(0, action_ids=[2] * sampled, action_logps=[-1.0] * sampled)
    every = {leaf: [1.0] for leaf in tree.leaves()}
    return Weighted(tree, every, every)


def test_trees_that_share_much_are_packed() -> None:
    chosen = plan([star(900, 8, 100)], SIZES, ways=EVERY, max_tokens=4096)
    assert chosen.attention == "segments" and chosen.row_tokens is None
    [part] = chosen.parts
    assert part.tokens == 900 + 800 and len(part.leaves) == 8


def test_trees_that_share_nothing_are_flat() -> None:
    trees = [star(1, 1, 300) for _ in range(8)]
    chosen = plan(trees, SIZES, ways=EVERY, max_tokens=4096)
    assert (chosen.attention, chosen.row_tokens) == (FLAT, 1) and len(chosen.parts) == 8
    [batch] = pack(chosen.parts, max_tokens=4096, row_tokens=chosen.row_tokens)
    assert batch.layout.is_chain and batch.ids_BU.shape == (8, 301)


def forked(prompt: int, trunk: int, sampled: int) -> Weighted:
    """A prompt, one step that forks in two, and a long step on each branch."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1] * prompt)
    for above, count in ((0, trunk), (1, sampled), (1, sampled)):
        tree.add(above, action_ids=[2] * count, action_logps=[-1.0] * count)
    every = {leaf: [1.0, 1.0] for leaf in tree.leaves()}
    return Weighted(tree, every, every)


@pytest.mark.parametrize(("trunk", "way"), [(4, FLAT), (400, "segments")])
def test_forks_that_share_next_to_nothing_are_flat(trunk: int, way: str) -> None:
    """14 tokens of 414 are shared: less than what more calls and pairs cost."""
    trees = [forked(10, trunk, 400) for _ in range(4)]
    chosen = plan(trees, SIZES, ways=EVERY, max_tokens=4096)
    assert chosen.attention == way and chosen.row_tokens == (1 if way == FLAT else None)
    assert sum(len(part.leaves) for part in chosen.parts) == 8


def test_short_trees_of_a_small_model_are_dense() -> None:
    """A kernel call more costs more than the pairs it saves."""
    trees = [star(30, 4, 10) for _ in range(6)]
    chosen = plan(trees, TINY, ways=EVERY, max_tokens=4096)
    assert (chosen.attention, chosen.row_tokens) == ("dense", 70)


@pytest.mark.parametrize("name", [*EVERY, WHOLE, "flex", "varlen"])
def test_only_what_is_allowed_is_chosen(name: str) -> None:
    chosen = plan([star(20, 3, 5)], SIZES, ways=[name], max_tokens=100)
    assert chosen.attention == name and chosen.flops > 0
    assert sum(len(part.leaves) for part in chosen.parts) == 3
    assert len(chosen.parts) == (3 if name in (FLAT, WHOLE) else 1)


def test_the_first_of_equals_is_taken() -> None:
    for ways in ([FLAT, WHOLE], [WHOLE, FLAT]):
        assert plan([star(20, 3, 5)], SIZES, ways=ways, max_tokens=100).attention == ways[0]


def test_a_plan_is_the_same_every_time() -> None:
    case = case_of([[Grown(0, 3, 2), Grown(1, 2), Grown(1, 4), Grown(0, 2)]] * 3)
    trees = case.weighted("path", "token_mean")
    first, second = (plan(trees, SIZES, ways=EVERY, max_tokens=40) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", EVERY)
def test_more_to_compute_costs_more(name: str) -> None:
    """By leaves, by length, by trees and by the size of the model."""

    def cost(trees: list[Weighted], sizes: ModelSizes = SIZES) -> float:
        return plan(trees, sizes, ways=[name], max_tokens=10_000).flops

    base = cost([star(100, 4, 20)])
    assert 0 < base < cost([star(100, 5, 20)]) and base < cost([star(101, 4, 20)])
    assert base < cost([star(100, 4, 20)] * 2) and base > cost([star(100, 4, 20)], TINY)


def test_the_more_is_shared_the_better_trees_become() -> None:
    """From flat to trees once, as the prompt grows, and never back."""
    chosen = [
        plan([star(prompt, 4, 100)], SIZES, ways=EVERY, max_tokens=10_000).attention
        for prompt in (1, 20, 50, 100, 200, 400, 800, 1600)
    ]
    is_flat = [name == FLAT for name in chosen]
    assert is_flat == sorted(is_flat, reverse=True)
    assert chosen[-1] == "segments"


def test_padding_counts() -> None:
    """Flat rows of one length cost less than the same tokens in rows of two."""
    even, uneven = [star(50, 1, 50)] * 2, [star(80, 1, 100), star(10, 1, 10)]
    costs = [plan(t, SIZES, ways=[FLAT], max_tokens=1000).flops for t in (even, uneven)]
    assert costs[0] < costs[1]


def test_leaves_without_advantage_are_planned_only_where_needed() -> None:
    one = star(20, 3, 5)
    trees = [Weighted(one.tree, {leaf: [0.0] for leaf in one.weights}, one.weights)]
    assert plan(trees, SIZES, ways=EVERY, max_tokens=100).parts == []
    assert plan(trees, SIZES, ways=EVERY, max_tokens=100, need_all=True).parts


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(TreegrpoError, match=r"nothing to choose from\. Allow at least one way\."):
        plan([star(20, 3, 5)], SIZES, ways=[], max_tokens=100)


def test_a_path_over_the_budget_is_an_error_whatever_the_way() -> None:
    for name in EVERY:
        with pytest.raises(TreegrpoError, match="Batches of at most 24 tokens asked for"):
            plan([star(20, 3, 5)], SIZES, ways=[name], max_tokens=24)
