"""How fast sandboxes are here: forks, steps, trees, memory, and what others take for the same.

    with open_backend("process") as backend:
        report = run_bench(backend, quick=True)
        report.metrics["node_fork_p50_ms"]

The state that is forked is the workload W1: numpy loaded, 200 files of 4 KiB in the workspace, a
small array in memory, at most 100 KB written per step. Nothing else should run on the machine.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from treegrpo.sandboxes.bench import crowds, forks, rivals
from treegrpo.sandboxes.bench.conditions import conditions
from treegrpo.sandboxes.bench.report import (
    FULL,
    QUICK,
    TARGETS,
    BenchReport,
    Counts,
    Measurement,
    Target,
    TargetRow,
)

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend

__all__ = [
    "FULL",
    "QUICK",
    "TARGETS",
    "BenchReport",
    "Counts",
    "Measurement",
    "Target",
    "TargetRow",
    "run_bench",
]

Measure = Callable[[], tuple[Measurement, ...]]


def run_bench(
    backend: Backend,
    quick: bool = False,
    *,
    compare: bool = False,
    image: str = "treegrpo-sandbox:test",
    progress: Callable[[str], object] = lambda name: None,
) -> BenchReport:
    """Return what this host's sandboxes take, one measurement after the other.

    Args:
        backend: whose trees are measured; it needs numpy.
        quick: every measurement with few repeats, and no 2,000 live states.
        compare: measure also what other ways to the same state take.
        image: for docker commit and run; it needs Python.
        progress: called with the name of each measurement before it begins.

    Raises:
        SandboxUnavailable: the backend cannot start a tree here.
    """
    counts = QUICK if quick else FULL
    before = conditions()
    found: list[Measurement] = []
    level = _level(backend)
    for name, measure in _plan(backend, counts, image if compare else None).items():
        progress(name)
        with _no_collections():
            found += measure()
    return BenchReport(backend.name, level, tuple(found), before, conditions())


def _plan(backend: Backend, counts: Counts, image: str | None) -> dict[str, Measure]:
    """Return the measurements by name; with an image those of other ways, too."""
    plan: dict[str, Measure] = {
        "forks of a node": partial(forks.node_forks, backend, counts),
        "forks of memory alone": partial(forks.memory_forks, backend, counts),
        "steps and snapshots": partial(forks.steps, backend, counts),
        "forks, steps and ends": partial(forks.sustained, backend, counts),
        "forks at depth 16, and replay": partial(forks.depth, backend, counts),
        "fan-out": partial(forks.fanouts, backend, counts),
        "starts of trees": partial(forks.tree_starts, backend, counts),
        "the end of a tree of 1,000": partial(crowds.closings, backend, counts),
        "memory": partial(crowds.memory, backend, counts),
    }
    if image is not None:
        plan |= {
            "copytree": partial(rivals.copies, counts),
            "docker commit and run": partial(rivals.docker_commits, counts, image),
            "sandlock": partial(rivals.sandlock_forks, counts),
        }
    return plan


def _level(backend: Backend) -> int:
    """Return the isolation level of a tree; the launchers are warm afterwards."""
    with backend.create(forks.MEMORY_ONLY), backend.create(forks.W1) as root:
        return int(root.level)


@contextmanager
def _no_collections() -> Generator[None]:
    """Keep Python's garbage collector, whose pauses are the caller's affair, out of the times."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
