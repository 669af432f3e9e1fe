"""What a tree keeps to: its budgets, its files after a failed write, and nothing at the end."""

import os
from collections.abc import Iterator

import pytest

from tests.sandboxes.hostile import backend_at, fork_of, runs
from treegrpo.sandboxes import (
    Backend,
    CapacityExceeded,
    FileRefused,
    Level,
    Limits,
    Sandbox,
    SandboxError,
    SandboxSpec,
)
from treegrpo.sandboxes.conformance.leaks import descendants
from treegrpo.sandboxes.process import cgroups

MIB = 1 << 20


@pytest.fixture
def backend() -> Iterator[Backend]:
    with backend_at(Level.L2) as backend:
        yield backend


def _forks(root: Sandbox, count: int) -> list[Sandbox]:
    """Return forks, each of which did something of its own."""
    made: list[Sandbox] = []
    for number in range(count):
        fork = fork_of(root)
        runs(fork, f"x = {number}; n = open('f', 'w').write('{number}')")
        made.append(fork)
    return made


def test_reads_of_evicted_states_keep_to_the_number_of_live_ones(backend: Backend) -> None:
    root = backend.create(SandboxSpec(max_states=3))
    root.write("f", b"root")
    forks = _forks(root, 8)
    assert root.tree.stats().live <= 3
    for number, fork in enumerate(forks):
        assert fork.read("f") == b"%d" % number
        assert root.tree.stats().live <= 3, f"after read {number}"
    for number, fork in enumerate(forks):
        assert [entry.name for entry in fork.list()] == ["f"]
        assert runs(fork, "x") == str(number)
        assert fork.check() == []
        assert root.tree.stats().live <= 3, f"after use {number}"
    stats = root.tree.stats()
    assert stats.live + stats.evicted == 9


def test_states_that_cannot_be_evicted_are_never_more_than_the_budget(backend: Backend) -> None:
    root = backend.create(SandboxSpec(max_states=4))
    held: list[Sandbox] = []
    refused: list[SandboxError] = []
    for _ in range(8):
        try:
            made = root.fork()[0]
        except CapacityExceeded as error:
            made = error
        if isinstance(made, Sandbox):
            held.append(made)
            hold = "import threading; e = threading.Event(); t = threading.Thread(target=e.wait)"
            runs(made, hold + "; t.daemon = True; t.start()")
        else:
            refused.append(made)
        assert root.tree.stats().live <= 4
    assert refused
    assert {type(error) for error in refused} == {CapacityExceeded}
    for one in held:
        assert runs(one, "1 + 1") == "2"


@pytest.mark.parametrize(
    "fill",
    ["x = bytearray(b'1' * (40 << 20))", "n = open('t', 'wb').write(b'1' * (40 << 20))"],
    ids=["memory", "files"],
)
def test_a_budget_of_memory_evicts(backend: Backend, fill: str) -> None:
    root = backend.create(SandboxSpec(memory_budget_mb=100))
    forks: list[Sandbox] = []
    for number in range(8):
        fork = fork_of(root)
        runs(fork, f"{fill}; mine = {number}")
        forks.append(fork)
    stats = root.tree.stats()
    assert stats.evicted > 0
    assert stats.memory_bytes <= (100 + 60) * MIB, stats  # the last step's growth comes on top
    assert runs(forks[0], "mine") == "0"
    assert runs(forks[7], "mine") == "7"


def test_a_write_without_room_changes_nothing(backend: Backend) -> None:
    box = backend.create(SandboxSpec(limits=Limits(workspace_mb=4)))
    box.write("full", b"x" * 3 * MIB)
    box.write("a", b"keep")
    before = box.state_hash
    for path, size in (("a", 3), ("new", 3), ("a", 9)):
        with pytest.raises(FileRefused):
            box.write(path, b"y" * size * MIB)
        assert box.read("a") == b"keep"
        assert box.state_hash == before
        assert [entry.name for entry in box.list()] == ["a", "full"]
    box.evict()
    assert box.read("a") == b"keep"
    box.write("a", b"new")
    assert box.read("a") == b"new"


def test_forks_that_are_replayed_draw_as_branches_do(backend: Backend) -> None:
    root = backend.create(SandboxSpec(rng="branch", on_unforkable="replay"))
    hold = "import random, threading; e = threading.Event(); t = threading.Thread(target=e.wait)"
    runs(root, hold + "; t.daemon = True; t.start()")
    forks = [fork for fork in root.fork(3) if isinstance(fork, Sandbox)]
    assert len({fork.state_hash for fork in forks} | {root.state_hash}) == 4
    first = [runs(fork, "random.random()") for fork in forks]
    assert len(set(first)) == 3
    later = fork_of(forks[0])
    assert runs(later, "random.random()") not in first
    with backend.create(root.tree.spec) as again:
        runs(again, hold + "; t.daemon = True; t.start()")
        second = [fork for fork in again.fork(3) if isinstance(fork, Sandbox)]
        assert [runs(fork, "random.random()") for fork in second] == first


# ------------------------------------------------------------------------------------ the end


def _groups() -> set[str]:
    home = cgroups.find()
    if not isinstance(home, cgroups.CgroupHome):
        return set()
    folders = [path for top in {home.memory, home.pids} for path in top.glob("treegrpo-*")]
    return {str(path) for path in folders if f"-{os.getpid()}-" in path.name}


@pytest.mark.parametrize(
    ("count", "workspace_mb"), [(1_000, 0), (24, 8)], ids=["many", "with-files"]
)
def test_a_closed_tree_leaves_nothing(backend: Backend, count: int, workspace_mb: int) -> None:
    spec = SandboxSpec(limits=Limits(workspace_mb=workspace_mb))
    backend.create(spec).close()  # what the backend keeps for all its trees is there now
    processes, groups = descendants(), _groups()
    descriptors = sorted(os.listdir("/proc/self/fd"))
    root = backend.create(spec)
    made = root.fork(count)
    assert all(isinstance(one, Sandbox) for one in made), [
        x for x in made if isinstance(x, Exception)
    ][:3]
    assert root.tree.stats().live == count
    assert len(descendants() - processes) > count
    if workspace_mb:
        for number, one in enumerate(made):
            assert isinstance(one, Sandbox)
            one.write("f", b"%d" % number)
    root.tree.close()
    assert descendants() - processes == set()
    assert _groups() == groups
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
