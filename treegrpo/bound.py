"""How much faster than its flat batch a tree can be trained: the limit of any implementation.

A flat batch computes the path to every leaf; a packed tree computes each token once. Forward
and backward together take, whatever the code looks like, about

    F = 6 N U + 6 d V H + 12 layers d_attn P        floating-point operations

for U tokens through a body of N parameters, H trained predictions through a head of d x V, and
P (token, ancestor or self) pairs through attention of width d_attn. The flat batch has T, H_flat
and P_flat instead, and the limit of the speed-up is

    S* = F_flat / F_tree,

a mean of the ratios T / U (the sharing ratio), H_flat / H and P_flat / P, and mostly below the
first: what lies deep is shared least, and has most pairs. docs/training_limit.md has examples.

Leaves that train nothing have no part in it: only the subtree that the others span is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Tree

LINEAR_FLOPS = 6
"""Per token and parameter: 2 forward, 4 backward."""
ATTENTION_FLOPS = 12
"""Per pair, layer and number of a query: 4 forward (scores, values), 8 backward. Kernels that
compute the scores again in the backward pass execute 14; the work done is the same."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a dense transformer that decide its floating-point operations."""

    body_params: int
    """Parameters without embeddings and head."""
    layers: int
    d_attn: int
    """Heads x numbers a head."""
    d_model: int
    vocab_size: int

    @classmethod
    def of(cls, model: Any) -> ModelSizes:
        """Return the sizes of a causal language model of the transformers library."""
        tables = {id(t): t for t in (model.get_input_embeddings(), model.get_output_embeddings())}
        outside = {id(w): w.numel() for table in tables.values() for w in table.parameters()}
        every = {id(w): w.numel() for w in model.parameters()}
        config = model.config.get_text_config()
        # Without attention there are no pairs to pay for.
        heads, width = getattr(config, "num_attention_heads", 0), config.hidden_size
        return cls(
            body_params=sum(every.values()) - sum(outside.values()),
            layers=config.num_hidden_layers,
            d_attn=heads * (getattr(config, "head_dim", None) or width // max(1, heads)),
            d_model=width,
            vocab_size=config.vocab_size,
        )

    @classmethod
    def of_config(cls, config: Any) -> ModelSizes:
        """Return the sizes of the model a configuration describes; no weight is made."""
        with torch.device("meta"):
            return cls.of(AutoModelForCausalLM.from_config(config))

    def flops(self, tokens: int, predictions: int, pairs: int) -> int:
        """Return the operations of one forward and backward pass, nothing recomputed."""
        body = LINEAR_FLOPS * self.body_params * tokens
        head = LINEAR_FLOPS * self.d_model * self.vocab_size * predictions
        return body + head + ATTENTION_FLOPS * self.layers * self.d_attn * pairs


@dataclass(frozen=True)
class Bound:
    """What training some trees takes at least, as trees and as the flat batch."""

    sizes: ModelSizes
    unique_tokens: int = 0
    """U: each token once."""
    flat_tokens: int = 0
    """T: the tokens of all paths."""
    tree_pairs: int = 0
    """P: (token, ancestor or self) pairs."""
    flat_pairs: int = 0
    tree_predictions: int = 0
    """H: sampled tokens, each once."""
    flat_predictions: int = 0

    @property
    def sharing_ratio(self) -> float:
        """T / U; 1.0 without tokens."""
        return self.flat_tokens / self.unique_tokens if self.unique_tokens else 1.0

    @property
    def tree_flops(self) -> int:
        """Operations of one forward and backward pass over the trees."""
        return self.sizes.flops(self.unique_tokens, self.tree_predictions, self.tree_pairs)

    @property
    def flat_flops(self) -> int:
        """Operations of one forward and backward pass over the flat batch, without padding."""
        return self.sizes.flops(self.flat_tokens, self.flat_predictions, self.flat_pairs)

    @property
    def limit(self) -> float:
        """S*: the flat batch's operations / those of the trees; 1.0 without tokens."""
        return self.flat_flops / self.tree_flops if self.tree_flops else 1.0


def bound(
    trees: Sequence[Tree], sizes: ModelSizes, leaves: Sequence[Collection[int]] | None = None
) -> Bound:
    """Return what training the trees takes; linear in their nodes.

    Args:
        trees: any number, also none.
        sizes: of the model that is trained.
        leaves: for each tree the leaves that train something; None takes every leaf. Nodes
            above none of them are not counted.

    Raises:
        TreegrpoError: not one collection per tree, or a node that is not a leaf.
    """
    chosen = [tree.leaves() for tree in trees] if leaves is None else leaves
    if len(chosen) != len(trees):
        raise TreegrpoError(
            f"The bound of {len(trees)} trees asked for, with leaves of {len(chosen)}. "
            "Give one collection of leaves per tree."
        )
    counts = [_count(tree, ends) for tree, ends in zip(trees, chosen, strict=True)]
    totals = (sum(column) for column in zip(*counts, strict=True))
    return Bound(sizes, *totals)


def _count(tree: Tree, leaves: Collection[int]) -> tuple[int, int, int, int, int, int]:
    """Return the numbers of one tree, in the order of `Bound`."""
    shares = _leaves_below(tree, leaves)
    end = [0] * len(tree.nodes)
    unique = flat = tree_pairs = flat_pairs = tree_predictions = flat_predictions = 0
    for node, count in zip(tree.nodes, shares, strict=True):
        start = 0 if node.parent is None else end[node.parent]
        tokens, end[node.id] = node.num_tokens, start + node.num_tokens
        # A row's own pairs add up node by node: each leaf below pays the node's share again.
        pairs = tokens * start + tokens * (tokens + 1) // 2
        flat, unique = flat + count * tokens, unique + bool(count) * tokens
        flat_pairs, tree_pairs = flat_pairs + count * pairs, tree_pairs + bool(count) * pairs
        flat_predictions += count * len(node.action_ids)
        tree_predictions += bool(count) * len(node.action_ids)
    return unique, flat, tree_pairs, flat_pairs, tree_predictions, flat_predictions


def _leaves_below(tree: Tree, leaves: Collection[int]) -> list[int]:
    """Return, by node id, how many of the leaves lie in the node's subtree."""
    counts = [0] * len(tree.nodes)
    for leaf in leaves:
        if not 0 < leaf < len(counts) or tree.nodes[leaf].children:
            raise TreegrpoError(
                f"The bound of tree {tree.tree_id} of question '{tree.question_id}' asked for "
                f"with leaf {leaf}, but its leaves are {tree.leaves()}. Give ids of leaves."
            )
        counts[leaf] = 1
    for node in reversed(tree.nodes[1:]):
        counts[node.parent or 0] += counts[node.id]
    return counts
