"""A batch is linear in its leaves: however they are divided, losses and gradients add up."""

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packed_proof import Expected, Trained, gap, norms, trained
from tests.packed_trees import (
    SHAPES,
    TEMPERATURE,
    WAYS,
    Case,
    Forest,
    Grown,
    batches_of,
    case_of,
    forests,
    grow,
    model_of,
    parameters,
)
from treegrpo.credit import get_credit
from treegrpo.losses import LossOptions, loss_names, summarise
from treegrpo.pack import PackedBatch, Part, Weighted, pack, share_out, split
from treegrpo.tree import Tree
from treegrpo.weighting import NORMALISERS, weighting_names

SUMS_OVER_LEAVES = [name for name in loss_names() if name != "step_dpo"]


def assert_same(one: Trained, two: Trained) -> None:
    """Compare the loss, and the gradient parameter by parameter.

    The weights of these batches sum to 1 and credit is of order 1: so are the sum of the
    loss's terms and its slope, which `gap` compares with where terms cancel.
    """
    sizes_P = norms(model_of(), one.gradient_W)
    flat = Expected(one.loss, one.gradient_W, 1.0, 1.0, sizes_P)
    found = gap(model_of(), flat, two.loss, two.gradient_W)
    assert found.loss <= 1e-10 and found.gradient <= 1e-10


def parts_of(trees: Sequence[Weighted], max_tokens: int) -> list[Part]:
    return split(trees, max_tokens, need_all=True)


def packed(parts: Sequence[Part], max_tokens: int, rows: int | None) -> list[PackedBatch]:
    return pack(parts, max_tokens=max_tokens, row_tokens=rows, dtype=torch.float64)


