"""Attention segment by segment in one call of torch's varlen_attn: flash attention, for a GPU.

The same division of the work as in `segments`: the queries of a segment are the last columns of
a path, whose keys are gathered behind those of the other paths. Nothing is compiled or padded,
and only the pairs that count are computed; the gathered keys have the length of the flat batch.

A key's gradient is a sum over the paths that it was gathered for. It is taken in float32 or
better, whatever the model's number format. On a GPU the order of that sum is not fixed.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head; Q tokens of the batch, G
gathered keys, L segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from treegrpo.attention.base import BackendRefused, attention
from treegrpo.attention.derived import once_per_layout
from treegrpo.attention.layout import TreeLayout

DTYPES = (torch.bfloat16, torch.float16)
"""Number formats that the flash kernels take."""


@dataclass(frozen=True)
class Paths:
    """Which columns each segment's queries and keys are, for one call of varlen_attn."""

    query_Q: Tensor
    """Column of each token, counted through all rows: row * U + column."""
    key_G: Tensor
    """Likewise of each key of each path."""
    query_ends_L: Tensor
    """0, and where each segment's queries end; int32."""
    key_ends_L: Tensor
    """0, and where each segment's keys end; int32."""
    max_queries: int
    max_keys: int


@attention("varlen")
def varlen(
    query_BHUD: Tensor, key_BKUD: Tensor, value_BKUD: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Return softmax(scale * query key + mask) value, (B, H, U, D); 0 in the padding.

    Raises:
        BackendRefused: not on a CUDA device, or not in bfloat16 or float16.
    """
    if not query_BHUD.is_cuda or query_BHUD.dtype not in DTYPES:
        raise BackendRefused(
            f"Attention 'varlen' asked for on device '{query_BHUD.device}' in {query_BHUD.dtype}",
            "its kernels run on CUDA devices, in bfloat16 and float16",
            "Use attention=segments",
        )
    return along_paths(varlen_attn, query_BHUD, key_BKUD, value_BKUD, layout, scale)


def along_paths(
    attend: Callable[..., Any],
    query_BHUD: Tensor,
    key_BKUD: Tensor,
    value_BKUD: Tensor,
    layout: TreeLayout,
    scale: float,
) -> Tensor:
    """Return the attention that `attend`, with the signature of varlen_attn, computes."""
    at = paths(layout)
    query_RHD, key_RKD, value_RKD = (
        one.transpose(1, 2).flatten(0, 1) for one in (query_BHUD, key_BKUD, value_BKUD)
    )
    out_QHD = attend(
        query_RHD.index_select(0, at.query_Q),
        gather(key_RKD, at.key_G),
        gather(value_RKD, at.key_G),
        at.query_ends_L,
        at.key_ends_L,
        at.max_queries,
        at.max_keys,
        scale=scale,
        window_size=(-1, 0),  # causal, aligned with the lower right corner
        enable_gqa=query_BHUD.shape[1] != key_BKUD.shape[1],
    )
    out_RHD = torch.zeros_like(query_RHD).index_copy(0, at.query_Q, out_QHD)
    out_BUHD = out_RHD.view(len(query_BHUD), -1, *out_RHD.shape[1:])
    return out_BUHD.transpose(1, 2)


@once_per_layout
def paths(layout: TreeLayout) -> Paths:
    """Return the columns of all segments' queries and keys; made once per layout."""
    queries: list[range] = []
    keys: list[range] = []
    num_keys: list[int] = []
    width, device = layout.leave_BU.shape[1], layout.leave_BU.device
    for index, row in enumerate(layout.segments):
        for segment in row:
            own = (segment.start, segment.stop)
            queries.append(range(index * width + own[0], index * width + own[1]))
            keys += [
                range(index * width + start, index * width + stop)
                for start, stop in (*segment.above, own)
            ]
            num_keys.append(segment.num_keys)
    num_queries = [len(one) for one in queries]
    return Paths(
        _columns(queries, device),
        _columns(keys, device),
        _ends(num_queries, device),
        _ends(num_keys, device),
        max(num_queries, default=0),
        max(num_keys, default=0),
    )


class _Gather(torch.autograd.Function):
    """Rows by index; equal indices sum up their gradients in float32 or better."""

    @staticmethod
    def forward(ctx: Any, value_RKD: Tensor, index_G: Tensor) -> Tensor:
        ctx.save_for_backward(index_G)
        ctx.num_rows = len(value_RKD)
        return value_RKD.index_select(0, index_G)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (index_G,) = ctx.saved_tensors
        (grad_GKD,) = grad_outputs
        exact = torch.promote_types(grad_GKD.dtype, torch.float32)
        sum_RKD = grad_GKD.new_zeros(ctx.num_rows, *grad_GKD.shape[1:], dtype=exact)
        sum_RKD.index_add_(0, index_G, grad_GKD.to(exact))
        return sum_RKD.to(grad_GKD.dtype), None


def gather(value_RKD: Tensor, index_G: Tensor) -> Tensor:
    """Return the rows of `value_RKD` that the index names, (G, K, D)."""
    return cast(Tensor, _Gather.apply(value_RKD, index_G))


def _columns(ranges: list[range], device: torch.device) -> Tensor:
    pieces = [torch.arange(one.start, one.stop) for one in ranges]
    return torch.cat(pieces or [torch.arange(0)]).to(device)


def _ends(counts: list[int], device: torch.device) -> Tensor:
    return torch.tensor([*accumulate(counts, initial=0)], dtype=torch.int32).to(device)
