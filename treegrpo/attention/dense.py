"""Attention with the whole mask: the reference, and the choice for short rows on a CPU.

torch's scaled_dot_product_attention over U x U pairs, whether they count or not.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from treegrpo.attention.base import attention, repeat_heads
from treegrpo.attention.layout import TreeLayout


@attention("dense")
def dense(
    query_BHUD: Tensor, key_BKUD: Tensor, value_BKUD: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Return softmax(scale * query key + mask) value, (B, H, U, D)."""
    heads = query_BHUD.shape[1]
    return scaled_dot_product_attention(
        query_BHUD,
        repeat_heads(key_BKUD, heads),
        repeat_heads(value_BKUD, heads),
        attn_mask=layout.mask_B1UU,
        scale=scale,
    )
