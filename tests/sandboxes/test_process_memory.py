"""A worker that the kernel kills for want of memory is told as that, one that kills itself not."""

import asyncio
from collections.abc import Iterator

import pytest

from treegrpo.sandboxes import Level, Limits, Sandbox, SandboxSpec
from treegrpo.sandboxes.process import backend as process

HUNGRY = "x = bytearray(700 << 20)"
SUICIDE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SPEC = SandboxSpec(limits=Limits(memory_mb=1024), memory_budget_mb=64)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[process.ProcessBackend]:
    """A backend whose cgroups hold less than one step may use."""
    monkeypatch.setattr(process, "_SPARE_MEMORY_MB", 128 - 64 - 1024)
    with process.ProcessBackend() as backend:
        if backend.probe().level < Level.L3:
            pytest.skip("no cgroups: " + "; ".join(f.reason for f in backend.probe().missing()))
        yield backend


@pytest.fixture
def root(backend: process.ProcessBackend) -> Sandbox:
    return backend.create(SPEC)


def fork(sandbox: Sandbox) -> Sandbox:
    (made,) = sandbox.fork()
    assert isinstance(made, Sandbox), made
    return made


def test_a_worker_killed_for_want_of_memory_is_told_as_that(root: Sandbox) -> None:
    result = fork(root).exec(HUNGRY)
    assert (result.kind, result.signal, result.alive) == ("memory", None, False)
    result = fork(root).exec(SUICIDE)
    assert (result.kind, result.signal, result.alive) == ("signal", 9, False)
    assert root.exec("1 + 1").value == "2"


def test_it_is_told_to_asyncio_too(backend: process.ProcessBackend) -> None:
    async def run() -> str:
        sandbox = await backend.create_async(SPEC)
        return (await sandbox.exec(HUNGRY)).kind

    assert asyncio.run(run()) == "memory"


def test_the_count_of_a_closed_tree_can_still_be_asked(root: Sandbox) -> None:
    assert not fork(root).exec(HUNGRY).ok
    assert root.tree.oom_kills() == 1
    root.tree.close()
    assert root.tree.oom_kills() == 0
