"""Metrics of losses: raw sums of micro-batches, merged and made readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_SHARES = {
    "clip_share": ("clipped_mass", "adv_mass"),
    "kept_share": ("corrected_mass", "uncorrected_mass"),
    "ratio_mean": ("ratio_sum", "ratio_weight"),
    "kl_sampler": ("kl_sampler", "weight"),
}
"""Readable name -> the sums that it is the quotient of."""
_RAW = {name for pair in _SHARES.values() for name in pair}


def merge(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metrics of all micro-batches together: `max_` by maximum, the rest by sum."""
    merged: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            if name not in merged:
                merged[name] = value
            elif name.startswith("max_"):
                merged[name] = torch.maximum(merged[name], value)
            else:
                merged[name] = merged[name] + value
    return merged


def summarise(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return readable metrics of a global batch from those of its micro-batches.

    `clip_share` is the share of advantage mass whose ratio the clip cut (of tokens, steps or
    leaves, as the loss has it), `kept_share` the advantage mass after a correction over that
    before, `ratio_mean` and `kl_sampler` are weighted means, `max_abs_log_ratio` the largest
    |trainer - sampler| log-prob gap, `kl_reference` the KL term without its factor, `nll` the
    mean negative log-likelihood in nats.
    """
    numbers = {name: float(value) for name, value in merge(parts).items()}
    readable = {name: value for name, value in numbers.items() if name not in _RAW}
    for name, (part, whole) in _SHARES.items():
        if part in numbers and whole in numbers:
            # Edges without advantage may have been left out: what is left is the whole then.
            readable[name] = numbers[part] / numbers[whole] if numbers[whole] else 0.0
    return readable
