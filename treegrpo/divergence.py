"""Whether a run still learns: weights of a sane size, and updates that can be made.

A learning rate that is far too high leaves weights that are finite and worth nothing. Checked
after each update, with one pass over the weights: the norm of all of them is finite, and at
most MAX_GROWTH times that of the model the run began with. Training moves it by a few percent;
a tiny model from random weights, by a small factor. In float32 the norm of weights near 1e30 is
infinite, so they are caught whatever the model began with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from treegrpo.envs.errors import TreegrpoError

MAX_GROWTH = 100.0
"""Norm of the weights over their norm at the start, from which they count as ruined."""
MAX_FAILED_STEPS = 5
"""Steps in a row in which no update could be made, after which a run stops."""


class Diverged(TreegrpoError):
    """Training has ruined the weights, or cannot go on; earlier checkpoints are as they were."""


class Watch:
    """Remembers what a model's weights began as, and how many steps failed in a row.

    Raises:
        TreegrpoError: the weights are not finite to begin with.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._start = weight_norm(model.parameters())
        self._failed_steps = 0
        if not self._start < float("inf"):
            raise TreegrpoError(
                f"Training '{name}' asked for, but the norm of its weights is {self._start:g}. "
                "Give a model whose weights are finite numbers."
            )

    def fault(self, model: Any) -> str:
        """Return what is wrong with the weights after an update, or nothing."""
        norm, limit = weight_norm(model.parameters()), MAX_GROWTH * max(1.0, self._start)
        if norm <= limit:
            return ""
        return f"the norm of the weights went from {self._start:.3g} to {norm:.3g}"

    def step(self, updates: Sequence[Mapping[str, float]]) -> None:
        """Note the updates of a step.

        Raises:
            Diverged: it is the last of MAX_FAILED_STEPS in which none could be made. Steps that
                had nothing to teach do not count.
        """
        if any("loss" in update for update in updates):
            self._failed_steps = 0
        elif any("skipped_updates" in update for update in updates):
            self._failed_steps += 1
        if self._failed_steps >= MAX_FAILED_STEPS:
            raise Diverged(
                f"Training was asked to go on, but in the last {MAX_FAILED_STEPS} steps no update "
                "could be made: no loss and gradient was finite. Each batch is in the run folder, "
                "under bad_batches, and the last checkpoint is as it was. Look at the warnings "
                "above, then start a run with a lower lr, or with another loss or model."
            )


def weight_norm(weights: Iterable[torch.Tensor]) -> float:
    """Return the norm of all weights together, in their own number format."""
    return float(torch.nn.utils.get_total_norm([weight.detach() for weight in weights]))
