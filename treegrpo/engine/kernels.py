"""Attention through block tables: what PyTorch or an importable library offers, and a reference.

A kernel takes packed queries, the pages of keys and of values, and says what each query sees in
its own sequence up to its own place. `pick_kernel` takes the first that runs on the model's
device, number format and block size and agrees with the reference on a small example.

Shapes: T tokens, J sequences, E blocks of a sequence, N blocks, S tokens a block, H query heads,
K key heads, D head size, C columns (E * S).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from treegrpo.engine.kv import KVShape


@dataclass(frozen=True, slots=True)
class Spans:
    """Which queries and which keys belong to each sequence of a packed row."""

    starts_J1: Tensor
    """0, and where each sequence's queries end; int32 [J + 1]."""
    lengths_J: Tensor
    """Keys of each sequence, its own queries' included; int32."""
    table_JE: Tensor
    """Blocks of each sequence; int32."""
    max_queries: int
    max_keys: int


Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Spans, float], Tensor]
"""(query_THD, key_NSKD, value_NSKD, spans, scale) -> out_THD."""


def gathered(
    query_THD: Tensor, key_NSKD: Tensor, value_NSKD: Tensor, spans: Spans, scale: float
) -> Tensor:
    """The reference: each sequence's keys are gathered, then SDPA; one query a sequence or any."""
    table_JE, lengths_J = spans.table_JE.long(), spans.lengths_J.long()
    column_C = torch.arange(table_JE.shape[1] * key_NSKD.shape[1], device=query_THD.device)
    is_kept = (column_C < lengths_J[:, None])[..., None, None]
    # Blocks hold anything behind the last token, and NaN times zero is NaN.
    key_JCKD, value_JCKD = (
        torch.where(is_kept, pages[table_JE].flatten(1, 2), 0) for pages in (key_NSKD, value_NSKD)
    )
    ends, token_T = spans.starts_J1[1:].long(), torch.arange(len(query_THD), device=column_C.device)
    owner_T = torch.searchsorted(ends, token_T, right=True).clamp_(max=len(ends) - 1)
    place_T = lengths_J[owner_T] - ends[owner_T] + token_T
    is_seen = (column_C <= place_T[:, None])[:, None, None]
    if len(token_T) != len(table_JE):
        key_JCKD, value_JCKD = key_JCKD[owner_T], value_JCKD[owner_T]
    times = query_THD.shape[1] // key_NSKD.shape[2]
    key, value = (
        one.transpose(1, 2).repeat_interleave(times, dim=1) for one in (key_JCKD, value_JCKD)
    )
    out = torch.nn.functional.scaled_dot_product_attention(
        query_THD[:, :, None], key, value, attn_mask=is_seen, scale=scale
    )
    return out[:, :, 0]


def varlen(
    query_THD: Tensor, key_NSKD: Tensor, value_NSKD: Tensor, spans: Spans, scale: float
) -> Tensor:
    """PyTorch's varlen_attn with a block table; takes the flash attention 3 package."""
    attend: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    return attend(
        query_THD,
        key_NSKD,
        value_NSKD,
        spans.starts_J1,
        None,
        spans.max_queries,
        spans.max_keys,
        scale=scale,
        window_size=(-1, 0),  # causal, aligned with the lower right corner
        enable_gqa=query_THD.shape[1] != key_NSKD.shape[2],
        seqused_k=spans.lengths_J,
        block_table=spans.table_JE,
    )


def flash(
    query_THD: Tensor, key_NSKD: Tensor, value_NSKD: Tensor, spans: Spans, scale: float
) -> Tensor:
    """The flash_attn package; its pages are multiples of 256 tokens."""
    attend: Any = importlib.import_module("flash_attn").flash_attn_varlen_func
    keys_J1 = torch.nn.functional.pad(spans.lengths_J.cumsum(0, dtype=torch.int32), (1, 0))
    return attend(
        query_THD,
        key_NSKD,
        value_NSKD,
        spans.starts_J1,
        keys_J1,
        spans.max_queries,
        spans.max_keys,
        softmax_scale=scale,
        causal=True,
        block_table=spans.table_JE,
    )


def pick_kernel(shape: KVShape, grouped: int, block_size: int) -> tuple[str, Kernel]:
    """Return the name and the first kernel that runs here and agrees with the reference."""
    if shape.device.type == "cuda" and shape.dtype in (torch.bfloat16, torch.float16):
        example = _example(shape, grouped, block_size)
        expected = gathered(*example)
        for name, kernel in (("varlen", varlen), ("flash", flash)):
            try:
                out = kernel(*example)
            except Exception:  # noqa: BLE001 - kernels refuse with whatever their makers chose
                continue
            if torch.allclose(out, expected, atol=0.03, rtol=0.03):
                return name, kernel
    return "gathered", gathered


def _example(
    shape: KVShape, grouped: int, block_size: int
) -> tuple[Tensor, Tensor, Tensor, Spans, float]:
    """Return arguments of a kernel: two sequences, 3 and 1 queries, 2 blocks each."""
    device, heads, size = shape.device, shape.heads, shape.head_dim
    make = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(sizes, generator=make, device=device, dtype=shape.dtype)
        for sizes in ((4, heads * grouped, size), *[(5, block_size, heads, size)] * 2)
    )
    ints = [[0, 3, 4], [block_size + 1, 2 * block_size], [[4, 1], [2, 3]]]
    starts, lengths, table = (torch.tensor(one, dtype=torch.int32, device=device) for one in ints)
    return query, key, value, Spans(starts, lengths, table, 3, 2 * block_size), size**-0.5
