"""Attention over packed trees: what the layout says, and that every backend computes it."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fakes_models import tiny_model
from tests.tree_layouts import (
    BUSH,
    Forest,
    Grown,
    forests,
    grow,
    inputs_of,
    is_token,
    packed,
    parts_of,
    visible,
    worst,
)
from treegrpo.attention import TreeLayout, attention_names, get_attention, tree_attention
from treegrpo.attention.base import PREFIX
from treegrpo.attention.dense import dense
from treegrpo.attention.flex import BLOCK, block_efficiency, block_mask, blocks, flex
from treegrpo.attention.segments import segments
from treegrpo.attention.varlen import along_paths, gather, paths, varlen
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.logprobs import token_logps
from treegrpo.pack import pack
from treegrpo.tree import Tree

ROWS = st.integers(1, 3)
MANY: list[Forest] = [[BUSH], [BUSH, [Grown(0, 4)], BUSH[:7]], [[Grown(0, 127)]], [[Grown(0, 128)]]]


def mask_of(layout: TreeLayout) -> Tensor:
    """What each token sees, [b, q, k]; nothing for padding."""
    return layout.mask_B1UU[:, 0] & is_token(layout)[:, :, None]


# The layout.


@given(forest=forests(), num_rows=ROWS)
def test_mask_is_ancestor_or_self(forest: Forest, num_rows: int) -> None:
    trees = grow(forest)
    batch = packed(trees, num_rows=num_rows)
    assert torch.equal(mask_of(batch.layout), visible(batch, trees))


@given(forest=forests(), budget=st.integers(0, 12))
def test_mask_of_cut_trees_is_ancestor_or_self(forest: Forest, budget: int) -> None:
    trees = grow(forest)
    longest = max(
        sum(tree.nodes[name].num_tokens for name in tree.path(leaf))
        for tree in trees
        for leaf in tree.leaves()
    )
    for part in parts_of(trees, longest + budget):
        (batch,) = pack([part], max_tokens=longest + budget)
        assert torch.equal(mask_of(batch.layout), visible(batch, trees))


@given(forest=forests(), num_rows=ROWS)
def test_padding_sees_itself_and_is_not_seen(forest: Forest, num_rows: int) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    mask_BUU, token_BU = layout.mask_B1UU[:, 0], is_token(layout)
    for mask_UU, token_U in zip(mask_BUU, token_BU, strict=True):
        assert torch.equal(mask_UU[~token_U], torch.eye(len(token_U), dtype=torch.bool)[~token_U])
        assert not mask_UU[token_U][:, ~token_U].any()


@given(forest=forests(), num_rows=ROWS)
def test_segments_hold_each_token_once_and_the_pairs_of_the_mask(
    forest: Forest, num_rows: int
) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    found_BUU = torch.zeros_like(layout.mask_B1UU[:, 0], dtype=torch.int64)
    for row, found_UU in zip(layout.segments, found_BUU, strict=True):
        assert [one.start for one in row] == [0, *(one.stop for one in row[:-1])]
        for one in row:
            for query in range(one.start, one.stop):
                for first, stop in one.above:
                    found_UU[query, first:stop] += 1
                found_UU[query, one.start : query + 1] += 1
    assert torch.equal(found_BUU, mask_of(layout).long())
    assert layout.num_pairs == int(found_BUU.sum())


@given(forest=forests(), num_rows=ROWS)
def test_positions_count_the_ancestors(forest: Forest, num_rows: int) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    depth_BU = (mask_of(layout).sum(2) - 1).clamp(min=0)
    assert torch.equal(layout.position_BU, depth_BU)


def test_a_chain_is_known_as_one() -> None:
    assert packed(grow([[Grown(0, 3, 2), Grown(1, 2)]])).layout.is_chain
    assert not packed(grow([[Grown(0, 3), Grown(0, 2)]])).layout.is_chain
    assert not packed(grow([[Grown(0, 3)], [Grown(0, 2)]])).layout.is_chain


# Every backend against dense.


def looped(
    query_QHD: Tensor,
    key_GKD: Tensor,
    value_GKD: Tensor,
    query_ends_L: Tensor,
    key_ends_L: Tensor,
    max_queries: int,
    max_keys: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """The documented meaning of varlen_attn, one sequence after the other."""
    assert window_size == (-1, 0) and query_ends_L.dtype == key_ends_L.dtype == torch.int32
    assert enable_gqa == (query_QHD.shape[1] != key_GKD.shape[1])
    num_queries, num_keys = query_ends_L.diff().tolist(), key_ends_L.diff().tolist()
    assert max_queries == max(num_queries) and max_keys == max(num_keys) and min(num_queries) > 0
    pieces: list[Tensor] = []
    keys, values = key_GKD.split(num_keys), value_GKD.split(num_keys)
    each = zip(query_QHD.split(num_queries), keys, values, strict=True)
    for query, key, value in each:
        mask = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        one = scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            attn_mask=mask,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        pieces.append(one[0].transpose(0, 1))
    return torch.cat(pieces)


def by_paths(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    return along_paths(looped, query, key, value, layout, scale)


WITH_GRADIENT = {"segments": segments, "varlen's gathering": by_paths}
HEADS = st.sampled_from([(4, 2), (3, 3), (4, 1)])


@pytest.mark.parametrize("backend", WITH_GRADIENT.values(), ids=list(WITH_GRADIENT))
@settings(max_examples=40)
@given(forest=forests(), num_rows=ROWS, heads=HEADS)
def test_backends_equal_dense_whatever_the_padding_holds(
    backend: Any, forest: Forest, num_rows: int, heads: tuple[int, int]
) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    of = functools.partial(inputs_of, layout, heads=heads[0], key_heads=heads[1])
    expected = of().attend(dense, layout)
    found = of(padding=50.0).attend(backend, layout)
    assert worst(found, expected, layout) <= 1e-12


@pytest.mark.parametrize("backend", WITH_GRADIENT.values(), ids=list(WITH_GRADIENT))
@pytest.mark.parametrize("forest", MANY, ids=["bush", "several", "127", "128"])
def test_backends_equal_dense_on_long_rows(backend: Any, forest: Forest) -> None:
    layout = packed(grow(forest), num_rows=2).layout
    inputs = inputs_of(layout)
    expected = inputs.attend(dense, layout)
    assert worst(inputs.attend(backend, layout), expected, layout) <= 1e-12
    inputs = inputs.to(torch.float32)
    assert worst(inputs.attend(backend, layout), expected, layout) <= 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("heads", [(4, 2), (2, 2)], ids=["grouped", "equal"])
@pytest.mark.parametrize("forest", MANY, ids=["bush", "several", "127", "128"])
def test_flex_equals_dense_forward(
    forest: Forest, heads: tuple[int, int], dtype: torch.dtype, limit: float
) -> None:
    """Forward only: torch computes flex's gradients on a GPU alone; see tests/gpu."""
    layout = packed(grow(forest), num_rows=2).layout
    of = functools.partial(inputs_of, layout, heads=heads[0], key_heads=heads[1])
    given_, clean = of(padding=50.0), of()
    given_ = given_.to(dtype)
    found = flex(given_.query_BHUD, given_.key_BKUD, given_.value_BKUD, layout, 0.4)
    expected = dense(clean.query_BHUD, clean.key_BKUD, clean.value_BKUD, layout, 0.4)
    assert found.dtype == dtype
    assert worst([found], [expected], layout) <= limit


