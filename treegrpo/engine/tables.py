"""The native engine's KV on a GPU: attention through block tables, decoding in CUDA graphs.

A forward pass writes the new keys and values into the pool and attends there. A model of many
small layers spends most of a decoding step launching kernels, so on a GPU a step is captured
once per bucket of rows and blocks and replayed. Every number that reaches a kernel is either a
tensor that is filled anew before each replay, or part of the bucket: lengths that were baked into
a graph would silently cut what rows see.

Shapes: T tokens, J sequences, E blocks of a sequence, K key heads, D head size, G outputs,
V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from treegrpo.engine.kernels import Kernel, Spans
from treegrpo.engine.paged import SCRATCH, BlockPool
from treegrpo.engine.paged_attention import Forward
from treegrpo.engine.rows import Job, Row


def bucket(count: int) -> int:
    """Return the next power of two."""
    return 1 << max(0, count - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed row, on the model's device."""

    ids_T: Tensor
    positions_T: Tensor
    slots_T: Tensor
    """Where in the pool each token's KV goes."""
    wanted_G: Tensor
    spans: Spans

    def copy_(self, other: "Packed") -> None:
        """Take over the numbers of another of the same sizes."""
        for name in ("ids_T", "positions_T", "slots_T", "wanted_G"):
            getattr(self, name).copy_(getattr(other, name))
        for name in ("starts_J1", "lengths_J", "table_JE"):
            getattr(self.spans, name).copy_(getattr(other.spans, name))


class Tables:
    """The backend for GPUs: see the module.

    Args:
        forward: the model.
        pool: where KV lives.
        kernel: attention through block tables.
        use_graphs: capture and replay decoding.
    """

    def __init__(
        self, forward: Forward, pool: BlockPool, kernel: Kernel, *, use_graphs: bool
    ) -> None:
        self._forward, self._pool, self._kernel = forward, pool, kernel
        self._device = pool.tensor_L2NSHD.device
        self._use_graphs = use_graphs
        self._graphs: dict[tuple[int, int], tuple[Any, Packed, Tensor]] = {}
        self._tables: dict[Row, list[int]] = {}

    def join(self, row: Row) -> None:
        """Take note of the row's blocks."""
        self._tables[row] = self._pool.table(row.stem)

    def ready(self, row: Row) -> None:
        """Do nothing: what is in the pool can be read."""

    def leave(self, row: Row, *, keep: bool) -> None:
        """Forget the row; its KV is in its blocks."""
        del keep, self._tables[row]

    def clear(self) -> None:
        """Forget all rows."""
        self._tables.clear()

    def forward(self, jobs: Sequence[Job], rows: Sequence[Row]) -> tuple[Tensor, int]:
        """Return logits [G, V] behind each job and each row, and the tokens that were padding."""
        parts: list[Tensor] = []
        padding = 0
        if jobs:
            spans = [(self._pool.table(job.stem), job.start, job.ids) for job in jobs]
            packed = self._packed(spans, [job.is_new for job in jobs], len(jobs), None)
            parts.append(self._eager(packed)[: len(jobs)])
        if rows:
            count, blocks = len(rows), max(len(self._tables[row]) for row in rows)
            size = (bucket(count), bucket(blocks))
            spans = [(self._tables[row], row.position, row.ids[-1:]) for row in rows]
            packed = self._packed(spans, [True] * count, size[0], size[1])
            logits_GV = self._replayed(size, packed) if self._use_graphs else self._eager(packed)
            parts.append(logits_GV[:count])
            padding = size[0] - count
        return torch.cat(parts), padding

    def _packed(
        self,
        sequences: Sequence[tuple[list[int], int, list[int]]],
        are_new: Sequence[bool],
        count: int,
        blocks: int | None,
    ) -> Packed:
        """Return (table, start, ids) of each sequence as tensors, padded to `count` sequences."""
        pads = [([SCRATCH], 0, [0])] * (count - len(sequences))
        every = [*sequences, *pads]
        flags = [*are_new, *[False] * len(pads)]
        size = self._pool.block_size
        slots: list[int] = []
        for (table, start, ids), is_new in zip(every, flags, strict=True):
            places = range(start, start + len(ids)) if is_new else ()
            slots += [table[place // size] * size + place % size for place in places]
            slots += [SCRATCH] * (0 if is_new else len(ids))
        width = blocks or max(len(table) for table, _, _ in every)
        tables = [table[:width] + [SCRATCH] * (width - len(table)) for table, _, _ in every]
        ends = list(accumulate(len(ids) for _, _, ids in every))
        most = max(len(ids) for _, _, ids in every)
        return Packed(
            self._tensor([token for _, _, ids in every for token in ids]),
            self._tensor([start + n for _, start, ids in every for n in range(len(ids))]),
            self._tensor(slots),
            self._tensor([end - 1 for end in ends]),
            Spans(
                self._tensor([0, *ends], torch.int32),
                self._tensor([start + len(ids) for _, start, ids in every], torch.int32),
                self._tensor(tables, torch.int32),
                most,
                width * size,
            ),
        )

    def _tensor(self, numbers: Sequence[Any], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(self._device, non_blocking=True)

    def _eager(self, packed: Packed) -> Tensor:
        """Return the logits [G, V] of the packed row."""

        def attend(
            layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float
        ) -> Tensor:
            pages = self._pool.tensor_L2NSHD[layer]
            for page, new in ((pages[0], key_KTD), (pages[1], value_KTD)):
                page.flatten(0, 1).index_copy_(0, packed.slots_T, new.transpose(0, 1))
            query = query_HTD.transpose(0, 1).contiguous()
            return self._kernel(query, pages[0], pages[1], packed.spans, scale)

        return self._forward(packed.ids_T, packed.positions_T, packed.wanted_G, attend)

    def _replayed(self, size: tuple[int, int], packed: Packed) -> Tensor:
        """Return the same from the bucket's graph, captured when it is first needed."""
        if size not in self._graphs:
            self._graphs[size] = self._capture(packed)
        graph, fixed, logits_GV = self._graphs[size]
        fixed.copy_(packed)
        graph.replay()
        return logits_GV.clone()

    def _capture(self, packed: Packed) -> tuple[Any, Packed, Tensor]:
        """Return a graph of the forward pass, the tensors it reads and the one it fills."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels choose their plans on the first runs
            for _ in range(2):
                self._eager(packed)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with cast(Any, torch.cuda.graph(graph)):
            logits_GV = self._eager(packed)
        return graph, packed, logits_GV
