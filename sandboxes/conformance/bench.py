"""A bench to check a backend on: opened in a private folder, with bait planted around it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from treegrpo.sandboxes.base import Level, SandboxSpec
from treegrpo.sandboxes.conformance.bait import planted
from treegrpo.sandboxes.conformance.case import Bench
from treegrpo.sandboxes.conformance.leaks import descendants

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend

OTHER_MARK = "of another tree"
"""What the variable `mark` is in the tree beside all cases."""


@contextmanager
def open_bench(reopen: Callable[[], Backend], *, rounds: float = 1.0) -> Generator[Bench]:
    """Yield a bench for the backend that `reopen` opens; it is closed at the end.

    Args:
        reopen: opens a new backend of the kind under test, at the level under test.
        rounds: scales the number of random programs and repetitions; 1 is the full suite.
    """
    with planted() as bait, _private_folder() as home, reopen() as backend:
        # What a backend keeps warm between trees is there before the first count.
        level = Level.L0
        for zygote in ("bare", "numpy"):
            root = backend.create(SandboxSpec(min_level=Level.L1, zygote=zygote))
            level = root.level
            root.tree.close()
        other = backend.create(SandboxSpec(min_level=level))
        other.write("secret", bait.secret.encode())
        other.exec(f"mark = {OTHER_MARK!r}")
        yield Bench(
            backend, reopen, home, bait, backend.probe(), level, other, len(descendants()), rounds
        )


@contextmanager
def _private_folder() -> Generator[Path]:
    """Yield a new folder that temporary files go to, so that what is left is seen."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "XDG_RUNTIME_DIR")}
    default = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(before, folder))
        tempfile.tempdir = None
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = default
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value
