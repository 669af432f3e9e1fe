"""Layouts of drawn trees, what each token must see, and inputs for attention.

Every token of a forest has an id of its own, so a packed row tells where each of its tokens
comes from, and what it may see follows from the trees alone.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from hypothesis import strategies as st
from torch import Tensor

from treegrpo.attention import Backend, TreeLayout
from treegrpo.pack import PackedBatch, Part, Weighted, pack, split
from treegrpo.tree import Tree

NO_LIMIT = 10**6


class Grown(NamedTuple):
    """A step of a tree to be built; steps are numbered from 1, the root is 0."""

    parent: int
    sampled: int
    observed: int = 0


Forest: TypeAlias = Sequence[Sequence[Grown]]

BUSH = [
    Grown(0, 30, 7), Grown(1, 45), Grown(1, 20, 30), Grown(3, 64, 64), Grown(3, 5), Grown(4, 130),
    Grown(4, 1, 1), Grown(6, 33), Grown(6, 34, 0), Grown(0, 3), Grown(0, 0, 2), Grown(7, 129),
]  # fmt: skip
"""Five levels, a leaf at the root, one of observations only, empty observations; 642 tokens."""


@st.composite
def forests(draw: st.DrawFn, longest: int = 6) -> Forest:
    """Draw one tree of four levels or more, and up to two of any shape."""
    sizes = st.integers(0, longest)

    def step(above: int) -> Grown:
        return Grown(draw(st.integers(0, above)), draw(sizes), draw(st.integers(0, 2)))

    trunk = [Grown(level, draw(sizes), draw(st.integers(0, 2))) for level in range(4)]
    first = trunk + [step(above) for above in range(4, 4 + draw(st.integers(1, 5)))]
    numbers = draw(st.lists(st.integers(1, 5), max_size=2))
    return [first, *([step(above) for above in range(number)] for number in numbers)]


def grow(forest: Forest) -> list[Tree]:
    """Return the trees; the ids count up from 1 through all of them."""
    last = 0

    def ids(count: int) -> list[int]:
        nonlocal last
        last += count
        return list(range(last - count + 1, last + 1))

    trees: list[Tree] = []
    for number, steps in enumerate(forest):
        tree = Tree("q", number)
        tree.add(None, observation_ids=ids(1 + number))
        for one in steps:
            logps = [0.0] * one.sampled
            sampled, observed = ids(one.sampled), ids(one.observed)
            tree.add(one.parent, action_ids=sampled, action_logps=logps, observation_ids=observed)
        trees.append(tree)
    return trees


def parts_of(trees: Sequence[Tree], max_tokens: int = NO_LIMIT) -> list[Part]:
    """Return the parts of the trees, every leaf counted."""
    every = [{leaf: [1.0] * tree.nodes[leaf].depth for leaf in tree.leaves()} for tree in trees]
    weighted = [Weighted(tree, one, one) for tree, one in zip(trees, every, strict=True)]
    return split(weighted, max_tokens, need_all=True)


def packed(trees: Sequence[Tree], *, num_rows: int = 1) -> PackedBatch:
    """Return the trees as one batch: one row, or about `num_rows` of unequal length."""
    parts = parts_of(trees)
    total, longest = sum(part.tokens for part in parts), max(part.tokens for part in parts)
    return pack(parts, max_tokens=NO_LIMIT, row_tokens=max(longest, -(-total // num_rows)))[0]


def visible(batch: PackedBatch, trees: Sequence[Tree]) -> Tensor:
    """Return which columns each column must see, [b, q, k]; nothing for padding. By the trees."""
    above: dict[int, set[int]] = {}
    for tree in trees:
        for node in tree.nodes:
            seen: set[int] = set()
            for name in tree.path(node.id):
                for token in tree.nodes[name].action_ids + tree.nodes[name].observation_ids:
                    seen.add(token)
                    above.setdefault(token, set(seen))
    rows = batch.ids_BU.tolist()
    table = [[[k in above.get(q, set()) for k in row] for q in row] for row in rows]
    return torch.tensor(table)


@dataclass(frozen=True)
class Inputs:
    """Queries, keys and values, and a gradient of the output that is 0 in the padding."""

    query_BHUD: Tensor
    key_BKUD: Tensor
    value_BKUD: Tensor
    grad_BHUD: Tensor
    scale: float = 0.4

    def to(self, dtype: torch.dtype) -> Inputs:
        """Return the same numbers in another format."""
        return Inputs(
            self.query_BHUD.to(dtype),
            self.key_BKUD.to(dtype),
            self.value_BKUD.to(dtype),
            self.grad_BHUD.to(dtype),
            self.scale,
        )

    def attend(self, backend: Backend, layout: TreeLayout) -> list[Tensor]:
        """Return the output, and the gradients of queries, keys and values."""
        given = (self.query_BHUD, self.key_BKUD, self.value_BKUD)
        leaves = [one.detach().requires_grad_() for one in given]
        out_BHUD = backend(leaves[0], leaves[1], leaves[2], layout, self.scale)
        out_BHUD.backward(self.grad_BHUD)
        return [out_BHUD.detach(), *(one.grad for one in leaves if one.grad is not None)]


def is_token(layout: TreeLayout) -> Tensor:
    """Return which columns are no padding, (B, U)."""
    token_BU = torch.zeros_like(layout.leave_BU, dtype=torch.bool)
    for index, row in enumerate(layout.segments):
        token_BU[index, : row[-1].stop] = True
    return token_BU


def inputs_of(
    layout: TreeLayout,
    *,
    heads: int = 4,
    key_heads: int = 2,
    size: int = 8,
    padding: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Return the same random inputs for the same shape; in the padding stands one number."""
    rng = torch.Generator().manual_seed(heads * 7 + key_heads)
    token_B1U1 = is_token(layout).cpu()[:, None, :, None]
    rows, columns = layout.leave_BU.shape

    def drawn(count: int, outside: float) -> Tensor:
        drawn = torch.randn(rows, count, columns, size, generator=rng, dtype=torch.float64)
        drawn = torch.where(token_B1U1, drawn, torch.full_like(drawn, outside))
        return drawn.to(layout.leave_BU.device, dtype)

    return Inputs(
        drawn(heads, padding), drawn(key_heads, padding), drawn(key_heads, padding), drawn(heads, 0)
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest number expected."""
    largest = float(expected.double().abs().max())
    return float((found.double() - expected.double()).abs().max()) / (largest or 1.0)


def worst(found: Sequence[Tensor], expected: Sequence[Tensor], layout: TreeLayout) -> float:
    """Return the worst relative difference of `Inputs.attend`, outputs of the padding left out."""
    token_B1U1 = is_token(layout)[:, None, :, None]
    differences = [relative(found[0] * token_B1U1, expected[0] * token_B1U1)]
    differences += [relative(*pair) for pair in zip(found[1:], expected[1:], strict=True)]
    return max(differences)
