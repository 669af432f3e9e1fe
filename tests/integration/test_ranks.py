"""Two and four processes with gloo make the gradient of one: ranks divide the leaves.

The processes are started once; pairs of them are groups of their own.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from tests.packed_proof import Trained, trained
from tests.packed_trees import SHAPES, case_of
from treegrpo.losses import loss_names
from treegrpo.pack import Part, pack, share_out, split

WORLD = 4
WAY = "segments"
SUMS_OVER_LEAVES = [name for name in loss_names() if name != "step_dpo"]


def parts() -> list[Part]:
    """What every rank knows: the trees of the whole update, and so all weights."""
    forest = [SHAPES["five levels"][0], *SHAPES["several trees"]]
    case = case_of(forest, seed=9)
    return split(case.weighted("path", "token_mean"), case.longest, need_all=True)


def trained_on(own: list[Part], name: str) -> Trained:
    return trained(pack(own, max_tokens=60, dtype=torch.float64), WAY, name)


def work(rank: int, folder: str) -> None:
    """Train a share of the update in groups of 2 and 4, and write down the sums."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)
    groups = {size: dist.new_group(list(range(size))) for size in (2, 4)}
    for size, group in groups.items():
        if rank >= size:
            continue
        found: dict[str, torch.Tensor] = {}
        for name in SUMS_OVER_LEAVES:
            mine = trained_on(share_out(parts(), size)[rank], name)
            found[name] = torch.cat(
                [torch.tensor([mine.loss], dtype=torch.float64), mine.gradient_W]
            )
            dist.all_reduce(found[name], group=group)
        torch.save(found, f"{folder}/{size}_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks wrote their sums."""
    path = tmp_path_factory.mktemp("ranks")
    get_context("forkserver").set_forkserver_preload(["tests.packed_proof"])  # import it once
    start_processes(work, (str(path),), nprocs=WORLD, start_method="forkserver")
    return path


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.skipif(sys.platform != "linux", reason="the loopback device has another name")
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_make_the_gradient_of_one_process(folder: Path, size: int) -> None:
    shares = share_out(parts(), size)
    assert all(shares), "every rank has something to do"
    trees = [{part.number for part in share} for share in shares]
    assert any(one & other for one in trees for other in trees if one is not other)
    by_rank = [torch.load(folder / f"{size}_{rank}.pt") for rank in range(size)]
    for name in SUMS_OVER_LEAVES:
        alone = trained_on(parts(), name)
        for found in by_rank:
            assert float(found[name][0]) == pytest.approx(alone.loss, abs=1e-10)
            difference_W = found[name][1:] - alone.gradient_W
            assert float(alone.gradient_W.norm()) > 0
            assert float(difference_W.norm()) <= 1e-10 * float(alone.gradient_W.norm())
            assert found[name].equal(by_rank[0][name]), "all ranks go on from the same weights"
