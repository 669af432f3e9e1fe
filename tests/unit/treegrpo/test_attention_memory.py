"""What attention over packed trees builds and keeps: nothing of all pairs, but for `dense`."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.tree_layouts import Grown, grow, inputs_of, packed, worst
from treegrpo.attention import TreeLayout
from treegrpo.attention.dense import dense
from treegrpo.attention.flex import block_mask
from treegrpo.attention.segments import segments
from treegrpo.attention.varlen import Paths, paths
from treegrpo.tree import Tree


class Largest(TorchDispatchMode):
    """Notes the most numbers that the memory behind any operation's result holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                held = one.untyped_storage().nbytes() // one.element_size()
                self.numel = max(self.numel, held)
        return result


def wide_tree(num_tokens: int) -> list[Tree]:
    """A tree of many short branches and exactly so many tokens."""
    rng = random.Random(0)
    steps, left = list[Grown](), num_tokens - 1
    while left:
        size = min(left, rng.randint(8, 40))
        steps.append(Grown(rng.randint(len(steps) // 2, len(steps)), size))
        left -= size
    return grow([steps])


def test_nothing_of_all_pairs_is_built_but_by_dense() -> None:
    num_tokens = 4096
    trees = wide_tree(num_tokens)
    with Largest() as largest:
        layout = packed(trees).layout
        assert layout.leave_BU.shape == (1, num_tokens)
        block_mask(layout)
    assert num_tokens <= largest.numel <= 2 * num_tokens
    with Largest() as largest:
        keys = len(paths(layout).key_G)
    assert largest.numel == keys < num_tokens**2 / 8
    with Largest() as largest:
        assert layout.mask_B1UU.any()
    assert largest.numel == num_tokens**2


LONG = 700


@pytest.fixture
def long_leaf() -> TreeLayout:
    """A prompt with a short leaf, and a long one whose path begins elsewhere in the row."""
    return packed(grow([[Grown(0, 9), Grown(0, 5), Grown(1, LONG)]])).layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_long_leaf_costs_segments_nothing_of_its_length_squared(
    long_leaf: TreeLayout, dtype: torch.dtype
) -> None:
    inputs = inputs_of(long_leaf, heads=2, key_heads=1, size=4, dtype=dtype)
    expected = inputs.attend(dense, long_leaf)
    with Largest() as largest:
        found = inputs.attend(segments, long_leaf)
    columns = long_leaf.leave_BU.shape[1]
    assert LONG < largest.numel <= 3 * columns * 2 * 4 < LONG**2 / 10
    assert worst(found, expected, long_leaf) <= (1e-12 if dtype == torch.float64 else 1e-5)


def test_segments_keep_nothing_with_a_layout_but_which_columns_they_are(
    long_leaf: TreeLayout,
) -> None:
    before = set(vars(long_leaf))
    inputs_of(long_leaf).attend(segments, long_leaf)
    [kept] = [vars(long_leaf)[name] for name in set(vars(long_leaf)) - before]
    assert isinstance(kept, Paths)
    held = sum(one.numel() for one in vars(kept).values() if isinstance(one, Tensor))
    assert held <= 3 * long_leaf.leave_BU.shape[1]
