"""Log-probs of the trained tokens of a packed batch, with gradient.

The body of the model runs over all tokens once; the head only over the positions that predict
something, in chunks that are computed again in the backward pass. So there is never a tensor of
all tokens times the vocabulary, but for models that change their logits after the head.

Shapes: B rows, U columns, E edges, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import checkpoint

from treegrpo.attention import tree_attention
from treegrpo.envs.errors import TreegrpoError
from treegrpo.pack import PackedBatch

FLAT = "flat"
"""The model's own causal attention: for batches in which every row is one plain path."""
WHOLE = "whole"
"""The same through the whole model, head and all that follows it: all logits at once."""

LOGITS_AT_ONCE = {"cpu": 2**24, "cuda": 2**28}
"""Most logits held at a time, by type of device: 64 MiB and 1 GiB in float32."""


def token_logps(
    model: Any,
    batch: PackedBatch,
    temperature: float,
    attention: str,
    *,
    logits_at_once: int | None = None,
) -> Tensor:
    """Return logp_E, the log-prob of each edge's target in float32 or better.

    Args:
        model: a causal language model of the transformers library.
        batch: on the model's device.
        temperature: log-probs are those of the tempered distribution.
        attention: name of a backend, or FLAT or WHOLE.
        logits_at_once: most logits in memory together; None takes LOGITS_AT_ONCE.

    Raises:
        TreegrpoError: FLAT or WHOLE for rows that branch.
    """
    if attention in (FLAT, WHOLE):
        _require_chains(batch, attention)
    if attention == WHOLE:
        logits_BUV = model(input_ids=batch.ids_BU, use_cache=False).logits
        return _logps(logits_BUV.flatten(0, 1)[batch.predictor_E], batch.target_E, temperature)
    hidden_BUD = _hidden(model, batch, attention)
    hidden_ED = hidden_BUD.flatten(0, 1)[batch.predictor_E]
    head = model.get_output_embeddings()
    if logits_at_once is None:
        logits_at_once = LOGITS_AT_ONCE.get(hidden_ED.device.type, LOGITS_AT_ONCE["cpu"])
    rows = max(1, logits_at_once // head.weight.shape[0])
    if len(hidden_ED) <= rows:
        return _chunk_logps(head, hidden_ED, batch.target_E, temperature)
    again = cast("Callable[..., Tensor]", checkpoint.checkpoint)
    logps = [
        again(_chunk_logps, head, hidden, target, temperature, use_reentrant=False)
        for hidden, target in zip(
            torch.split(hidden_ED, rows), torch.split(batch.target_E, rows), strict=True
        )
    ]
    return torch.cat(logps)


def _hidden(model: Any, batch: PackedBatch, attention: str) -> Tensor:
    """Return what the head gets, hidden_BUD."""
    body = model.base_model
    if attention == FLAT:
        # Right padding needs no mask: attention is causal, and no edge lies in the padding.
        return body(input_ids=batch.ids_BU, use_cache=False).last_hidden_state
    with tree_attention(model, attention):
        return body(
            input_ids=batch.ids_BU,
            position_ids=batch.layout.position_BU,
            use_cache=False,
            tree_layout=batch.layout,
        ).last_hidden_state


def _chunk_logps(head: Any, hidden_ED: Tensor, target_E: Tensor, temperature: float) -> Tensor:
    return _logps(head(hidden_ED), target_E, temperature)


def _logps(logits_EV: Tensor, target_E: Tensor, temperature: float) -> Tensor:
    logits_EV = logits_EV.to(edge_dtype(logits_EV.dtype)) / temperature
    return torch.log_softmax(logits_EV, dim=-1).gather(1, target_E[:, None]).squeeze(1)


def _require_chains(batch: PackedBatch, attention: str) -> None:
    if not batch.layout.is_chain:
        raise TreegrpoError(
            f"Log-probs of rows that branch asked for with attention '{attention}', which would "
            "show siblings each other. Name an attention backend, or split with share=False and "
            "pack with row_tokens=1."
        )


def edge_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the number format of losses for a model in `dtype`: float32 or better."""
    return torch.promote_types(dtype, torch.float32)
