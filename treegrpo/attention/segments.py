"""Attention segment by segment, on any device, nothing compiled: what a CPU trains with.

Every token is a query once, in the segment of the first leaf that owns it; its keys are that
leaf's path, gathered. The queries are the path's last columns, so the causal mask is aligned
with the lower right corner. One scaled_dot_product_attention call per leaf, over the rectangle
of its own columns and its path.

Nothing of S x L is ever built. Let the last query come first: then query i sees the keys k with
i + k < L, and each row of the mask is the one above it moved by one. So the masks of all
segments are views of one row of numbers. A GPU has kernels that need no mask for this.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head; Q tokens of the batch, G
gathered keys; S columns of a segment, L of its path; W numbers that masks are views of.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias, CausalVariant
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
    max_queries: int,
    max_keys: int,
    *,
    scale: float,
    **_settings: Any,
) -> Tensor:
    """Return what varlen_attn would, out_QHD; splits once, since slices cost a whole gradient."""
    num_keys = _sizes(key_ends_L)
    queries = torch.split(query_QHD.transpose(0, 1), _sizes(query_ends_L), dim=1)
    keys = torch.split(key_GKD.transpose(0, 1), num_keys, dim=1)
    values = torch.split(value_GKD.transpose(0, 1), num_keys, dim=1)
    row_W = query_QHD.new_zeros(max_keys + max_queries)
    row_W[max_keys:] = float("-inf")
    rows = [row_W[max_keys - count :] for count in num_keys]
    each = zip(queries, keys, values, rows, strict=True)
    pieces = [_attend(*one, scale) for one in each]
    return torch.cat(pieces, dim=1).transpose(0, 1)


def _attend(
    query_HSD: Tensor, key_KLD: Tensor, value_KLD: Tensor, row_W: Tensor, scale: float
) -> Tensor:
    """Return out_HSD; `row_W` holds L times 0, then -inf."""
    (heads, own, _), keys = query_HSD.shape, key_KLD.shape[1]
    query_1HSD = query_HSD[None]
    shared = repeat_heads(key_KLD[None], heads), repeat_heads(value_KLD[None], heads)
    if own == keys:
        return scaled_dot_product_attention(query_1HSD, *shared, is_causal=True, scale=scale)[0]
    if query_HSD.is_cuda:
        mask = CausalBias(CausalVariant.LOWER_RIGHT, own, keys)
        return scaled_dot_product_attention(query_1HSD, *shared, attn_mask=mask, scale=scale)[0]
    mask_SL = row_W.as_strided((own, keys), (1, 1))
    out_1HSD = scaled_dot_product_attention(
        query_1HSD.flip(2), *shared, attn_mask=mask_SL, scale=scale
    )
    return out_1HSD[0].flip(1)


def _sizes(ends_L: Tensor) -> list[int]:
    ends = cast("list[int]", ends_L.tolist())
    return [stop - start for start, stop in pairwise(ends)]
