"""From packed batches to gradients: forward, loss, backward, batch by batch.

Losses are linear in the leaves, so each batch adds its own part. A loss over pairs of steps is
not: its pairs may lie in different batches. It is computed on the log-probs of all batches
first, and its gradient with respect to them then goes back through each batch.

Shapes: E edges of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from treegrpo.edges import Preferences, concatenate
from treegrpo.envs.errors import TreegrpoError
from treegrpo.losses import Loss, LossOptions
from treegrpo.pack import PackedBatch

LogProbs: TypeAlias = Callable[[PackedBatch], Tensor]
"""batch -> logp_E with gradient."""

StepPair: TypeAlias = tuple[tuple[int, int], tuple[int, int], float]
"""(better step, worse step, weight); a step is (index of its tree in the update, node id)."""


@dataclass(frozen=True)
class Gradients:
    """What the backward passes of an update came to; the gradients are in the parameters."""

    loss: float
    metrics: list[dict[str, Tensor]]
    """One dict per loss that was computed, for `losses.summarise`."""


def accumulate(
    batches: Sequence[PackedBatch],
    log_probs: LogProbs,
    loss: Loss,
    options: LossOptions,
    pairs: Sequence[StepPair] = (),
) -> Gradients:
    """Add the gradient of the whole update to the parameters, and return its loss.

    Args:
        batches: all batches of one update, or of one rank's share of it.
        log_probs: computes a batch's log-probs; called twice a batch for a loss over pairs.
        loss: as registered.
        options: settings of the loss.
        pairs: for a loss over pairs; both steps of each are in some batch.
    """
    if loss.over_pairs and batches:
        return _accumulate_pairs(batches, log_probs, loss, options, pairs)
    total, metrics = 0.0, list[dict[str, Tensor]]()
    for batch in batches:
        result = loss(log_probs(batch), batch.edges, options)
        result.loss.backward()
        total += float(result.loss.detach())
        metrics.append(result.metrics)
    return Gradients(total, metrics)


def _accumulate_pairs(
    batches: Sequence[PackedBatch],
    log_probs: LogProbs,
    loss: Loss,
    options: LossOptions,
    pairs: Sequence[StepPair],
) -> Gradients:
    with torch.no_grad():
        logps = [log_probs(batch) for batch in batches]
    logp_E = torch.cat(logps).requires_grad_()
    edges = concatenate([batch.edges for batch in batches])
    edges = edges.replace(preferences=_located(pairs, batches, logp_E))
    result = loss(logp_E, edges, options)
    (grad_E,) = torch.autograd.grad(result.loss, logp_E)
    parts = torch.split(grad_E, [len(one) for one in logps])
    for batch, part_E in zip(batches, parts, strict=True):
        log_probs(batch).backward(part_E)
    return Gradients(float(result.loss.detach()), [result.metrics])


def _located(
    pairs: Sequence[StepPair], batches: Sequence[PackedBatch], like: Tensor
) -> Preferences:
    """Return the pairs by number of step; a step that a cut repeats counts where it is first."""
    number: dict[tuple[int, int], int] = {}
    for index, step in enumerate(step for batch in batches for step in batch.steps):
        number.setdefault(step, index)
    for better, worse, _ in pairs:
        if better not in number or worse not in number:
            raise TreegrpoError(
                f"A loss over pairs of steps was asked for, but of the pair {better}, {worse} a "
                "step is in no batch. Keep both steps of a pair on one rank, with all leaves."
            )
    better, worse = [number[pair[0]] for pair in pairs], [number[pair[1]] for pair in pairs]
    return Preferences(
        torch.tensor(better, dtype=torch.long, device=like.device),
        torch.tensor(worse, dtype=torch.long, device=like.device),
        torch.tensor([pair[2] for pair in pairs], dtype=like.dtype, device=like.device),
    )
