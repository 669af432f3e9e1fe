"""A cancelled call of asyncio: its step ends by itself, and nobody else is held up."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.sandboxes.hostile import backend_at
from treegrpo.sandboxes import AsyncSandbox, Level, SandboxBusy
from treegrpo.sandboxes.conformance.case import PATIENCE_S

STEP = "import time; time.sleep(1.0); x = 'done'"


@pytest.fixture
def on_a_tree() -> Callable[[Callable[[AsyncSandbox], Awaitable[None]]], None]:
    """What runs a coroutine with the root of a tree, in time."""

    def run(body: Callable[[AsyncSandbox], Awaitable[None]]) -> None:
        async def main() -> None:
            with backend_at(Level.L2) as backend:
                root = await backend.create_async()
                await asyncio.wait_for(body(root), 2 * PATIENCE_S)

        asyncio.run(main())

    return run


async def _cancel(box: AsyncSandbox) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(box.exec(STEP), 0.3)


async def _when_free(box: AsyncSandbox, code: str) -> str | None:
    """Return a step's value as soon as the sandbox is not busy any more."""
    for _ in range(int(PATIENCE_S / 0.05)):
        try:
            result = await asyncio.wait_for(box.exec(code), PATIENCE_S)
        except SandboxBusy:
            await asyncio.sleep(0.05)
            continue
        assert result.ok, result
        return result.value
    raise AssertionError("the sandbox stays busy")


def test_others_go_on_after_a_cancelled_step(on_a_tree) -> None:
    async def body(root: AsyncSandbox) -> None:
        other, fork = await root.snapshot(), (await root.fork())[0]
        assert isinstance(fork, AsyncSandbox)
        await _cancel(root)
        for box in (other, fork):
            assert (await asyncio.wait_for(box.exec("1 + 1"), PATIENCE_S)).value == "2"
        await asyncio.sleep(1.2)
        for box in (other, fork):
            assert (await asyncio.wait_for(box.exec("2 + 2"), PATIENCE_S)).value == "4"

    on_a_tree(body)


def test_the_history_follows_a_cancelled_step(on_a_tree) -> None:
    async def body(root: AsyncSandbox) -> None:
        await root.exec("x = 'before'")
        before, actions = root.state_hash, len(root.actions)
        await _cancel(root)
        value = await _when_free(root, "x")
        steps = len(root.actions) - actions
        # Either the step counts (its effect and its place in the history), or neither does.
        assert (value, steps) in (("'done'", 2), ("'before'", 1))
        assert root.state_hash != before
        await root.evict()
        assert (await asyncio.wait_for(root.exec("x"), PATIENCE_S)).value == value

    on_a_tree(body)


def test_the_hash_changes_once_the_step_has_ended(on_a_tree) -> None:
    async def body(root: AsyncSandbox) -> None:
        before = root.state_hash
        await _cancel(root)
        for _ in range(int(PATIENCE_S / 0.05)):
            if root.state_hash != before:
                break
            await asyncio.sleep(0.05)
        assert root.state_hash != before
        assert root.actions[-1].payload == STEP.encode()
        assert (await asyncio.wait_for(root.exec("x"), PATIENCE_S)).value == "'done'"

    on_a_tree(body)


def test_a_cancelled_fork_leaves_the_sandbox_usable(on_a_tree) -> None:
    async def body(root: AsyncSandbox) -> None:
        await root.exec("x = 1")
        task = asyncio.ensure_future(root.fork(64))
        await asyncio.sleep(0.01)
        while not task.cancel():  # on a busy host we may come when the forks are made
            for made in task.result():
                assert isinstance(made, AsyncSandbox)
                await made.close()
            task = asyncio.ensure_future(root.fork(64))
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _when_free(root, "x") == "1"
        (fork,) = await root.fork()
        assert isinstance(fork, AsyncSandbox)
        stats = root.tree.stats()
        assert stats.processes <= 64 + stats.live + 40

    on_a_tree(body)


def test_closing_after_a_cancelled_step_ends_at_once(on_a_tree) -> None:
    async def body(root: AsyncSandbox) -> None:
        await _cancel(root)
        await asyncio.wait_for(root.close(), PATIENCE_S)
        assert not root.alive

    on_a_tree(body)
