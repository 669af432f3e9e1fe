"""Trees for the proofs of exact packed training: drawn ones, and those that once went wrong.

A `Case` is what one update is made of: trees, credit for every (leaf, step), and preferences.
"""

from __future__ import annotations

import functools
import itertools
import random
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.fakes_models import tiny_model
from treegrpo.credit import Credit
from treegrpo.gradients import StepPair
from treegrpo.logprobs import FLAT
from treegrpo.pack import PackedBatch, Weighted, pack, split
from treegrpo.tree import Failure, Tree
from treegrpo.weighting import get_weighting, token_weights

VOCAB = 19
TEMPERATURE = 0.8
CONSTANT_TOKENS = 7
WAYS = ("dense", "segments", FLAT)


class Grown(NamedTuple):
    """A step of a tree to be built; steps are numbered from 1, the root is 0."""

    parent: int
    sampled: int
    observed: int = 0
    twin: bool = False
    """Has the ids of the sibling before it, if there is one."""
    failure: Failure | None = None


Forest = Sequence[Sequence[Grown]]

_BUSH = [Grown(0, 2, 1), Grown(1, 3), Grown(1, 1, 2), Grown(3, 2), Grown(3, 2), Grown(3, 1)]
SHAPES: dict[str, Forest] = {
    "single node": [[Grown(0, 3)]],
    "single token": [[Grown(0, 1)]],
    "chain": [[Grown(0, 3, 2), Grown(1, 2, 2), Grown(2, 4)]],
    "star": [[Grown(0, n) for n in (2, 3, 1, 4, 2)]],
    "deep": [[Grown(n, 1 + n % 2, n % 3) for n in range(9)] + [Grown(n, 2) for n in (2, 5, 8)]],
    "five levels": [
        [Grown(0, 2, 1), Grown(1, 2, 1), Grown(1, 1), Grown(2, 2, 2), Grown(2, 3), Grown(4, 1, 1),
         Grown(4, 2), Grown(6, 2), Grown(6, 1), Grown(0, 2, 1), Grown(10, 2), Grown(10, 1)]
    ],
    "empty observations": [[Grown(0, 2), Grown(1, 2), Grown(1, 1), Grown(2, 1), Grown(2, 3)]],
    "identical siblings": [
        [Grown(0, 2, 1), Grown(0, 2, 1, twin=True), Grown(1, 3), Grown(1, 3, twin=True),
         Grown(2, 2)]
    ],
    "leaf at root": [[Grown(0, 2, 1), Grown(1, 2), Grown(1, 3), Grown(0, 1)]],
    "observations only": [
        [Grown(0, 0, 3), Grown(1, 2, 1), Grown(1, 0, 2), Grown(2, 2), Grown(3, 1), Grown(0, 0, 2)]
    ],
    "empty steps": [
        [Grown(0, 0), Grown(1, 2), Grown(1, 1), Grown(0, 2), Grown(4, 0), Grown(0, 0), Grown(6, 2),
         Grown(6, 1)]
    ],
    "failed leaves": [
        [Grown(0, 2, 1), Grown(1, 2, failure="tool"), Grown(1, 3), Grown(0, 2),
         Grown(0, 1, failure="policy")]
    ],
    "several trees": [_BUSH, [Grown(0, 4)], [Grown(0, 1, 3), Grown(1, 2), Grown(1, 2)]],
}  # fmt: skip


@st.composite
def forests(draw: st.DrawFn, max_trees: int = 2, max_steps: int = 6) -> Forest:
    """Draw trees with one scored leaf or more that has sampled tokens."""
    failures: list[Failure | None] = [None, None, None, None, None, "policy", "tool"]

    def step(above: int) -> Grown:
        return Grown(
            draw(st.integers(0, above)),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 4)) == 4,
            draw(st.sampled_from(failures)),
        )

    numbers = [draw(st.integers(0, max_steps)) for _ in range(draw(st.integers(1, max_trees)))]
    return [[Grown(0, 2)], *([step(above) for above in range(count)] for count in numbers)]


@functools.cache
def model_of(dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """Return the smallest Qwen3; do not change its weights."""
    model: Any = tiny_model(
        "qwen3", seed=seed, vocab_size=VOCAB, hidden_size=16, heads=2, kv_heads=1
    )
    for module in model.modules():
        if hasattr(module, "variance_epsilon") and dtype == torch.float64:
            module.forward = types.MethodType(_norm, module)
    return model.to(dtype).eval()


def _norm(self: Any, hidden: Tensor) -> Tensor:
    """The library's norm rounds to float32 on the way, and a rounding can fall either way."""
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon)


def parameters(model: Any) -> list[Tensor]:
    """Return all parameters, in a fixed order."""
    return list(model.parameters())


