"""The native engine's KV on a CPU: a dense window per running row, grouped by length.

Blocks are right for sharing and wrong for arithmetic: gathering every row's KV at every token
costs more than attending to it. So a row that joins gets a window (a slot in a buffer of rows of
like length), filled from its blocks once; decoding writes and attends there without copies, and
what a row computed goes to its blocks when it leaves.

Shapes: T tokens, K key heads, D head size, L layers, R rows of a group, C columns, G outputs,
V words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from treegrpo.engine.kv import KVShape
from treegrpo.engine.paged import BlockPool, Stem
from treegrpo.engine.paged_attention import Forward
from treegrpo.engine.rows import Job, Row
from treegrpo.engine.windowed_attention import (
    PIECE,
    TOKEN_MULTIPLE,
    Decode,
    Piece,
    WindowedAttention,
    additive,
    safe_columns,
)

_CAPACITY_STEP = 128


class Group:
    """Windows of one capacity, side by side in one buffer."""

    def __init__(self, shape: KVShape, capacity: int) -> None:
        self.rows: list[Row | None] = []
        self.capacity = capacity
        """Columns of a window; one more takes what rows write that do not decode."""
        self._shape = shape
        self.kv_L2RKCD = self._zeros(8)

    @property
    def num_bytes(self) -> int:
        """Memory of the windows."""
        return self.kv_L2RKCD.nbytes

    def add(self, row: Row) -> None:
        """Give the row a window; its content is that of whoever had it before."""
        if None in self.rows:
            row.place = self.rows.index(None)
            self.rows[row.place] = row
            return
        row.place = len(self.rows)
        self.rows.append(row)
        if len(self.rows) > self.kv_L2RKCD.shape[2]:
            wider = self._zeros(2 * row.place)
            wider[:, :, : row.place] = self.kv_L2RKCD
            self.kv_L2RKCD = wider

    def remove(self, row: Row) -> None:
        """Take the row's window; when a quarter of them is empty, they close ranks."""
        self.rows[row.place] = None
        while self.rows and self.rows[-1] is None:
            self.rows.pop()
        if 4 * self.rows.count(None) <= len(self.rows):
            return
        while None in self.rows:
            moved, hole = self.rows.pop(), self.rows.index(None)
            if moved is not None:
                kv = self.kv_L2RKCD
                kv[:, :, hole, :, : moved.columns] = kv[:, :, moved.place, :, : moved.columns]
                moved.place = hole
                self.rows[hole] = moved
            while self.rows and self.rows[-1] is None:
                self.rows.pop()

    def _zeros(self, rows: int) -> Tensor:
        """Columns that are masked still take part in products: they must be finite."""
        return self._shape.empty(rows, self.capacity + 1).zero_()


