"""Attention in blocks of 128 x 128 pairs: torch's flex_attention, compiled, for a GPU.

Key k is seen by the columns k to leave[k] - 1. So the blocks of queries that see something of a
block of keys are one range: from the block itself to the one where its longest subtree ends.
Those that see all of it are another: below the block itself, to where its shortest subtree
ends. Two numbers per block hold the whole mask, and nothing of U x U is ever built.

On a CPU torch computes it without compiling and without gradients: for tests.

Source: FlexAttention (arXiv 2412.05496). Difference: the block lists come from intervals, not
from the mask evaluated at every pair.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head; N blocks of S columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from treegrpo.attention.base import BackendRefused, attention
from treegrpo.attention.derived import once_per_layout
from treegrpo.attention.layout import TreeLayout

BLOCK = 128
"""Columns of a block; rows are padded to a multiple of it."""

_FLEX = cast(Callable[..., Tensor], flex_attention)  # its overloads hide what it returns

MAX_RECOMPILES = 64
"""Kernels compiled for one process: lengths are dynamic, so number formats, head counts and
batches of one row or several are what tells them apart."""


@attention("flex")
def flex(
    query_BHUD: Tensor, key_BKUD: Tensor, value_BKUD: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Return softmax(scale * query key + mask) value, (B, H, U, D).

    Raises:
        BackendRefused: gradients asked for on a CPU; or more kernels than MAX_RECOMPILES.
    """
    _require_forward_only(query_BHUD, key_BKUD, value_BKUD)
    num_columns = query_BHUD.shape[2]
    spare = (0, 0, 0, -num_columns % BLOCK)
    query, key, value = (
        pad(one, spare) if spare[3] else one for one in (query_BHUD, key_BKUD, value_BKUD)
    )
    settings: dict[str, Any] = {
        "block_mask": block_mask(layout),
        "scale": scale,
        "enable_gqa": query_BHUD.shape[1] != key_BKUD.shape[1],
    }
    if torch.compiler.is_compiling():  # as a part of a model that its owner compiles
        out_BHUD = _FLEX(query, key, value, **settings)
    else:
        backend = "inductor" if query.is_cuda else "eager"
        out_BHUD = guarded(compiled(backend), query, key, value, **settings)
    return out_BHUD[:, :, :num_columns]


@once_per_layout
def block_mask(layout: TreeLayout) -> BlockMask:
    """Return the layout as torch's flex_attention takes it; made once per layout."""
    leave_BU = _padded(layout)
    seen_BNN, whole_BNN = blocks(layout)
    partial_BN, partial_BNN = _listed(seen_BNN & ~whole_BNN)
    full_BN, full_BNN = _listed(whole_BNN)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return (key <= query) & (query < leave_BU[row, key])

    return BlockMask.from_kv_blocks(
        partial_BN,
        partial_BNN,
        full_BN,
        full_BNN,
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(leave_BU.shape[1], leave_BU.shape[1]),
    )


def blocks(layout: TreeLayout) -> tuple[Tensor, Tensor]:
    """Return which blocks hold a pair that counts, and in which every pair does.

    Both are tables of Booleans (B, N, N): [b, block of queries, block of keys].
    """
    leave_BNS = _padded(layout).view(len(layout.leave_BU), -1, BLOCK)
    block_N = torch.arange(leave_BNS.shape[1], device=leave_BNS.device)
    longest_BN, shortest_BN = leave_BNS.amax(2), leave_BNS.amin(2)
    first_N, behind_N = block_N * BLOCK, (block_N + 1) * BLOCK
    not_above_NN = block_N[:, None] >= block_N[None, :]
    below_NN = block_N[:, None] > block_N[None, :]
    seen_BNN = not_above_NN & (first_N[:, None] < longest_BN[:, None, :])
    whole_BNN = below_NN & (behind_N[:, None] <= shortest_BN[:, None, :])
    return seen_BNN, whole_BNN


def block_efficiency(layout: TreeLayout) -> float:
    """Return the share of the pairs computed that count, in (0, 1]."""
    seen_BNN, _ = blocks(layout)
    return layout.num_pairs / (int(seen_BNN.sum()) * BLOCK**2)


@functools.cache
def compiled(backend: str | Callable[..., Any]) -> Callable[..., Tensor]:
    """Return flex_attention compiled for any length; compiles nothing before the first call."""
    return torch.compile(_FLEX, dynamic=True, backend=backend)


def guarded(attend: Callable[..., Tensor], *inputs: Tensor, **settings: Any) -> Tensor:
    """Return what compiled code returns, with every shape compiled for or refused.

    Raises:
        BackendRefused: more than MAX_RECOMPILES kernels. torch alone would go on with code that
            was compiled for other shapes, or with none.
    """
    patch = cast(Callable[..., AbstractContextManager[None]], dynamo_config.patch)
    limits = patch(recompile_limit=MAX_RECOMPILES, fail_on_recompile_limit_hit=True)
    try:
        with limits:
            return attend(*inputs, **settings)
    except FailOnRecompileLimitHit as error:
        raise BackendRefused(
            f"Attention 'flex' asked for with queries of shape {tuple(inputs[0].shape)}",
            f"torch has compiled {MAX_RECOMPILES} kernels for other shapes already, the most "
            "allowed",
            "Use attention=varlen or attention=segments",
        ) from error


def _require_forward_only(*tensors: Tensor) -> None:
    needs_grad = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    if needs_grad and not tensors[0].is_cuda:
        raise BackendRefused(
            f"Training with attention 'flex' on device '{tensors[0].device}' asked for",
            "torch computes its gradients on CUDA devices only",
            "Use attention=segments or attention=dense",
        )


def _padded(layout: TreeLayout) -> Tensor:
    """Return leave_BU for a multiple of BLOCK columns; those added see only themselves."""
    num_columns = layout.leave_BU.shape[1]
    whole = num_columns + -num_columns % BLOCK
    own_U = torch.arange(num_columns + 1, whole + 1, device=layout.leave_BU.device)
    return torch.cat([layout.leave_BU, own_U.expand(len(layout.leave_BU), -1)], dim=1)


def _listed(table_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each block of queries how many blocks of keys it has, and which, those first."""
    order_BNN = table_BNN.to(torch.int8).argsort(dim=2, descending=True, stable=True)
    count_BN = table_BNN.sum(2, dtype=torch.int32)
    return count_BN[:, None], order_BNN[:, None].to(torch.int32)
