"""Attention segment by segment: only the pairs that count, on any device, nothing compiled.

Every token is a query once, in the segment of the first leaf that owns it; its keys are that
leaf's path, gathered. The queries are the path's last columns, so the causal mask is aligned
with the lower right corner. One scaled_dot_product_attention call per leaf.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head; Q tokens of the batch, G
gathered keys; S columns of a segment, L of its path.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from treegrpo.attention.base import attention, repeat_heads
from treegrpo.attention.layout import TreeLayout
from treegrpo.attention.varlen import along_paths


@attention("segments")
def segments(
    query_BHUD: Tensor, key_BKUD: Tensor, value_BKUD: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Return softmax(scale * query key + mask) value, (B, H, U, D); 0 in the padding."""
    return along_paths(_one_by_one, query_BHUD, key_BKUD, value_BKUD, layout, scale)


def _one_by_one(
    query_QHD: Tensor,
    key_GKD: Tensor,
    value_GKD: Tensor,
    query_ends_L: Tensor,
    key_ends_L: Tensor,
    *_lengths: int,
    scale: float,
    **_settings: Any,
) -> Tensor:
    """Return what varlen_attn would, out_QHD; splits once, since slices cost a whole gradient."""
    queries = torch.split(query_QHD.transpose(0, 1), _sizes(query_ends_L), dim=1)
    keys = torch.split(key_GKD.transpose(0, 1), _sizes(key_ends_L), dim=1)
    values = torch.split(value_GKD.transpose(0, 1), _sizes(key_ends_L), dim=1)
    pieces = [_attend(*each, scale) for each in zip(queries, keys, values, strict=True)]
    return torch.cat(pieces, dim=1).transpose(0, 1)


def _attend(query_HSD: Tensor, key_KLD: Tensor, value_KLD: Tensor, scale: float) -> Tensor:
    heads, own, keys = *query_HSD.shape[:2], key_KLD.shape[1]
    mask_SL = None
    if own < keys:
        mask_SL = torch.ones(own, keys, dtype=torch.bool, device=query_HSD.device)
        mask_SL = mask_SL.tril(keys - own)
    return scaled_dot_product_attention(
        query_HSD[None],
        repeat_heads(key_KLD[None], heads),
        repeat_heads(value_KLD[None], heads),
        attn_mask=mask_SL,
        is_causal=mask_SL is None,
        scale=scale,
    )[0]


def _sizes(ends_L: Tensor) -> list[int]:
    ends = cast("list[int]", ends_L.tolist())
    return [stop - start for start, stop in pairwise(ends)]