def test_padding_is_zero_where_promised() -> None:
    layout = packed(grow([BUSH, [Grown(0, 4)]]), num_rows=2).layout
    assert not is_token(layout).all()
    for backend in (segments, by_paths):
        out_BHUD, *_ = inputs_of(layout, padding=3.0).attend(backend, layout)
        assert not out_BHUD.transpose(1, 2)[~is_token(layout)].any()


# Block lists of flex.


def in_blocks(layout: TreeLayout) -> Tensor:
    """The whole mask, padded: [b, block of queries, block of keys, pairs]."""
    mask_BUU = layout.mask_B1UU[:, 0]
    spare = -mask_BUU.shape[1] % BLOCK
    padded_BUU = torch.nn.functional.pad(mask_BUU, (0, spare, 0, spare))
    for column in range(mask_BUU.shape[1], padded_BUU.shape[1]):
        padded_BUU[:, column, column] = True
    number = padded_BUU.shape[1] // BLOCK
    split = padded_BUU.view(-1, number, BLOCK, number, BLOCK).transpose(2, 3)
    return split.flatten(3)


LONG = forests(longest=150)


EVEN: Forest = [[Grown(0, 255), Grown(1, 128), Grown(1, 256)]]
"""Subtrees that end where a block ends."""


@settings(max_examples=30)
@given(forest=LONG, num_rows=ROWS)
@example(forest=EVEN, num_rows=1)
def test_block_lists_are_those_of_the_mask(forest: Forest, num_rows: int) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    pairs = in_blocks(layout)
    seen_BNN, whole_BNN = blocks(layout)
    assert torch.equal(seen_BNN, pairs.any(3))
    assert torch.equal(whole_BNN, pairs.all(3))
    assert block_efficiency(layout) == layout.num_pairs / (int(pairs.any(3).sum()) * BLOCK**2)


