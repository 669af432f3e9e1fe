"""The limit of the training speed-up: counts against brute force, S* against a published table."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM, Qwen3Config

from treegrpo.bound import Bound, ModelSizes, bound
from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Tree

QWEN_05B = ModelSizes(357_898_112, layers=24, d_attn=896, d_model=896, vocab_size=151_936)
QWEN_15B = ModelSizes(1_310_340_608, layers=28, d_attn=1536, d_model=1536, vocab_size=151_936)
SCRATCH_10M = ModelSizes(10_041_152, layers=8, d_attn=320, d_model=320, vocab_size=2048)
TINY = ModelSizes(100, layers=2, d_attn=8, d_model=8, vocab_size=10)

Segment = tuple[int | None, int]
"""(parent, tokens)"""


def tree_of(segments: Sequence[Segment]) -> Tree:
    """Return a tree whose steps are sampled tokens alone."""
    tree = Tree("q")
    for parent, tokens in segments:
        if parent is None:
            tree.add(None, observation_ids=[5] * tokens)
        else:
            tree.add(parent, action_ids=[5] * tokens, action_logps=[-1.0] * tokens)
    return tree


def group(leaves: int, prompt: int, answer: int) -> list[Segment]:
    return [(None, prompt), *[(0, answer)] * leaves]


def balanced(arity: int, depth: int, prompt: int, tokens: int) -> list[Segment]:
    plan: list[Segment] = [(None, prompt)]
    level = [0]
    for _ in range(depth):
        first = len(plan)
        plan += [(parent, tokens) for parent in level for _ in range(arity)]
        level = list(range(first, len(plan)))
    return plan


def forked_trunk(turns: int, prompt: int, tokens: int) -> list[Segment]:
    """A trunk and, from before each of its turns, a fork to the full length."""
    plan: list[Segment] = [(None, prompt), *((turn, tokens) for turn in range(turns))]
    return plan + [(turn, (turns - turn) * tokens) for turn in range(turns)]


def late_forks(trunk: int, forks: int, prompt: int, tokens: int) -> list[Segment]:
    """A trunk of some turns, at its end forks of two turns each."""
    plan: list[Segment] = [(None, prompt), *((turn, tokens) for turn in range(trunk))]
    return plan + [(trunk, 2 * tokens) for _ in range(forks)]


# leaves, U, T, rho, P ratio, S* of 0.5B, 1.5B and 10M; every token predicted.
TABLE = {
    "G8, P512, R256": (group(8, 512, 256), 8, 2_560, 6_144, 2.40, 1.64, 2.36, 2.38, 2.24),
    "G8, P2k, R256": (group(8, 2048, 256), 8, 4_096, 18_432, 4.50, 3.24, 4.35, 4.40, 3.95),
    "G16, P8k, R512": (group(16, 8192, 512), 16, 16_384, 139_264, 8.50, 5.90, 7.58, 7.83, 6.55),
    "binary 3": (balanced(2, 3, 512, 256), 8, 4_096, 10_240, 2.50, 1.75, 2.45, 2.46, 2.27),
    "binary 4": (balanced(2, 4, 1024, 512), 16, 16_384, 49_152, 3.00, 1.99, 2.83, 2.88, 2.47),
    "4-ary 2": (balanced(4, 2, 1024, 512), 16, 11_264, 32_768, 2.91, 1.88, 2.78, 2.83, 2.47),
    "trunk 8": (forked_trunk(8, 1024, 512), 9, 23_552, 46_080, 1.96, 1.46, 1.84, 1.88, 1.65),
    "trunk 16": (forked_trunk(16, 2048, 512), 17, 79_872, 174_080, 2.18, 1.57, 1.94, 2.00, 1.70),
    "late forks": (late_forks(6, 8, 1024, 512), 8, 12_288, 40_960, 3.33, 2.27, 3.07, 3.15, 2.65),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_computed_examples_come_out(name: str) -> None:
    segments, leaves, unique, flat, sharing, pairs, *limits = TABLE[name]
    tree = tree_of(segments)
    work = bound([tree], QWEN_05B)
    assert len(tree.leaves()) == leaves
    assert (work.unique_tokens, work.flat_tokens) == (unique, flat)
    assert work.sharing_ratio == pytest.approx(sharing, abs=0.005)
    assert work.flat_pairs / work.tree_pairs == pytest.approx(pairs, abs=0.005)
    for sizes, limit in zip((QWEN_05B, QWEN_15B, SCRATCH_10M), limits, strict=True):
        counts = (work.unique_tokens, work.flat_tokens, work.tree_pairs, work.flat_pairs)
        every = Bound(sizes, *counts, work.unique_tokens, work.flat_tokens)
        assert every.limit == pytest.approx(limit, abs=0.0051)


@pytest.mark.parametrize(("leaves", "prompt", "answer"), [(8, 512, 256), (3, 1, 7), (1, 4, 4)])
def test_sharing_of_a_group_is_its_closed_form(leaves: int, prompt: int, answer: int) -> None:
    closed = leaves * (prompt + answer) / (prompt + leaves * answer)
    work = bound([tree_of(group(leaves, prompt, answer))], TINY)
    assert work.sharing_ratio == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize(("arity", "depth"), [(2, 1), (2, 4), (3, 3), (4, 2)])
def test_sharing_of_a_balanced_tree_is_its_closed_form(arity: int, depth: int) -> None:
    closed = (depth + 1) * arity**depth * (arity - 1) / (arity ** (depth + 1) - 1)
    work = bound([tree_of(balanced(arity, depth, 6, 6))], TINY)
    assert work.sharing_ratio == pytest.approx(closed, rel=1e-12)


def test_a_trunk_forked_at_every_turn_shares_twice_and_late_forks_share_all() -> None:
    assert bound([tree_of(forked_trunk(60, 1, 4))], TINY).sharing_ratio == pytest.approx(2, abs=0.1)
    late = bound([tree_of(late_forks(300, 8, 1, 4))], TINY)
    assert late.sharing_ratio == pytest.approx(8, abs=0.4)


def test_operations_by_hand() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1, 1, 1])
    tree.add(0, action_ids=[1], action_logps=[-1.0], observation_ids=[1])
    tree.add(1, action_ids=[1, 1], action_logps=[-1.0, -1.0])
    tree.add(1, action_ids=[1], action_logps=[-1.0])
    work = bound([tree], TINY)
    # tokens 3 + 2 + 2 + 1; paths of 7 and 6; pairs 6, 4 + 5, 6 + 7, 6
    assert (work.unique_tokens, work.flat_tokens) == (8, 13)
    assert (work.tree_pairs, work.flat_pairs) == (34, 28 + 21)
    assert (work.tree_predictions, work.flat_predictions) == (4, 5)
    assert work.tree_flops == 6 * 100 * 8 + 6 * 8 * 10 * 4 + 12 * 2 * 8 * 34
    assert work.flat_flops == 6 * 100 * 13 + 6 * 8 * 10 * 5 + 12 * 2 * 8 * 49
    assert work.limit == work.flat_flops / work.tree_flops


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[3] * draw(st.integers(1, 5)))
    for number in range(draw(st.integers(1, 9))):
        sampled, observed = draw(st.integers(0, 4)), draw(st.integers(0, 4))
        tree.add(
            draw(st.integers(0, number)),
            action_ids=[3] * sampled,
            action_logps=[-1.0] * sampled,
            observation_ids=[3] * observed,
        )
    return tree


@settings(max_examples=60)
@given(st.lists(trees(), max_size=3), st.randoms(use_true_random=False))
def test_counts_are_those_of_tokens_counted_one_by_one(found: list[Tree], random) -> None:
    chosen = [[leaf for leaf in tree.leaves() if random.random() < 0.6] for tree in found]
    work = bound(found, TINY, chosen)
    once: dict[tuple[int, int, int], tuple[int, bool]] = {}
    every: list[tuple[int, bool]] = []
    for index, (tree, leaves) in enumerate(zip(found, chosen, strict=True)):
        for leaf in leaves:
            depth = 0
            for node in (tree.nodes[name] for name in tree.path(leaf)):
                for offset in range(node.num_tokens):
                    depth += 1
                    token = (depth, offset < len(node.action_ids))
                    once[index, node.id, offset] = token
                    every.append(token)
    tree_side = (work.unique_tokens, work.tree_pairs, work.tree_predictions)
    flat_side = (work.flat_tokens, work.flat_pairs, work.flat_predictions)
    for side, tokens in ((tree_side, list(once.values())), (flat_side, every)):
        pairs, predictions = sum(depth for depth, _ in tokens), sum(s for _, s in tokens)
        assert side == (len(tokens), pairs, predictions)


def test_leaves_that_train_nothing_are_not_counted() -> None:
    tree = tree_of([(None, 4), (0, 3), (1, 2), (1, 2), (0, 9)])
    both = bound([tree], TINY, [[2, 3]])
    assert (both.unique_tokens, both.flat_tokens) == (11, 18)
    one = bound([tree], TINY, [{4}])
    assert (one.unique_tokens, one.flat_tokens, one.limit) == (13, 13, 1.0)
    assert bound([tree], TINY) == bound([tree], TINY, [tree.leaves()])


def test_nothing_to_train_has_a_limit_of_one() -> None:
    for work in (bound([], TINY), bound([tree_of([(None, 4)])], TINY)):
        assert (work.unique_tokens, work.sharing_ratio, work.limit) == (0, 1.0, 1.0)


def test_trees_add_up() -> None:
    one, other = tree_of(group(3, 4, 5)), tree_of(balanced(2, 2, 3, 2))
    parts, whole = [bound([tree], TINY) for tree in (one, other)], bound([one, other], TINY)
    assert whole.tree_flops == sum(part.tree_flops for part in parts)
    assert whole.flat_flops == sum(part.flat_flops for part in parts)


@pytest.mark.parametrize("leaf", [-1, 0, 1, 5])
def test_what_is_not_a_leaf_is_refused(leaf: int) -> None:
    tree = tree_of([(None, 4), (0, 3), (1, 2), (1, 2), (0, 9)])
    with pytest.raises(TreegrpoError, match=rf"leaf {leaf}, but its leaves are \[2, 3, 4\]"):
        bound([tree], TINY, [[leaf]])


def test_leaves_of_another_number_of_trees_are_refused() -> None:
    with pytest.raises(TreegrpoError, match="1 trees asked for, with leaves of 2"):
        bound([tree_of(group(2, 3, 4))], TINY, [[1], [1]])


def qwen25(hidden: int, layers: int, heads: int, intermediate: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=intermediate,
        tie_word_embeddings=True,
    )


@pytest.mark.parametrize(
    ("config", "sizes"),
    [(qwen25(896, 24, 14, 4864), QWEN_05B), (qwen25(1536, 28, 12, 8960), QWEN_15B)],
    ids=["0.5B", "1.5B"],
)
def test_sizes_of_published_models(config: Qwen2Config, sizes: ModelSizes) -> None:
    before = json.dumps(config.to_dict(), default=str)
    assert ModelSizes.of_config(config) == sizes
    assert json.dumps(config.to_dict(), default=str) == before


def test_sizes_of_a_model_with_a_head_of_its_own_and_wide_heads() -> None:
    shape: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 16,
    }
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    for config_class in (Qwen3Config, LlamaConfig):
        for tied in (True, False):
            config = config_class(**shape, **heads, tie_word_embeddings=tied)
            sizes = ModelSizes.of_config(config)
            norms = 3 * 8 + (32 if config_class is Qwen3Config else 0)
            projections = 8 * 32 + 2 * 8 * 16 + 32 * 8
            assert sizes.body_params == projections + 3 * 8 * 16 + norms
            assert (sizes.d_attn, sizes.d_model, sizes.vocab_size) == (32, 8, 30)


def test_a_model_and_its_configuration_agree() -> None:
    config = qwen25(16, 2, 2, 24)
    config.vocab_size = 40
    assert ModelSizes.of(Qwen2ForCausalLM(config)) == ModelSizes.of_config(config)
    assert torch.get_default_device().type == "cpu"
