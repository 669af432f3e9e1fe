"""Attention segment by segment, on any device, nothing compiled: what a CPU trains with.

Every token is a query once, in the segment of the first leaf that owns it; its keys are that
leaf's path, gathered. The queries are the path's last columns, so the causal mask is aligned
with the lower right corner. One scaled_dot_product_attention call per leaf, over the rectangle
of its own columns and its path.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head; Q tokens of the batch, G
gathered keys; S columns of a segment, L of its path.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from treegrpo.attention.base import attention, repeat_heads
from treegrpo.attention.derived import once_per_layout
from treegrpo.attention.layout import TreeLayout
from treegrpo.attention.varlen import along_paths


@attention("segments")
def segments(
    query_BHUD: Tensor, key_BKUD: Tensor, value_BKUD: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Return softmax(scale * query key + mask) value, (B, H, U, D); 0 in the padding."""
    attend = partial(_one_by_one, masks(layout))
    return along_paths(attend, query_BHUD, key_BKUD, value_BKUD, layout, scale)


@once_per_layout
def masks(layout: TreeLayout) -> list[Tensor | None]:
    """Return what each segment adds to its scores, 0 or -inf, (S, L); None: simply causal.

    Made once for all layers, which keep the same tensor for their backward passes.
    """
    found: list[Tensor | None] = []
    for segment in (segment for row in layout.segments for segment in row):
        own, keys = segment.stop - segment.start, segment.num_keys
        hidden_SL = None
        if own < keys:
            infinite_SL = torch.full((own, keys), float("-inf"), device=layout.leave_BU.device)
            hidden_SL = infinite_SL.triu(keys - own + 1)
        found.append(hidden_SL)
    return found


def _one_by_one(
    masks: list[Tensor | None],
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
    each = zip(queries, keys, values, masks, strict=True)
    pieces = [_attend(*one, scale) for one in each]
    return torch.cat(pieces, dim=1).transpose(0, 1)


def _attend(
    query_HSD: Tensor, key_KLD: Tensor, value_KLD: Tensor, mask_SL: Tensor | None, scale: float
) -> Tensor:
    heads = len(query_HSD)
    return scaled_dot_product_attention(
        query_HSD[None],
        repeat_heads(key_KLD[None], heads),
        repeat_heads(value_KLD[None], heads),
        attn_mask=None if mask_SL is None else mask_SL.to(query_HSD.dtype),
        is_causal=mask_SL is None,
        scale=scale,
    )[0]


def _sizes(ends_L: Tensor) -> list[int]:
    ends = cast("list[int]", ends_L.tolist())
    return [stop - start for start, stop in pairwise(ends)]
