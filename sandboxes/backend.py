"""A backend: where trees of sandboxes come from."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from treegrpo.sandboxes.base import Capabilities, SandboxSpec
from treegrpo.sandboxes.errors import SandboxClosed, SandboxError, SandboxUnavailable
from treegrpo.sandboxes.sandbox import AsyncSandbox, Sandbox
from treegrpo.sandboxes.tree import State, Tree

BACKENDS = ("process", "docker")


class Backend(ABC):
    """Makes trees; one object serves any number of threads.

    `options` are the keyword arguments that make another backend like this one.
    """

    name: ClassVar[str]

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Start without trees."""
        self.options = dict(options)
        self._trees: weakref.WeakSet[Tree] = weakref.WeakSet()
        # Handles die wherever the garbage collector runs; this queue may be used even there.
        self._dropped: queue.SimpleQueue[tuple[Tree, list[State]] | None] = queue.SimpleQueue()
        self._sweeper: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._owner = os.getpid()

    @abstractmethod
    def probe(self) -> Capabilities:
        """Return what holds on this host; never raises for a missing feature."""

    @abstractmethod
    def _plant(self, spec: SandboxSpec) -> Tree:
        """Start a supervisor with one worker; the tree's first state is planted."""

    def create(self, spec: SandboxSpec | None = None) -> Sandbox:
        """Return the first sandbox of a new tree.

        Raises:
            SandboxUnavailable: the host cannot give what the specification asks.
        """
        return self.handle(*self._new_tree(_checked(spec)))

    async def create_async(self, spec: SandboxSpec | None = None) -> AsyncSandbox:
        """Return the first sandbox of a new tree, for asyncio."""
        import asyncio

        tree, state = await asyncio.to_thread(self._new_tree, _checked(spec))
        return AsyncSandbox(self, tree, state)

    def handle(self, tree: Tree, state: State) -> Sandbox:
        """Return a handle on a state."""
        return Sandbox(self, tree, state)

    def drop_later(self, tree: Tree, cell: list[State]) -> None:
        """Let go of a state whose handle was garbage; safe at any moment."""
        self._dropped.put((tree, cell))

    def close(self) -> None:
        """End every tree; may be called twice."""
        if self._closed or os.getpid() != self._owner:
            return  # a forked process has no say over its parent's trees
        self._closed = True
        for tree in list(self._trees):
            tree.close()
        if self._sweeper is not None:
            self._dropped.put(None)
            self._sweeper.join(timeout=5)

    def _new_tree(self, spec: SandboxSpec) -> tuple[Tree, State]:
        if self._closed:
            raise SandboxClosed(f"The {self.name} backend has been closed; open another one.")
        with self._starting:
            if self._sweeper is None:
                self._sweeper = threading.Thread(
                    target=_sweep, args=(self._dropped,), name="sandbox-sweeper", daemon=True
                )
                self._sweeper.start()
        tree = self._plant(spec)
        self._trees.add(tree)
        return tree, tree.seed

    def __enter__(self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _checked(spec: object) -> SandboxSpec:
    if spec is None:
        return SandboxSpec()
    if not isinstance(spec, SandboxSpec):
        raise SandboxError(
            f"A sandbox was asked for with {spec!r}; give a specification, such as "
            "SandboxSpec(zygote='numpy', limits=Limits(timeout_s=5))."
        )
    return spec


def open_backend(name: str = "process", **options: Any) -> Backend:
    """Return a backend by name: "process" or "docker".

    Raises:
        SandboxUnavailable: no backend of that name.
    """
    if name == "process":
        from treegrpo.sandboxes.process.backend import ProcessBackend

        return ProcessBackend(**options)
    if name == "docker":
        from treegrpo.sandboxes.docker.backend import DockerBackend

        return DockerBackend(**options)
    raise SandboxUnavailable(
        f"There is no sandbox backend {name!r}; there are {' and '.join(BACKENDS)}."
    )


def shared_backend(name: str, **options: Any) -> Backend:
    """Return this process's one backend of that name with these options.

    Opening one takes longer than making a sandbox in it, so all who want the same share it;
    it is closed when the process ends.
    """
    return _shared(name, tuple(sorted(options.items())), os.getpid())


@cache
def _shared(name: str, options: tuple[tuple[str, Any], ...], process: int) -> Backend:
    del process  # a forked process must not use its parent's
    backend = open_backend(name, **dict(options))
    atexit.register(backend.close)
    return backend


def _sweep(dropped: queue.SimpleQueue[tuple[Tree, list[State]] | None]) -> None:
    while (entry := dropped.get()) is not None:
        tree, cell = entry
        with contextlib.suppress(SandboxError, OSError):  # the tree is gone, and the state with it
            tree.let_go(cell[0])