@settings(max_examples=20)
@given(forest=LONG, num_rows=ROWS)
def test_block_mask_lists_each_block_once(forest: Forest, num_rows: int) -> None:
    layout = packed(grow(forest), num_rows=num_rows).layout
    seen_BNN, whole_BNN = blocks(layout)
    mask = block_mask(layout)
    partial = seen_BNN & ~whole_BNN
    columns = seen_BNN.shape[1] * BLOCK
    assert mask.seq_lengths == (columns, columns) and mask.BLOCK_SIZE == (BLOCK, BLOCK)
    assert torch.equal(listed(mask.kv_num_blocks, mask.kv_indices), partial.long())
    assert torch.equal(listed(mask.full_kv_num_blocks, mask.full_kv_indices), whole_BNN.long())
    assert torch.equal(listed(mask.q_num_blocks, mask.q_indices), partial.transpose(1, 2).long())
    whole_by_key = listed(mask.full_q_num_blocks, mask.full_q_indices)
    assert torch.equal(whole_by_key, whole_BNN.transpose(1, 2).long())


@pytest.mark.parametrize("forest", [*MANY, EVEN], ids=["bush", "several", "127", "128", "even"])
def test_block_mask_shows_the_pairs_of_the_mask(forest: Forest) -> None:
    layout = packed(grow(forest), num_rows=2).layout
    leave_BU = layout.leave_BU
    columns = leave_BU.shape[1] + -leave_BU.shape[1] % BLOCK
    expected = torch.eye(columns, dtype=torch.bool).repeat(len(leave_BU), 1, 1)
    expected[:, : leave_BU.shape[1], : leave_BU.shape[1]] = layout.mask_B1UU[:, 0]
    row = torch.arange(len(leave_BU))[:, None, None]
    query, key = torch.arange(columns)[None, :, None], torch.arange(columns)[None, None, :]
    assert torch.equal(block_mask(layout).mask_mod(row, row, query, key), expected)


def listed(count: Tensor | None, index: Tensor | None) -> Tensor:
    """How often each block stands in the lists, (B, N, N)."""
    assert count is not None and index is not None
    times = torch.zeros(index[:, 0].shape, dtype=torch.int64)
    for row, numbers in enumerate(count[:, 0].tolist()):
        for block, number in enumerate(numbers):
            for other in index[row, 0, block, :number].tolist():
                times[row, block, other] += 1
    return times


def test_block_efficiency_of_a_chain() -> None:
    layout = packed(grow([[Grown(0, 255)]])).layout
    assert block_efficiency(layout) == (256 * 257 / 2) / (3 * 128 * 128)


# What is kept with a layout.


@pytest.mark.parametrize("build", [block_mask, paths])
def test_made_once_per_layout_and_gone_with_it(build: Callable[[TreeLayout], Any]) -> None:
    layout, other = (packed(grow([BUSH])).layout for _ in range(2))
    made = build(layout)
    assert build(layout) is made
    assert build(other) is not made
    gone = weakref.ref(made)
    del made, layout
    gc.collect()
    assert gone() is None