@pytest.mark.parametrize("name", loss_names())
@given(
    forest=forests(max_trees=3),
    seed=st.integers(0, 2**20),
    slack=st.integers(0, 30),
    row_tokens=st.sampled_from([None, 1, 9, 25]),
    way=st.sampled_from(["dense", "segments"]),
)
@settings(max_examples=12)
def test_no_budget_changes_the_gradient(
    name: str, forest: Forest, seed: int, slack: int, row_tokens: int | None, way: str
) -> None:
    """From the longest path up; nor do the metrics change."""
    case = case_of(forest, seed)
    trees = case.weighted("path", "token_mean")
    whole = trained(batches_of(trees, "dense"), "dense", name, case.pairs)
    parts = parts_of(trees, case.longest + slack)
    cut = trained(packed(parts, case.longest + slack, row_tokens), way, name, case.pairs)
    assert_same(whole, cut)
    metrics, other = summarise(whole.metrics), summarise(cut.metrics)
    metrics.pop("preference_accuracy", None)  # a margin of 0 counts or not, as it is rounded
    assert {name: other[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)


@pytest.mark.parametrize("name", SUMS_OVER_LEAVES)
@given(
    forest=forests(max_trees=3),
    seed=st.integers(0, 2**20),
    num_ranks=st.integers(2, 5),
    is_dealt_at_random=st.booleans(),
)
@settings(max_examples=10)
def test_any_division_of_the_leaves_adds_up(
    name: str, forest: Forest, seed: int, num_ranks: int, is_dealt_at_random: bool
) -> None:
    """Among ranks or micro-batches; some may have nothing to do."""
    case = case_of(forest, seed)
    trees = case.weighted("leaf", "sequence_mean")
    whole = trained(batches_of(trees, "segments"), "segments", name)
    parts = parts_of(trees, case.longest)
    if is_dealt_at_random:
        rng = random.Random(seed)
        shares: list[list[Part]] = [[] for _ in range(num_ranks)]
        for part in parts:
            rng.choice(shares).append(part)
    else:
        shares = share_out(parts, num_ranks)
    each = [trained(packed(share, 10**6, None), "segments", name) for share in shares]
    gradient_W = torch.stack([one.gradient_W for one in each]).sum(0)
    assert_same(whole, Trained(sum(one.loss for one in each), gradient_W, []))


def permuted(case: Case, rng: random.Random) -> Case:
    """Return the same trees with the children of every node in another order."""
    trees, credits, renamed = list[Tree](), [], dict[tuple[int, int], tuple[int, int]]()
    for number, (tree, credit) in enumerate(zip(case.trees, case.credits, strict=True)):
        other, new = Tree("q", tree.tree_id), {0: 0}
        other.add(None, observation_ids=tree.nodes[0].observation_ids)
        pending = list(tree.nodes[0].children)
        while pending:
            node = tree.nodes[pending.pop(rng.randrange(len(pending)))]
            assert node.parent is not None
            new[node.id] = other.add(
                new[node.parent],
                action_ids=node.action_ids,
                action_logps=node.action_logps,
                observation_ids=node.observation_ids,
                failure=node.failure,
            ).id
            pending += node.children
        trees.append(other)
        credits.append({new[leaf]: list(row) for leaf, row in credit.items()})
        renamed.update({(number, old): (number, name) for old, name in new.items()})
    pairs = [(renamed[better], renamed[worse], weight) for better, worse, weight in case.pairs]
    return Case(trees, credits, pairs)


@pytest.mark.parametrize("name", loss_names())
@pytest.mark.parametrize("shape", ["star", "five levels", "empty steps", "several trees"])
def test_the_order_of_siblings_does_not_matter(shape: str, name: str) -> None:
    case = case_of(SHAPES[shape], seed=5)
    other = permuted(case, random.Random(1))
    orders = [
        [[node.action_ids for node in tree.nodes] for tree in one.trees] for one in (case, other)
    ]
    assert orders[0] != orders[1]
    for way in WAYS:
        one, two = (
            trained(batches_of(c.weighted("depth", "token_mean"), way), way, name, c.pairs)
            for c in (case, other)
        )
        assert_same(one, two)


@pytest.mark.parametrize("name", loss_names())
def test_where_nothing_is_shared_packed_is_flat(name: str) -> None:
    """Chains: the same tokens, the same edges, every weighting the same."""
    chains = [
        [Grown(0, 2, 1), Grown(1, 3)],
        [Grown(0, 1, 2), Grown(1, 2, 2), Grown(2, 1)],
        [Grown(0, 4)],
    ]
    case = case_of(chains, seed=2)
    total = sum(tree.unique_tokens for tree in case.trees)
    found = []
    for weighting in weighting_names():
        for way in WAYS:
            batches = batches_of(case.weighted(weighting, "token_mean"), way)
            assert sum(batch.num_tokens for batch in batches) == total
            found.append(trained(batches, way, name, case.pairs))
    for other in found[1:]:
        assert_same(found[0], other)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("way", WAYS)
def test_without_forks_the_default_is_plain_grpo(way: str, normaliser: str) -> None:
    """GRPO of one group of chains, row by row and token by token."""
    rewards = [0.25, 1.0, 0.0, 1.0]
    chains = [[Grown(0, 2, 2), Grown(1, 1 + n, 1), Grown(2, 2)] for n in range(len(rewards))]
    case = case_of(chains, seed=4)
    for tree, reward in zip(case.trees, rewards, strict=True):
        tree.nodes[-1].reward = reward
    group = Case(case.trees, get_credit("group")(case.trees), [])
    batches = batches_of(group.weighted("leaf", normaliser), way)
    options = LossOptions(clip_low=0.1, clip_high=0.3)
    loss, gradient_W, _ = trained(batches, way, "grpo", options=options)

    by_hand = plain_grpo(case.trees, rewards, normaliser)
    grads = torch.autograd.grad(by_hand, parameters(model_of()))
    expected_W = torch.cat([grad.flatten() for grad in grads])
    assert loss == pytest.approx(float(by_hand.detach()), abs=1e-12) and abs(loss) > 1e-3
    assert float((gradient_W - expected_W).norm()) <= 1e-12 * float(expected_W.norm())


def plain_grpo(trees: list[Tree], rewards: list[float], normaliser: str) -> torch.Tensor:
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    adv_B = (reward_B - reward_B.mean()) / (reward_B.std() + 1e-6)
    total = torch.zeros((), dtype=torch.float64)
    lengths = [sum(len(node.action_ids) for node in tree.nodes) for tree in trees]
    for tree, adv, length in zip(trees, adv_B.tolist(), lengths, strict=True):
        context: list[int] = []
        weight = {
            "token_mean": 1 / sum(lengths),
            "sequence_mean": 1 / len(trees) / length,
            "constant": 1 / len(trees) / 7,
        }[normaliser]
        for node in tree.nodes:
            for token, old in zip(node.action_ids, node.action_logps, strict=True):
                logits_V = model_of()(input_ids=torch.tensor([context])).logits[0, -1]
                ratio = (torch.log_softmax(logits_V / TEMPERATURE, -1)[token] - old).exp()
                held = ratio.clamp(1 - 0.1, 1 + 0.3)
                total = total - weight * torch.minimum(ratio * adv, held * adv)
                context.append(token)
            context += node.observation_ids
    return total


def test_gspo_of_a_tree_is_gspo_of_its_rows() -> None:
    """One ratio per leaf, also where leaves share steps: as if each were a tree of its own."""
    case = case_of(SHAPES["five levels"], seed=8)
    trees = case.weighted("leaf", "sequence_mean")
    [tree] = trees
    shared = trained(batches_of(trees, "segments"), "segments", "gspo")
    rows: list[Weighted] = []
    for leaf in tree.weights:
        alone, above = Tree("q", leaf), 0
        alone.add(None, observation_ids=tree.tree.nodes[0].observation_ids)
        for name in tree.tree.path(leaf)[1:]:
            node = tree.tree.nodes[name]
            above = alone.add(
                above,
                action_ids=node.action_ids,
                action_logps=node.action_logps,
                observation_ids=node.observation_ids,
            ).id
        rows.append(Weighted(alone, {above: tree.credit[leaf]}, {above: tree.weights[leaf]}))
    assert sum(row.tree.unique_tokens for row in rows) > 2 * tree.tree.unique_tokens
    assert_same(trained(batches_of(rows, "dense"), "dense", "gspo"), shared)


def test_these_shapes_are_what_their_names_say() -> None:
    twins = grow(SHAPES["identical siblings"][0], random.Random(0))
    assert twins.nodes[1].action_ids == twins.nodes[2].action_ids
    deepest = {
        name: max(node.depth for node in grow(SHAPES[name][0], random.Random(0)).nodes)
        for name in ("five levels", "deep", "star")
    }
    assert deepest == {"five levels": 5, "deep": 9, "star": 1}
