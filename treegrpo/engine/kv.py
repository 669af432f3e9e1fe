"""Keys and values: immutable segments between batches, one writable buffer inside a batch.

A context's KV is a chain of segments, newest first, each pointing at the one before it. Forks
share the chain, so a tree holds every token's KV once, whatever its shape.

Shapes: L layers, 2 keys and values, B rows, H key-value heads, T tokens, C columns, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """KV of consecutive tokens of one sequence, behind those of `parent`."""

    tensor_L2HTD: Tensor
    parent: "Segment | None"
    length: int
    """Tokens from the start of the sequence to the end of this segment."""
    version: int
    """Weight version it was computed under."""

    def chain(self) -> list["Segment"]:
        """Return the segments of the whole sequence, first token first."""
        found: list[Segment] = []
        segment: Segment | None = self
        while segment is not None:
            found.append(segment)
            segment = segment.parent
        return found[::-1]


@dataclass(frozen=True)
class KVShape:
    """What the model's KV looks like, without batch and tokens."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def empty(self, rows: int, columns: int) -> Tensor:
        """Return an uninitialised buffer of shape [L, 2, B, H, C, D]."""
        return torch.empty(
            (self.layers, 2, rows, self.heads, columns, self.head_dim),
            dtype=self.dtype,
            device=self.device,
        )


class BufferLayer(CacheLayerMixin):
    """One layer's view of the buffer, in the form in which transformers asks for it."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True
        self.used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffer is there from the start."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns in place and return views of all columns so far."""
        start, end = self.used, self.used + key_states.shape[-2]
        self.used = end
        self.buffer_keys[:, :, start:end] = key_states
        self.buffer_values[:, :, start:end] = value_states
        return self.buffer_keys[:, :, :end], self.buffer_values[:, :, :end]

    @property
    def buffer_keys(self) -> Tensor:
        """The keys, [B, H, C, D]."""
        assert self.keys is not None
        return self.keys

    @property
    def buffer_values(self) -> Tensor:
        """The values, [B, H, C, D]."""
        assert self.values is not None
        return self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns a forward of that many tokens attends to, and their offset."""
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        """Return the columns used so far."""
        return self.used

    def get_max_length(self) -> int:
        """Return the columns there are."""
        return self.buffer_keys.shape[-2]


class BufferCache(Cache):
    """A transformers cache over one preallocated buffer, so no token copies what is there."""

    def __init__(self, buffer_L2BHCD: Tensor, used: int) -> None:
        views = [BufferLayer(layer[0], layer[1]) for layer in buffer_L2BHCD]
        for view in views:
            view.used = used
        super().__init__(layers=list(views))
