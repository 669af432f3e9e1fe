import pytest
import torch

from treegrpo.engine.kernels import Spans, gathered, pick_kernel
from treegrpo.engine.kv import KVShape
from treegrpo.engine.paged import SCRATCH, BlockPool, Stem
from treegrpo.engine.tables import bucket
from treegrpo.engine.windowed_attention import safe_columns

SHAPE = KVShape(2, 2, 4, torch.float32, torch.device("cpu"))


def held(pool: BlockPool, stem: Stem, tokens: int) -> Stem:
    """Give the stem blocks and pretend that its tokens were computed."""
    pool.pin(stem)
    stem.ids = list(range(tokens))
    pool.grow(stem, stem.length)
    stem.computed = tokens
    return stem


def test_a_table_takes_the_copy_of_a_part_filled_block() -> None:
    pool = BlockPool(SHAPE, 8, 4)
    trunk = held(pool, Stem(), 6)
    pool.tensor_L2NSHD[:, :, trunk.blocks[1]] = 7.0
    branch = held(pool, Stem(trunk, 6), 5)
    assert (len(trunk.blocks), len(branch.blocks)) == (2, 2)
    assert pool.table(branch) == [trunk.blocks[0], *branch.blocks]
    pool.open(branch)
    assert torch.equal(
        pool.tensor_L2NSHD[:, :, branch.blocks[0]], pool.tensor_L2NSHD[:, :, trunk.blocks[1]]
    )
    pool.tensor_L2NSHD[:, :, trunk.blocks[1]] = 8.0
    pool.open(branch)  # not copied again
    assert (pool.tensor_L2NSHD[:, :, branch.blocks[0]] == 7.0).all()
    slots = pool.slots(pool.table(branch), 5, 9)
    assert slots.tolist() == [
        4 * branch.blocks[0] + 1, 4 * branch.blocks[0] + 2, 4 * branch.blocks[0] + 3,
        4 * branch.blocks[1],
    ]  # fmt: skip


def test_blocks_return_when_the_last_holder_goes() -> None:
    pool = BlockPool(SHAPE, 8, 4, poison=True)
    trunk = held(pool, Stem(), 6)
    branch = held(pool, Stem(trunk, 6), 5)  # holds the trunk in place of a context
    pool.tensor_L2NSHD.zero_()
    assert pool.free_blocks == 4
    pool.unpin(trunk)
    pool.unpin(branch)
    assert (pool.free_blocks, pool.available_blocks) == (4, 8)
    blocks = trunk.blocks + branch.blocks
    pool.drop(branch)
    assert (pool.free_blocks, pool.available_blocks) == (8, 8)
    assert torch.isnan(pool.tensor_L2NSHD[:, :, blocks]).all()


def test_idle_stems_give_way_children_first_and_pinned_ones_never() -> None:
    pool = BlockPool(SHAPE, 8, 4)
    old = held(pool, Stem(), 8)
    child = held(pool, Stem(old, 8), 4)
    young = held(pool, Stem(), 8)
    for stem in (child, old, young):
        pool.unpin(stem)
    pool.pin(young)
    assert pool.idle_in_chain(child) == 3
    wide = Stem()
    pool.pin(wide)
    pool.grow(wide, 16)
    assert (child.blocks, child.computed, len(old.blocks)) == ([], 0, 2)
    pool.grow(wide, 24)
    assert old.blocks == []
    assert len(young.blocks) == 2
    assert sorted(wide.blocks + young.blocks) == list(range(1, 9))
    assert SCRATCH not in wide.blocks


def test_blocks_taken_in_advance_are_returned() -> None:
    pool = BlockPool(SHAPE, 8, 4)
    stem = held(pool, Stem(), 5)
    pool.grow(stem, 30)
    assert pool.free_blocks == 0
    pool.trim(stem)
    assert (pool.free_blocks, len(stem.blocks)) == (6, 2)
    stem.computed = 0
    pool.trim(stem)
    assert pool.free_blocks == 8


def test_the_reference_kernel_sees_each_sequence_up_to_its_own_place() -> None:
    make = torch.Generator().manual_seed(0)
    key, value = (torch.randn(5, 4, 2, 8, generator=make) for _ in range(2))
    query = torch.randn(4, 4, 8, generator=make)
    table = torch.tensor([[3, 1], [2, 0]], dtype=torch.int32)
    lengths = torch.tensor([6, 3], dtype=torch.int32)
    spans = Spans(torch.tensor([0, 3, 4], dtype=torch.int32), lengths, table, 3, 8)
    value[1, 2:] = float("nan")  # behind the last token of the first sequence
    out = gathered(query, key, value, spans, 0.5)
    for token, (sequence, seen) in enumerate([(0, 4), (0, 5), (0, 6), (1, 3)]):
        keys, values = (one[table[sequence].long()].flatten(0, 1)[:seen] for one in (key, value))
        for head in range(4):
            weight = torch.softmax(0.5 * keys[:, head // 2] @ query[token, head], 0)
            torch.testing.assert_close(out[token, head], weight @ values[:, head // 2])


def test_without_a_gpu_the_reference_kernel_is_picked() -> None:
    assert pick_kernel(SHAPE, 2, 16) == ("gathered", gathered)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_buckets_are_powers_of_two(count: int, expected: int) -> None:
    assert bucket(count) == expected


@pytest.mark.parametrize(
    ("columns", "grouped", "expected"),
    [(1, 1, 64), (65, 1, 80), (200, 1, 208), (200, 4, 384), (720, 7, 896), (400, 7, 400)],
)
def test_columns_are_rounded_to_what_keeps_the_bits(
    columns: int, grouped: int, expected: int
) -> None:
    assert safe_columns(columns, grouped) == expected
