"""Attention on dense windows: what a packed row of prefilled and decoding tokens sees.

Bits: a token's numbers must not depend on what runs beside it, nor on whether it was decoded or
prefilled. So every token attends by the same two small matrix products, a decoding token over its
row's window, a prefilled one likewise, with the window repeated (not copied) for each token. On
the CPUs measured a product in a batch has the same bits whatever the batch, and ignores zeros
behind the inner dimension if tokens stand at the left and the columns are a multiple of 16, at
least 64, and with 4 grouped queries or more not between 192 and 384 modulo 512. Linear layers
need a multiple of 8 tokens.

Shapes: T tokens of the packed row, H query heads, K key heads, Q queries a key head (H / K),
D head size, L layers, R rows of a group, C columns, P tokens of a job's piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN_MULTIPLE = 8
"""Tokens of a forward pass are padded to a multiple of this."""
PIECE = 64
"""Prefilled tokens that attend at once: their scores stay in the cache."""
_LEAST_COLUMNS = 64
"""Smaller products take another path, with other bits."""


def safe_columns(columns: int, grouped: int) -> int:
    """Return the next number of columns that a product may sum over without other bits.

    Args:
        columns: that are needed.
        grouped: queries a key head.
    """
    whole, rest = divmod(max(columns, _LEAST_COLUMNS), 512)
    rest = -(-rest // 16) * 16
    return whole * 512 + (384 if grouped > 3 and 192 < rest < 384 else rest)


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
    (count, columns), size = mask_PC.shape, query_HPD.shape[2]
    heads = range(len(key_KCD))
    query_KQPD = query_HPD.reshape(len(heads), -1, count, size)
    query_KPQD = query_KQPD.transpose(1, 2).contiguous()
    score_KPQC = query_HPD.new_empty((*query_KPQD.shape[:3], columns))
    for head in heads:
        key_PDC = key_KCD[head, :columns].T.expand(count, size, columns)
        torch.bmm(query_KPQD[head], key_PDC, out=score_KPQC[head])
    weight_KPQC = _softmax(score_KPQC.add_(mask_PC[:, None]))
    for head in heads:
        value_PCD = value_KCD[head, :columns].expand(count, columns, size)
        torch.bmm(weight_KPQC[head], value_PCD, out=query_KPQD[head])
    return query_KPQD.permute(1, 0, 2, 3).flatten(1, 2)


def _decode(query_HRD: Tensor, key_RKCD: Tensor, value_RKCD: Tensor, mask_R11C: Tensor) -> Tensor:
    """Return what one token per row sees in its window, [R, H, D]."""
    heads, count, _ = query_HRD.shape
    keys, columns = key_RKCD.shape[1], mask_R11C.shape[-1]
    query_RKQD = query_HRD.reshape(keys, heads // keys, count, -1).permute(2, 0, 1, 3)
    key = key_RKCD[:count, :, :columns].flatten(0, 1)
    score = torch.bmm(query_RKQD.flatten(0, 1), key.transpose(1, 2))
    weight_RKQC = _softmax(score.view(count, keys, -1, columns).add_(mask_R11C))
    out = torch.bmm(weight_RKQC.flatten(0, 1), value_RKCD[:count, :, :columns].flatten(0, 1))
    return out.view(count, heads, -1)


def _softmax(score: Tensor) -> Tensor:
    return torch.softmax(score, -1, dtype=torch.float32).to(score.dtype)