class Sums(TorchDispatchMode):
    """Notes the number formats in which index_add adds."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "index_add" in str(func):
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_gathered_gradients_add_up_in_float32() -> None:
    """By format, as a CPU adds bfloat16 exactly anyway: on a GPU 256 + 1 would be 256."""
    value = torch.ones(2, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    grad = torch.ones(65, 1, 1, dtype=torch.bfloat16)
    grad[0] = 256
    with Sums() as sums:
        gather(value, torch.zeros(65, dtype=torch.long)).backward(grad)
    assert sums.dtypes == [torch.float32]
    assert value.grad is not None and value.grad.dtype == torch.bfloat16
    assert value.grad.flatten().tolist() == [320.0, 0.0]


# Refusals.


def test_varlen_names_what_to_use_instead() -> None:
    layout = packed(grow([BUSH])).layout
    with pytest.raises(TreegrpoError, match=r"'cpu'.*float64.*CUDA.*bfloat16.*attention=segments"):
        inputs_of(layout).attend(varlen, layout)


def test_flex_refuses_gradients_on_a_cpu() -> None:
    layout = packed(grow([BUSH])).layout
    with pytest.raises(TreegrpoError, match=r"Training.*'cpu'.*CUDA.*attention=segments"):
        inputs_of(layout).attend(flex, layout)


def test_unknown_backend_suggests_the_closest() -> None:
    with pytest.raises(UnknownOption, match=r"Unknown attention 'segmnts'.*'segments'"):
        get_attention("segmnts")
    with (
        pytest.raises(UnknownOption, match="Unknown attention 'flash'"),
        tree_attention(None, "flash"),
    ):
        pass
    assert {"dense", "flex", "segments", "varlen"} <= set(attention_names())


def test_recompilation_has_a_limit_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from treegrpo.attention import flex as module

    def settings_for(num_tokens: int) -> tuple[list[Tensor], Any]:
        layout = packed(grow([[Grown(0, num_tokens - 1)]])).layout
        one = inputs_of(layout, key_heads=4)
        mask = block_mask(layout)
        return [one.query_BHUD, one.key_BKUD, one.value_BKUD], mask

    rigid = torch.compile(module._FLEX, dynamic=False, backend="eager")
    monkeypatch.setattr(module, "MAX_RECOMPILES", 1)
    before = torch._dynamo.config.recompile_limit
    inputs, mask = settings_for(128)
    torch._dynamo.reset()
    module.guarded(rigid, *inputs, block_mask=mask)
    inputs, mask = settings_for(256)
    with pytest.raises(TreegrpoError, match=r"\(1, 4, 256, 8\).*compiled 1 kernels.*varlen"):
        module.guarded(rigid, *inputs, block_mask=mask)
    assert torch._dynamo.config.recompile_limit == before
    torch._dynamo.reset()


def test_lengths_do_not_recompile() -> None:
    from torch._dynamo.testing import CompileCounter

    from treegrpo.attention import flex as module

    counter = CompileCounter()
    torch._dynamo.reset()
    dynamic = module.compiled(counter)
    for blocks_ in range(2, 9):
        layout = packed(grow([[Grown(0, blocks_ * BLOCK - 1)]])).layout
        one = inputs_of(layout, key_heads=4).to(torch.float32)
        inputs = (one.query_BHUD, one.key_BKUD, one.value_BKUD)
        found = module.guarded(dynamic, *inputs, block_mask=block_mask(layout), scale=0.4)
        assert worst([found], [dense(*inputs, layout, 0.4)], layout) <= 1e-5
    assert counter.frame_count == 1
    torch._dynamo.reset()


# Through a model.


def changed(tree: Tree, name: int) -> Tree:
    """The tree with other ids in one node."""
    other = Tree(tree.question_id, tree.tree_id)
    for node in tree.nodes:
        shift = 7 if node.id == name else 0
        other.add(
            node.parent,
            action_ids=[(token + shift) % 61 for token in node.action_ids],
            action_logps=node.action_logps,
            observation_ids=[(token + shift) % 61 for token in node.observation_ids],
        )
    return other


@pytest.mark.parametrize("backend", ["dense", "segments", "flex"])
@settings(max_examples=15)
@given(forest=forests(), num_rows=st.integers(1, 2), data=st.data())
def test_siblings_do_not_see_each_other_bit_for_bit(
    backend: str, forest: Forest, num_rows: int, data: st.DataObject
) -> None:
    trees = [changed(tree, -1) for tree in grow(forest)]
    number = data.draw(st.integers(0, len(trees) - 1))
    name = data.draw(st.integers(1, len(trees[number].nodes) - 1))
    others = list(trees)
    others[number] = changed(trees[number], name)
    before, after = packed(trees, num_rows=num_rows), packed(others, num_rows=num_rows)
    below = {node.id for node in trees[number].nodes if name in trees[number].path(node.id)}
    is_below = [
        before.steps[step] in {(number, one) for one in below} for step in before.edges.step_E
    ]
    apart_E = ~torch.tensor(is_below, dtype=torch.bool)
    model = tiny_model("llama", layers=2).eval()
    with torch.no_grad():
        logps = [token_logps(model, batch, 0.9, backend) for batch in (before, after)]
    assert torch.equal(logps[0][apart_E], logps[1][apart_E])
    if trees[number].nodes[name].action_ids:
        assert not torch.equal(logps[0], logps[1])


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_log_probs_through_flex_equal_those_through_dense(family: Any) -> None:
    model = tiny_model(family).eval()
    batch = packed([changed(tree, -1) for tree in grow([BUSH, BUSH[:5]])], num_rows=2)
    with torch.no_grad():
        expected, found = (token_logps(model, batch, 0.9, name) for name in ("dense", "flex"))
    assert float((found - expected).abs().max()) <= 1e-4


def test_tree_attention_gives_the_model_its_own_back() -> None:
    model: Any = tiny_model()
    own = model.config._attn_implementation
    with tree_attention(model, "dense"):
        assert model.config._attn_implementation == PREFIX + "dense"
    assert model.config._attn_implementation == own
    with pytest.raises(ZeroDivisionError), tree_attention(model, "segments"):
        _ = 1 / 0
    assert model.config._attn_implementation == own
    with pytest.raises(UnknownOption), tree_attention(model, "no such"):
        pass
    assert model.config._attn_implementation == own