class Windows:
    """The backend for CPUs: see the module.

    Args:
        forward: the model.
        shape: of its KV.
        pool: where KV lives between turns.
        grouped: queries a key head.
    """

    def __init__(self, forward: Forward, shape: KVShape, pool: BlockPool, grouped: int) -> None:
        self._forward, self._shape, self._pool = forward, shape, pool
        self._grouped = grouped
        self._groups: dict[int, Group] = {}
        self._filled: dict[Row, int] = {}

    def join(self, row: Row) -> None:
        """Give the row a window."""
        capacity = self._capacity(row)
        if capacity not in self._groups:
            self._groups[capacity] = Group(self._shape, capacity)
        self._groups[capacity].add(row)
        self._filled[row] = 0

    def ready(self, row: Row) -> None:
        """Fill the row's window with all before its first sampled token."""
        self._fill(row, row.last, row.length)

    def leave(self, row: Row, *, keep: bool) -> None:
        """Take the row's window; `keep` what it decoded, in its blocks."""
        start, end = row.length, row.position
        if keep and end > start:
            self._save(row, self._pool.slots(self._pool.table(row.stem), start, end), start)
        capacity = self._capacity(row)
        self._groups[capacity].remove(row)
        del self._filled[row]
        if sum(group.num_bytes for group in self._groups.values()) > self._pool.num_bytes:
            self._groups = {size: group for size, group in self._groups.items() if group.rows}

    def clear(self) -> None:
        """Forget all rows and windows."""
        self._groups.clear()
        self._filled.clear()

    def forward(self, jobs: Sequence[Job], rows: Sequence[Row]) -> tuple[Tensor, int]:
        """Return logits [G, V] behind each job and each row, and the tokens that were padding."""
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        pieces: list[Piece] = []
        for job in jobs:
            self._fill(job.row, job.stem, job.start)
            pieces += self._pieces(job, len(ids))
            ids += job.ids
            positions += range(job.start, job.end)
            wanted.append(len(ids) - 1)
        used, decodes = len(ids) + len(rows), list[Decode]()
        for group in self._groups.values() if rows else ():
            running = [row if row and row.ids else None for row in group.rows]
            if not any(running):
                continue
            decodes.append(self._decode(group, running, len(ids)))
            ids += [row.ids[-1] if row else 0 for row in running]
            positions += [row.position if row else 0 for row in running]
        first = {id(decode.kv_L2RKCD): decode.token for decode in decodes}
        for row in rows:
            group = self._groups[self._capacity(row)]
            wanted.append(first[id(group.kv_L2RKCD)] + row.place)
        ids_T, positions_T, wanted_G = map(_padded, (ids, positions, wanted))
        attend = WindowedAttention(pieces, decodes)
        logits_GV = self._forward(ids_T, positions_T, wanted_G, attend)
        for job in jobs:
            self._filled[job.row] = job.end
            if job.is_new:
                table = self._pool.table(job.stem)
                self._save(job.row, self._pool.slots(table, job.start, job.end), job.start)
        return logits_GV, len(ids_T) - used

    def _pieces(self, job: Job, token: int) -> list[Piece]:
        window = self._window(job.row)
        found: list[Piece] = []
        for first in range(0, len(job.ids), PIECE):
            count = min(PIECE, len(job.ids) - first)
            place = job.start + first
            column = torch.arange(safe_columns(place + count, self._grouped))
            seen = column <= torch.arange(place, place + count)[:, None]
            mask = additive(seen, self._shape.dtype)
            found.append(Piece(window, token + first, count, place, mask))
        return found

    def _decode(self, group: Group, running: Sequence[Row | None], token: int) -> Decode:
        """Return the group's work; windows without a running row write into the spare column."""
        heads, columns = self._shape.heads, group.capacity + 1
        place_R = torch.tensor([row.position if row else 0 for row in running])
        write_R = torch.tensor([row.position if row else group.capacity for row in running])
        head_RK = torch.arange(len(running) * heads).view(-1, heads)
        write = (head_RK * columns + write_R[:, None]).flatten()
        seen = torch.arange(safe_columns(int(place_R.max()) + 1, self._grouped)) <= place_R[:, None]
        mask = additive(seen, self._shape.dtype)[:, None, None]
        return Decode(group.kv_L2RKCD, token, len(running), write, mask)

    def _capacity(self, row: Row) -> int:
        """Return the columns of the group that the row belongs to."""
        steps = -(-row.columns // _CAPACITY_STEP)
        return safe_columns(steps * _CAPACITY_STEP, self._grouped)

    def _window(self, row: Row) -> Tensor:
        return self._groups[self._capacity(row)].kv_L2RKCD[:, :, row.place]

    def _fill(self, row: Row, stem: Stem, end: int) -> None:
        """Copy the row's KV until `end` from the blocks of a stem, as far as it is not there."""
        start = self._filled[row]
        if start >= end:
            return
        slots = self._pool.slots(self._pool.table(stem), start, end)
        window = self._window(row)
        kv_L2TKD = self._pool.tokens().index_select(2, slots)
        window[:, :, :, start:end] = kv_L2TKD.transpose(2, 3)
        self._filled[row] = end

    def _save(self, row: Row, slots_T: Tensor, start: int) -> None:
        window = self._window(row)
        kv_L2TKD = window[:, :, :, start : start + len(slots_T)].transpose(2, 3)
        self._pool.tokens().index_copy_(2, slots_T, kv_L2TKD)


def _padded(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers + [0] * (-len(numbers) % TOKEN_MULTIPLE))
