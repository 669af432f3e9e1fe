"""Attention on dense windows: what a packed row of prefilled and decoding tokens sees.

Bits: a token's numbers must not depend on what runs beside it, nor on whether it was decoded or
prefilled. On the CPUs measured, a matrix product gives a row of the left factor the same bits
for any number of rows from 4 on, padded to a multiple of 8 in the linear layers, and ignores
zeros behind the inner dimension if that is a multiple of 16 outside (192, 384) modulo 512. So
tokens stand at the left, and decoding runs on 4 rows, of which 3 are zero where no grouped
queries fill them.

Shapes: T tokens of the packed row, H query heads, K key heads, Q queries a key head (H / K),
D head size, L layers, R rows of a group, C columns, M max(Q, 4), P tokens of a job's piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN_MULTIPLE = 8
"""Tokens of a forward pass are padded to a multiple of this."""
LEAST_QUERIES = 4
"""A matrix product on fewer rows takes another path, with other bits."""
PIECE = 128
"""Prefilled tokens that attend at once: their scores stay in the cache."""


def safe_columns(columns: int) -> int:
    """Return the next number of columns that a product may sum over without other bits."""
    whole, rest = divmod(columns, 512)
    rest = -(-rest // 16) * 16
    return whole * 512 + (384 if 192 < rest < 384 else rest)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask that is added to scores: 0 where `seen`, minus infinity elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of a job that attend at once."""

    kv_L2KCD: Tensor
    """The window, all columns."""
    token: int
    """The first one's place in the packed row."""
    count: int
    column: int
    """The first one's column."""
    mask_PC: Tensor


@dataclass(frozen=True, slots=True)
class Decode:
    """The rows of a group, one token each."""

    kv_L2RKCD: Tensor
    token: int
    count: int
    write_R: Tensor
    """Where each row and key head's new key goes, among those of all rows, heads and columns."""
    mask_R11C: Tensor


class WindowedAttention:
    """Attention of one forward pass; called once per layer.

    Args:
        pieces: the prefilled tokens.
        decodes: the decoding tokens, behind them in the packed row.
    """

    def __init__(self, pieces: Sequence[Piece], decodes: Sequence[Decode]) -> None:
        self._pieces, self._decodes = pieces, decodes

    def __call__(
        self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float
    ) -> Tensor:
        """Store the keys and values, and return what each token sees, [T, H, D]."""
        query_HTD = query_HTD * scale
        out_THD = query_HTD.new_zeros((query_HTD.shape[1], len(query_HTD), query_HTD.shape[2]))
        for piece in self._pieces:
            span = slice(piece.token, piece.token + piece.count)
            key_KCD, value_KCD = piece.kv_L2KCD[layer]
            columns = slice(piece.column, piece.column + piece.count)
            key_KCD[:, columns] = key_KTD[:, span]
            value_KCD[:, columns] = value_KTD[:, span]
            out_THD[span] = _prefill(query_HTD[:, span], key_KCD, value_KCD, piece.mask_PC)
        for decode in self._decodes:
            span = slice(decode.token, decode.token + decode.count)
            key_RKCD, value_RKCD = decode.kv_L2RKCD[layer]
            for window, new in ((key_RKCD, key_KTD), (value_RKCD, value_KTD)):
                flat = window.view(-1, window.shape[-1])
                flat.index_copy_(0, decode.write_R, new[:, span].transpose(0, 1).flatten(0, 1))
            out_THD[span] = _decode(query_HTD[:, span], key_RKCD, value_RKCD, decode.mask_R11C)
        return out_THD


def _prefill(query_HPD: Tensor, key_KCD: Tensor, value_KCD: Tensor, mask_PC: Tensor) -> Tensor:
    """Return what a piece's tokens see in their window, [P, H, D]."""
    heads, count, size = query_HPD.shape
    columns = mask_PC.shape[1]
    query = query_HPD.reshape(len(key_KCD), -1, size)
    rows = query.shape[1]
    if rows < LEAST_QUERIES:
        query = torch.nn.functional.pad(query, (0, 0, 0, LEAST_QUERIES - rows))
    score = torch.bmm(query, key_KCD[:, :columns].transpose(1, 2))
    real = score[:, :rows].unflatten(1, (-1, count)).add_(mask_PC)
    weight = torch.softmax(real, -1, dtype=torch.float32).to(score.dtype).flatten(1, 2)
    if rows < LEAST_QUERIES:
        weight = torch.nn.functional.pad(weight, (0, 0, 0, LEAST_QUERIES - rows))
    out = torch.bmm(weight, value_KCD[:, :columns])[:, :rows]
    return out.reshape(heads, count, size).transpose(0, 1)


def _decode(query_HRD: Tensor, key_RKCD: Tensor, value_RKCD: Tensor, mask_R11C: Tensor) -> Tensor:
    """Return what one token per row sees in its window, [R, H, D]."""
    heads, count, size = query_HRD.shape
    keys, columns = key_RKCD.shape[1], mask_R11C.shape[-1]
    rows = max(heads // keys, LEAST_QUERIES)
    query_RKMD = query_HRD.new_zeros((count, keys, rows, size))
    query_RKMD[:, :, : heads // keys] = query_HRD.view(keys, -1, count, size).permute(2, 0, 1, 3)
    key = key_RKCD[:count, :, :columns].flatten(0, 1)
    score = torch.bmm(query_RKMD.flatten(0, 1), key.transpose(1, 2))
    real = score.view(count, keys, rows, columns)[:, :, : heads // keys]
    real.copy_(torch.softmax(real.add_(mask_R11C), -1, dtype=torch.float32))
    # The rows of padding hold 0 times the keys, which is 0: they add nothing.
    out = torch.bmm(score, value_RKCD[:count, :, :columns].flatten(0, 1))
    return out.view(count, keys, rows, size)[:, :, : heads // keys].reshape(count, heads, size)
