"""The process backend: trees of forked interpreters on this host, without privileges."""

from __future__ import annotations

import itertools
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from treegrpo.sandboxes.backend import Backend
from treegrpo.sandboxes.base import Capabilities, Level, SandboxSpec
from treegrpo.sandboxes.connection import Connection
from treegrpo.sandboxes.delivery import told_spec
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.guest.views import remove_folder
from treegrpo.sandboxes.process import cgroups
from treegrpo.sandboxes.process.janitor import claim_folder, sweep_folders
from treegrpo.sandboxes.process.launcher import Launcher
from treegrpo.sandboxes.process.probe import probe
from treegrpo.sandboxes.seccomp import compile_filter
from treegrpo.sandboxes.tree import Tree

_SPARE_PROCESSES = 64  # the supervisor, and forks under way
_SPARE_MEMORY_MB = 1_024


class ProcessBackend(Backend):
    """Sandboxes as processes of this host.

    Args:
        level: run at this level although the host may give more; None takes the highest.
    """

    name = "process"

    def __init__(self, *, level: Level | int | None = None) -> None:
        """Probe the host; nothing is started yet."""
        super().__init__({} if level is None else {"level": int(level)})
        self._capabilities = probe()
        self._level = self._capabilities.level if level is None else Level(level)
        if self._level > self._capabilities.level:
            raise SandboxUnavailable(
                f"Level {self._level.name} was asked for; this host gives "
                f"{self._capabilities.level.name}. {_remedies(self._capabilities)}"
            )
        self._launchers: dict[str, Launcher] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(secrets.randbits(31) << 20)  # no two backends' meet
        self._folder: Path | None = None
        home = cgroups.find() if self._level >= Level.L3 else None
        self._cgroups = home if isinstance(home, cgroups.CgroupHome) else None
        self._filters: dict[bool, bytes] = {}
        if self._cgroups is not None:
            cgroups.sweep(self._cgroups)
        sweep_folders()

    def probe(self) -> Capabilities:
        """Return what the process backend can do on this host, at the level chosen."""
        return replace(self._capabilities, level=self._level)

    def close(self) -> None:
        """End every tree, the launchers, and what they kept on disk."""
        super().close()
        if os.getpid() != self._owner:
            return
        with self._lock:
            for launcher in self._launchers.values():
                launcher.close()
            self._launchers.clear()
            if self._folder is not None:
                remove_folder(str(self._folder))
                self._folder = None

    # ----------------------------------------------------------------------------- the inside

    def _plant(self, spec: SandboxSpec) -> Tree:
        self._refuse_too_little(spec)
        stream, pid = self._launcher(spec.zygote).launch()
        number = next(self._numbers)
        connection = Connection(stream, name=f"sandbox tree {os.getpid()}-{number}")
        ending = [_waiter(pid), connection.close]
        try:
            group = self._confine(pid, number, spec)
            if group is not None:
                ending.append(group.close)
            header, program = self._opening(spec, number)
            if "top" in header:
                ending.append(lambda: remove_folder(header["top"]))
            answer, _ = connection.call("open", program, **header)
        except BaseException:
            _end(ending)
            raise
        tree = Tree(connection, spec, self._level, lambda: _end(ending))
        if group is not None:
            tree.oom_kills = group.oom_kills
        tree.plant(answer["state"])
        return tree

    def _refuse_too_little(self, spec: SandboxSpec) -> None:
        if self._level == Level.L0 and not spec.unsafe:
            raise SandboxUnavailable(
                "This host gives no isolation for the process backend (L0). "
                f"{_remedies(self._capabilities)} Or use the backend 'docker'; only for code "
                "that you trust as your own, set unsafe=True."
            )
        if self._level < spec.min_level and not spec.unsafe:
            raise SandboxUnavailable(
                f"The specification asks for level {spec.min_level.name}; the process backend "
                f"gives {self._level.name} here. {_remedies(self._capabilities)} Or use the "
                f"backend 'docker', or accept less with min_level={int(self._level)}."
            )

    def _launcher(self, zygote: str) -> Launcher:
        with self._lock:
            launcher = self._launchers.get(zygote)
            if launcher is not None and not launcher.alive:
                launcher.close()
                launcher = None
            if launcher is None:
                launcher = Launcher(zygote, namespaces=self._level >= Level.L2)
                self._launchers[zygote] = launcher
            return launcher

    def _opening(self, spec: SandboxSpec, number: int) -> tuple[dict[str, Any], bytes]:
        """Return what the supervisor is told first, and the workers' filter."""
        spaces = self._level >= Level.L2
        header: dict[str, Any] = {
            "spec": told_spec(spec),
            "views": "overlay" if spaces else "copy",
            "gate": spaces,
            "landlock": self._level >= Level.L1,
            "read_write": ["/nodes"],
            "read_only": [],
        }
        if not spaces:
            top = self._tree_folder(number)
            header |= {"top": top, "read_write": [top, "/dev/null"], "read_only": _readable()}
        if self._level == Level.L0:
            return header, b""
        if spaces not in self._filters:
            self._filters[spaces] = compile_filter(gate=spaces)
        return header, self._filters[spaces]

    def _confine(self, pid: int, number: int, spec: SandboxSpec) -> cgroups.Cgroup | None:
        """Put the tree under a cgroup where there is one, and return it; it is to be closed."""
        if self._cgroups is None:
            return None
        memory = spec.memory_budget_mb + spec.limits.memory_mb + _SPARE_MEMORY_MB
        processes = spec.max_states + spec.limits.processes * 8 + _SPARE_PROCESSES
        group = self._cgroups.create(cgroups.own_name(number), memory, processes)
        group.add(pid)
        return group

    def _tree_folder(self, number: int) -> str:
        with self._lock:
            if self._folder is None:
                self._folder = claim_folder(Path(tempfile.gettempdir()))
            folder = self._folder / str(number)
        folder.mkdir()
        return str(folder)


def _waiter(pid: int) -> Callable[[], object]:
    """Return a call that waits until the supervisor, and so all below it, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return lambda: None

    def wait() -> None:
        import select

        select.select([descriptor], [], [], 10.0)
        os.close(descriptor)

    return wait


def _end(steps: list[Callable[[], object]]) -> None:
    """Close the stream, wait for the end, then take away what is left."""
    wait, close, *rest = steps
    close()
    wait()
    for step in rest:
        step()


def _readable() -> list[str]:
    """Return what an interpreter needs to read where nothing hides the host."""
    wanted = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
    devices = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
    prefixes = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix)}
    prefixes |= {sys.prefix, sys.base_prefix}
    return [p for p in (*wanted, *devices, *sorted(prefixes)) if os.path.exists(p)]


def _remedies(capabilities: Capabilities) -> str:
    """Return what to do to get more, as one sentence a feature."""
    told = [f"{f.name}: {f.reason}; {f.remedy}." for f in capabilities.missing() if f.remedy]
    return " ".join(told)
