"""Flat training batches: every root-to-leaf path is one row, right-padded.

Shapes: B rows, T positions of the padded row, E trained edges (one per sampled token).
Edge e predicts the token at (row_E[e], target_E[e]) from the position before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treegrpo.credit import Credit
from treegrpo.envs.errors import TreegrpoError
from treegrpo.losses import Edges
from treegrpo.tree import Tree, path_hash
from treegrpo.weighting import edge_weights


@dataclass
class Row:
    """One path: its ids in order, and what is known of each sampled one."""

    ids: list[int]
    sampled_at: list[int]
    """Positions of the sampled ids; all others carry no loss."""
    old_logps: list[float]
    advantages: list[float]
    weight: float = 0.0
    """Weight of each sampled token in the global batch."""

    @property
    def has_gradient(self) -> bool:
        """Whether any token of the row has an advantage; the others train nothing."""
        return self.weight > 0 and any(self.advantages)


@dataclass(frozen=True)
class MicroBatch:
    """Rows that are computed together."""

    ids_BT: Tensor
    row_E: Tensor
    target_E: Tensor
    edges: Edges


@dataclass
class FlatBatch:
    """All rows of one update, with weights that sum to 1 over their sampled tokens."""

    rows: list[Row] = field(default_factory=list[Row])

    def micro_batches(
        self,
        max_tokens: int,
        device: torch.device,
        *,
        need_all: bool,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[MicroBatch]:
        """Yield the rows, longest first, in batches of at most `max_tokens` padded tokens.

        A row longer than that makes a batch of its own. Rows without advantage are left out
        unless `need_all` (a KL term trains them too): they would be computed for a gradient of
        zero. `dtype` is that of the edges' numbers.
        """
        rows = [row for row in self.rows if row.weight > 0 and (need_all or row.has_gradient)]
        rows.sort(key=lambda row: -len(row.ids))  # stable, so the order is reproducible
        while rows:
            count = max(1, max_tokens // len(rows[0].ids))
            yield _pad(rows[:count], device, dtype)
            rows = rows[count:]


def flat_batch(trees: Sequence[tuple[Tree, Credit]], normaliser: str) -> FlatBatch:
    """Return the rows of all leaves whose outcome is the policy's.

    Raises:
        TreegrpoError: ids of a row differ from those that were sampled.
    """
    rows = [
        _row(tree, leaf, credit[leaf]) for tree, credit in trees for leaf in tree.scored_leaves()
    ]
    weights = edge_weights([len(row.sampled_at) for row in rows], normaliser)
    for row, weight in zip(rows, weights, strict=True):
        row.weight = weight
    return FlatBatch(rows)


def token_logps(model: torch.nn.Module, batch: MicroBatch, temperature: float) -> Tensor:
    """Return logp_E, the log-prob of each edge's target in float32 or better, with gradient.

    Right padding needs no mask: attention is causal, and no edge lies in the padding.
    """
    logits_BTV = model(input_ids=batch.ids_BT, use_cache=False).logits
    logits_EV = logits_BTV[batch.row_E, batch.target_E - 1]
    logits_EV = logits_EV.to(edge_dtype(logits_EV.dtype)) / temperature
    target_E = batch.ids_BT[batch.row_E, batch.target_E]
    return torch.log_softmax(logits_EV, dim=-1).gather(1, target_E[:, None]).squeeze(1)


def edge_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the number format of losses for a model in `dtype`: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def _row(tree: Tree, leaf: int, advantage_by_step: Sequence[float]) -> Row:
    nodes = [tree.nodes[i] for i in tree.path(leaf)]
    row = Row(list(nodes[0].observation_ids), [], [], [])
    segments = [(list[int](), row.ids[:])]
    for node, advantage in zip(nodes[1:], advantage_by_step, strict=True):
        start = len(row.ids)
        row.ids += node.action_ids + node.observation_ids
        middle = start + len(node.action_ids)
        row.sampled_at += range(start, middle)
        row.old_logps += node.action_logps
        row.advantages += [advantage] * len(node.action_ids)
        segments.append((row.ids[start:middle], row.ids[middle:]))
    if path_hash(segments) != nodes[-1].content_hash:
        raise TreegrpoError(
            f"A row of tree {tree.tree_id} of question '{tree.question_id}' is to be trained on "
            "ids other than those that were sampled. Never re-tokenise or edit a node."
        )
    return row


def _pad(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> MicroBatch:
    ids_BT = torch.zeros(len(rows), max(len(row.ids) for row in rows), dtype=torch.long)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row.ids)] = torch.tensor(row.ids)
    counts = torch.tensor([len(row.sampled_at) for row in rows])
    row_E = torch.repeat_interleave(torch.arange(len(rows)), counts)
    target_E = torch.tensor([position for row in rows for position in row.sampled_at])
    old_logp_E = torch.tensor([logp for row in rows for logp in row.old_logps], dtype=dtype)
    adv_E = torch.tensor([a for row in rows for a in row.advantages], dtype=dtype)
    weight_B = torch.tensor([row.weight for row in rows], dtype=dtype)
    weight_E = torch.repeat_interleave(weight_B, counts)
    edges = Edges.flat(old_logp_E.to(device), adv_E.to(device), weight_E.to(device))
    return MicroBatch(ids_BT.to(device), row_E.to(device), target_E.to(device), edges)
