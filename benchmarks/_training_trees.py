"""The trees of tree_training: of a shape, a sharing ratio and a number of unique tokens.

- group: one long prompt, then every leaf on its own, as in plain GRPO.
- trunk: a prompt and six turns, late forks at the last two, each of two steps.
- balanced: binary, forks at every turn.

Token ids are random. Segment lengths scatter by a quarter, so that leaves differ in length, and
advantages are normal with mean 0 over the leaves of a tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.pack import Weighted
from treegrpo.tree import Tree

ACTION_SHARE = 0.6
"""Of a step's tokens that the policy sampled; the rest is the environment's answer."""
SCATTER = 0.25


@dataclass(frozen=True)
class Cell:
    """One tree of the benchmark."""

    shape: str
    sharing: float
    """Ratio aimed at; the tree's own is within a few per cent of it."""
    unique_tokens: int

    @property
    def name(self) -> str:
        """Return "group, sharing 4, 2048 tokens"."""
        return f"{self.shape}, sharing {self.sharing:g}, {self.unique_tokens} tokens"


@dataclass(frozen=True)
class _Segment:
    parent: int | None
    weight: float
    """Length, relative to the other segments that are shared (or not), like this one."""
    leaves: int
    """Leaves below; 1 means that nothing is shared."""
    is_leaf: bool = False


def _group(leaves: int) -> list[_Segment]:
    return [_Segment(None, 1, leaves), *[_Segment(0, 1, 1, True)] * leaves]


def _trunk(leaves: int) -> list[_Segment]:
    turns = 6
    plan = [_Segment(None, 4, leaves)]
    plan += [_Segment(turn, 1, leaves) for turn in range(turns - 1)]
    plan.append(_Segment(turns - 1, 1, leaves - leaves // 2))
    for number in range(leaves):
        plan.append(_Segment(turns - 1 if number < leaves // 2 else turns, 1, 1))
        plan.append(_Segment(len(plan) - 1, 1, 1, True))
    return plan


def _balanced(leaves: int) -> list[_Segment]:
    plan = [_Segment(None, leaves, leaves)]
    level, below = [0], leaves
    while below > 1:
        below //= 2
        first = len(plan)
        plan += [_Segment(parent, 1, below, below == 1) for parent in level for _ in range(2)]
        level = list(range(first, len(plan)))
    return plan


SHAPES: dict[str, Callable[[int], list[_Segment]]] = {
    "group": _group,
    "trunk": _trunk,
    "balanced": _balanced,
}


def grow(cell: Cell, vocab_size: int, seed: int = 0) -> Weighted:
    """Return the tree of a cell: each of its leaves' tokens counts the same.

    The number of unique tokens is exact; the prompt makes up for rounding.
    """
    rng = np.random.default_rng(stable_seed("tree_training", cell.name, seed))
    # About twice the sharing ratio, so that prompt and leaves both have a fair part.
    leaves = 2 ** math.ceil(math.log2(2 * cell.sharing) - 1e-9)
    plan = SHAPES[cell.shape](max(4, leaves))
    tree = Tree(question_id=cell.name)
    for segment, length in zip(plan, _lengths(plan, cell, rng), strict=True):
        tree.add(segment.parent, **_step(segment, length, vocab_size, rng))
    advantages = rng.normal(size=len(tree.leaves()))
    advantages -= advantages.mean()
    paths = {leaf: tree.path(leaf)[1:] for leaf in tree.leaves()}
    sampled = sum(len(tree.nodes[step].action_ids) for path in paths.values() for step in path)
    credit = {
        leaf: [float(a)] * len(paths[leaf]) for leaf, a in zip(paths, advantages, strict=True)
    }
    return Weighted(tree, credit, {leaf: [1 / sampled] * len(path) for leaf, path in paths.items()})


def _lengths(plan: list[_Segment], cell: Cell, rng: np.random.Generator) -> list[int]:
    """Return the tokens of each segment: shared ones scaled so that the ratio comes out."""
    scattered = [one.weight * math.exp(SCATTER * rng.normal()) for one in plan]
    scattered[0] = plan[0].weight
    pairs = list(zip(plan, scattered, strict=True))
    shared = sum(weight for one, weight in pairs if one.leaves > 1)
    own = sum(weight for one, weight in pairs if one.leaves == 1)
    # A shared token stands in this many paths, an own one in 1: the ratio is linear in the part.
    copies = sum(weight * one.leaves for one, weight in pairs if one.leaves > 1) / shared
    part = (cell.sharing - 1) / (copies - 1)
    scale = {True: part * cell.unique_tokens / shared, False: (1 - part) * cell.unique_tokens / own}
    lengths = [max(2, round(scale[one.leaves > 1] * weight)) for one, weight in pairs]
    lengths[0] += cell.unique_tokens - sum(lengths)
    if lengths[0] < 1:
        raise ValueError(f"{cell.name}: too few tokens for {len(plan)} nodes. Ask for more.")
    return lengths


def _step(
    segment: _Segment, length: int, vocab_size: int, rng: np.random.Generator
) -> dict[str, Any]:
    ids = [int(token) for token in rng.integers(4, vocab_size, size=length)]
    if segment.parent is None:
        return {"observation_ids": ids}
    sampled = length if segment.is_leaf else max(1, round(ACTION_SHARE * length))
    return {
        "action_ids": ids[:sampled],
        "action_logps": [-math.log(vocab_size)] * sampled,
        "observation_ids": ids[sampled:],
        "terminated": segment.is_leaf,
    }


def cells(sharings: Sequence[float], sizes: Sequence[int]) -> list[Cell]:
    """Return a tree for every pair, the shapes in turn: each sharing and size meets several."""
    names = list(SHAPES)
    return [
        Cell(names[(row + column) % len(names)], sharing, size)
        for row, sharing in enumerate(sharings)
        for column, size in enumerate(sizes)
    ]
