"""Where each token of a packed batch stands in its tree: all that attention needs to know.

Rows are in depth-first order, so the descendants of token k are the columns after it up to
leave[k], and `k <= q < leave[k]` says whether k is q or an ancestor of q.

A segment holds the columns that belong to one leaf and to no leaf before it. They follow one
another on that leaf's path, so their keys are the path's earlier columns and, causally, the
segment itself. The segments of a row cover each of its tokens once.

Shapes: B rows, U columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """Columns `start` to `stop` of a row, and the columns of their path before them."""

    start: int
    stop: int
    above: tuple[tuple[int, int], ...]
    """Ranges (first, past the last), in order of depth."""

    @property
    def num_keys(self) -> int:
        """Length of the path down to the segment's end."""
        return self.stop - self.start + sum(stop - start for start, stop in self.above)

    @property
    def num_pairs(self) -> int:
        """(query, key) pairs that count."""
        own = self.stop - self.start
        return own * (self.num_keys - own) + own * (own + 1) // 2


@dataclass(frozen=True)
class TreeLayout:
    """Positions, subtree intervals and segments of the rows of a batch."""

    position_BU: Tensor
    """Depth in tokens; 0 in the padding."""
    leave_BU: Tensor
    """Past the last column of the token's subtree; a padding token is its own only descendant."""
    segments: tuple[tuple[Segment, ...], ...]
    """Of each row, from left to right; none for padding."""

    @property
    def num_pairs(self) -> int:
        """(token, ancestor or self) pairs of the batch."""
        return sum(segment.num_pairs for row in self.segments for segment in row)

    @property
    def is_chain(self) -> bool:
        """Whether every row is one plain path, so that a causal mask is enough."""
        return all(len(row) == 1 and not row[0].above for row in self.segments)

    @cached_property
    def mask_B1UU(self) -> Tensor:
        """Whether query q sees key k, True or False: [b, 0, q, k]. The one tensor of U x U."""
        column_U = torch.arange(self.leave_BU.shape[1], device=self.leave_BU.device)
        not_after_UU = column_U[None, :] <= column_U[:, None]
        inside_BUU = column_U[None, :, None] < self.leave_BU[:, None, :]
        return (not_after_UU & inside_BUU)[:, None]