def grow(steps: Sequence[Grown], rng: random.Random, tree_id: int = 0) -> Tree:
    """Return the tree of these steps, with random ids."""

    def ids(count: int) -> list[int]:
        return [rng.randrange(VOCAB) for _ in range(count)]

    tree = Tree("q", tree_id)
    tree.add(None, observation_ids=ids(rng.randint(1, 3)))
    for step in steps:
        sampled, observed = ids(step.sampled), ids(step.observed)
        if step.twin and (siblings := tree.nodes[step.parent].children):
            twin = tree.nodes[siblings[-1]]
            sampled, observed = list(twin.action_ids), list(twin.observation_ids)
        tree.add(
            step.parent,
            action_ids=sampled,
            action_logps=[0.0] * len(sampled),
            observation_ids=observed,
            failure=step.failure,
        )
    return tree


@dataclass(frozen=True)
class Case:
    """Trees of one update with credit and preferences; sampled by something near the model."""

    trees: list[Tree]
    credits: list[Credit]
    pairs: list[StepPair]

    def weighted(self, weighting: str, normaliser: str) -> list[Weighted]:
        """Return what `pack.split` takes."""
        shares = get_weighting(weighting)(self.trees)
        weights = token_weights(shares, self.trees, normaliser, CONSTANT_TOKENS)
        return [Weighted(*one) for one in zip(self.trees, self.credits, weights, strict=True)]

    @property
    def longest(self) -> int:
        """Tokens of the longest path."""
        return max(
            sum(tree.nodes[step].num_tokens for step in tree.path(leaf))
            for tree in self.trees
            for leaf in tree.scored_leaves()
        )


def case_of(forest: Forest, seed: int = 0) -> Case:
    """Return a case with random credit for every (leaf, step), some of it 0.

    Sampled log-probs lie around the policy's, near and far, so that ratios fall on both sides
    of every bound.
    """
    rng = random.Random(seed)
    trees = [grow(steps, rng, number) for number, steps in enumerate(forest)]
    model = model_of()
    for tree in trees:
        for leaf in tree.leaves():
            with torch.no_grad():
                logps = iter(path_logps(model, tree, leaf).tolist())
            for step in tree.path(leaf):
                node = tree.nodes[step]
                own = [next(logps) for _ in node.action_ids]
                if not any(node.action_logps):
                    spread = rng.choice([0.0, 0.05, 0.3, 0.6])
                    node.action_logps = [logp + rng.gauss(0, spread) for logp in own]
    return Case(trees, [_random_credit(tree, rng) for tree in trees], _random_pairs(trees, rng))


def _random_credit(tree: Tree, rng: random.Random) -> Credit:
    """Return credit with zeros here and there, but none for the first leaf."""
    credit: Credit = {}
    for leaf in tree.leaves():
        zeros = 0.15 if credit else 0.0
        credit[leaf] = [
            0.0 if rng.random() < zeros else rng.gauss(0, 1) for _ in tree.path(leaf)[1:]
        ]
    return credit


def _random_pairs(trees: Sequence[Tree], rng: random.Random) -> list[StepPair]:
    """Return preferences between siblings with a trained leaf below; trees share their root."""
    firsts: list[tuple[int, int]] = []
    groups = [firsts]
    for number, tree in enumerate(trees):
        trained = {step for leaf in trained_leaves(tree) for step in tree.path(leaf)}
        for node in tree.nodes:
            children = [(number, child) for child in node.children if child in trained]
            groups.append(children if node.id else [])
            firsts += [] if node.id else children
    found = [
        (*rng.sample(two, 2), rng.uniform(0.5, 2))
        for group in groups
        for two in itertools.pairwise(group)
    ]
    total = sum(weight for _, _, weight in found)
    return [(better, worse, weight / total) for better, worse, weight in found]


def trained_leaves(tree: Tree) -> list[int]:
    """Return the scored leaves with sampled tokens on their path."""
    return [
        leaf
        for leaf in tree.scored_leaves()
        if any(tree.nodes[step].action_ids for step in tree.path(leaf))
    ]


def path_logps(model: Any, tree: Tree, leaf: int, temperature: float = TEMPERATURE) -> Tensor:
    """Return the log-probs of the sampled tokens on the path to a leaf, by a plain forward."""
    ids: list[int] = []
    sampled: list[int] = []
    for step in tree.path(leaf):
        node = tree.nodes[step]
        sampled += range(len(ids), len(ids) + len(node.action_ids))
        ids += [*node.action_ids, *node.observation_ids]
    logits_TV = model(input_ids=torch.tensor([ids])).logits[0] / temperature
    logp_TV = torch.log_softmax(logits_TV, dim=-1)
    return torch.stack([logp_TV[at - 1, ids[at]] for at in sampled] or [logp_TV[0, 0]])[
        : len(sampled)
    ]


def batches_of(
    trees: Sequence[Weighted],
    way: str,
    *,
    max_tokens: int = 10**6,
    row_tokens: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> list[PackedBatch]:
    """Return the batches of a way; flat rows are one path each."""
    parts = split(trees, max_tokens, share=way != FLAT, need_all=True)
    row_tokens = 1 if way == FLAT else row_tokens
    return pack(parts, max_tokens=max_tokens, row_tokens=row_tokens, dtype=dtype)
