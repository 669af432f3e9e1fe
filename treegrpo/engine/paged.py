"""A pool of KV blocks, and the stems that hold them: plain bookkeeping around one tensor.

A `Stem` is a stretch of one token sequence behind its parent stem. Contexts point at stems and
a fork points at the same one, so a fork costs one increment whatever the depth. Each block
belongs to one stem. A stem that starts inside a block of its parent copies that block once, when
it first holds KV of its own; from there on the copy stands for the original in its table.

Blocks are taken for the worst case before a row runs, so a running row never lacks one. Stems
that no row uses may lose their blocks, least recently used first and children before parents;
they keep their ids and are computed again when needed.

Shapes: L layers, 2 keys and values, N blocks, S tokens a block, H key heads, D head size, T tokens.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treegrpo.engine.kv import KVShape

SCRATCH = 0
"""The block that is never handed out: tokens whose KV nobody needs are written there."""


@dataclass(eq=False, slots=True)
class Stem:
    """Consecutive tokens of a sequence, the blocks with their KV, and who holds them."""

    parent: "Stem | None" = None
    start: int = 0
    """Tokens before the first of this stem."""
    ids: list[int] = field(default_factory=list[int])
    computed: int = 0
    """How many of `ids`, from the first, have KV in the blocks."""
    blocks: list[int] = field(default_factory=list[int])
    """Blocks of the tokens from the one that holds `start`, in order."""
    version: int | None = None
    """Weight version of the KV, kept when the KV is given up."""
    holders: int = 1
    """Contexts and child stems that point here."""
    pins: int = 0
    """Running rows that read it."""
    is_opened: bool = False
    """Whether the part of the parent's last block before `start` was copied."""

    @property
    def length(self) -> int:
        """Tokens from the start of the sequence to the end of this stem."""
        return self.start + len(self.ids)

    @property
    def kept(self) -> int:
        """Tokens from the start of the sequence to the last with KV, if the parents have theirs."""
        return self.start + self.computed

    @property
    def is_computed(self) -> bool:
        """Whether every token of it has KV."""
        return self.computed == len(self.ids)

    def chain(self) -> Iterator["Stem"]:
        """Yield this stem and those before it, the newest first."""
        stem: Stem | None = self
        while stem is not None:
            yield stem
            stem = stem.parent


class BlockPool:
    """The blocks of all stems of one engine.

    Args:
        shape: of the model's KV.
        num_blocks: to hand out.
        block_size: tokens a block.
        poison: fill a block with NaN when it is given back, so that a read of it shows.
    """

    def __init__(
        self, shape: KVShape, num_blocks: int, block_size: int, *, poison: bool = False
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self._poison = poison
        self._free = list(range(num_blocks, SCRATCH, -1))
        self._idle: OrderedDict[Stem, None] = OrderedDict()
        self._idle_blocks = 0
        self.tensor_L2NSHD = torch.empty(
            (shape.layers, 2, num_blocks + 1, block_size, shape.heads, shape.head_dim),
            dtype=shape.dtype,
            device=shape.device,
        )
        if poison:
            self.tensor_L2NSHD.fill_(float("nan"))
        elif shape.device.type != "cpu":  # there, memory that is not touched is not taken
            self.tensor_L2NSHD.zero_()

    @property
    def num_bytes(self) -> int:
        """Memory of all blocks."""
        return self.tensor_L2NSHD.nbytes

    @property
    def free_blocks(self) -> int:
        """Blocks that no stem holds."""
        return len(self._free)

    @property
    def available_blocks(self) -> int:
        """Blocks that no running row holds."""
        return len(self._free) + self._idle_blocks

    def size_for(self, stem: Stem, end: int) -> int:
        """Return how many blocks the stem has when its sequence is `end` tokens long."""
        if end <= stem.start:
            return 0
        return -(-end // self.block_size) - stem.start // self.block_size

    def shortage(self, stem: Stem) -> int:
        """Return how many blocks the chain of a stem lacks for its tokens."""
        return sum(max(0, self.size_for(one, one.length) - len(one.blocks)) for one in stem.chain())

    def idle_in_chain(self, stem: Stem) -> int:
        """Return the blocks of the chain that count as available, but would be pinned."""
        return sum(len(one.blocks) for one in stem.chain() if one.pins == 0)

    def pin(self, stem: Stem) -> None:
        """Keep the KV of the stem and of those before it until `unpin`."""
        for one in stem.chain():
            if one.pins == 0 and one.blocks:
                del self._idle[one]
                self._idle_blocks -= len(one.blocks)
            one.pins += 1

    def unpin(self, stem: Stem) -> None:
        """Undo one `pin`; what no row reads any more becomes the most recently used."""
        for one in stem.chain():
            one.pins -= 1
            if one.pins == 0 and one.blocks:
                self._idle[one] = None
                self._idle_blocks += len(one.blocks)

    def grow(self, stem: Stem, end: int) -> None:
        """Give a pinned stem blocks until `end`, taken from idle stems if none is free."""
        missing = self.size_for(stem, end) - len(stem.blocks)
        while len(self._free) < missing:
            self.evict(next(iter(self._idle)))
        for _ in range(missing):
            stem.blocks.append(self._free.pop())

    def trim(self, stem: Stem) -> None:
        """Take back blocks of a pinned stem that lie behind its last token with KV."""
        size = self.size_for(stem, stem.kept) if stem.computed else 0
        self._give_back(stem.blocks[size:])
        del stem.blocks[size:]
        stem.is_opened &= size > 0

    def evict(self, stem: Stem) -> None:
        """Give up the KV of an idle stem, not its ids."""
        del self._idle[stem]
        self._idle_blocks -= len(stem.blocks)
        self._give_back(stem.blocks)
        stem.blocks, stem.computed, stem.is_opened = [], 0, False

    def drop(self, stem: Stem) -> None:
        """Take one holder off the stem; without any it and its parents' hold are gone."""
        one: Stem | None = stem
        while one is not None:
            one.holders -= 1
            if one.holders:
                return
            if one.blocks:
                self.evict(one)
            one = one.parent

    def open(self, stem: Stem) -> None:
        """Copy into a stem's first block what its parents have there; at most once."""
        if stem.is_opened or not stem.blocks or not stem.start % self.block_size:
            return
        source = self.table(stem.parent)[stem.start // self.block_size]
        self.tensor_L2NSHD[:, :, stem.blocks[0]] = self.tensor_L2NSHD[:, :, source]
        stem.is_opened = True

    def table(self, stem: Stem | None) -> list[int]:
        """Return the block of every stretch of `block_size` tokens of the sequence."""
        found: list[int] = []
        for one in reversed(list(stem.chain() if stem else ())):
            if one.blocks:
                found[one.start // self.block_size :] = one.blocks
        return found

    def slots(self, table: list[int], start: int, end: int) -> Tensor:
        """Return where tokens `start` to `end` lie among all tokens of the pool, int64 [T]."""
        place_T = torch.arange(start, end)
        block_T = torch.tensor(table, dtype=torch.long)[place_T // self.block_size]
        return block_T * self.block_size + place_T % self.block_size

    def tokens(self) -> Tensor:
        """Return the pool seen as tokens, [L, 2, N * S, H, D]."""
        return self.tensor_L2NSHD.flatten(2, 3)

    def _give_back(self, blocks: list[int]) -> None:
        self._free += reversed(blocks)
        if self._poison and blocks:
            self.tensor_L2NSHD[:, :, blocks] = float("nan")
