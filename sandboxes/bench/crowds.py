"""Many states at once: what they cost in memory, and whether their end leaves nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from treegrpo.sandboxes.base import SandboxSpec
from treegrpo.sandboxes.bench.conditions import available_bytes
from treegrpo.sandboxes.bench.forks import STEP, expect, node
from treegrpo.sandboxes.bench.report import Counts, Measurement, quantile
from treegrpo.sandboxes.conformance.leaks import descendants
from treegrpo.sandboxes.errors import SandboxError

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend, Sandbox

_CHILDREN = 4
_PATIENCE_S = 10.0
_CGROUPS = Path("/sys/fs/cgroup")
_STILL_BYTES = 1 << 20
_MB = 1e6


def closings(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure the end of trees, until nothing of them is left on the host."""
    seconds: list[float] = []
    left = 0
    for _ in range(counts.crowds):
        before = _footprint()
        root = node(backend, _roomy(counts.crowd))
        states = grow(root, counts.crowd, steps=counts.stepped)
        began = time.perf_counter()
        root.tree.close()
        while more := _more(before):
            if time.perf_counter() - began > _PATIENCE_S:
                left += more
                break
            time.sleep(0.001)
        seconds.append(time.perf_counter() - began)
        states.clear()
    metrics = {"close1000_s": quantile(seconds, 0.5), "close1000_left": float(left)}
    what = (
        f"close of a tree of {counts.crowd} live states, until no process, mount, descriptor "
        "or cgroup of it is left"
    )
    return (Measurement("close1000", what, "s", tuple(seconds), metrics),)


@dataclass(frozen=True)
class Price:
    """What a number of parked states cost, in MB."""

    drop: float  # of the host's available memory: everything, whoever else uses memory included
    private: float  # in pages that one state alone maps; page tables are not in it
    charged: float | None  # to the tree's cgroup, page tables included; None without one


def memory(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure what parked states hold: by what the host has less, by cgroup, by private pages."""
    price = _price(backend, counts.parked)
    what = f"a tree of {counts.parked} states of which each has run a step that writes 80 KB"
    parked = _priced("parked", "each state of " + what, price, counts.parked)
    crowd = f"{counts.live:,} such states live at once"
    if not counts.live:
        missing = "only in a full run"
        return parked, Measurement("live2000", "2,000 such states", "MB", missing=missing)
    return parked, _priced("live2000", crowd, _price(backend, counts.live), 1)


def _priced(name: str, what: str, price: Price, share: int) -> Measurement:
    figures = {f"{name}_private_mb": price.private / share}
    if price.charged is not None:
        figures[f"{name}_cgroup_mb"] = price.charged / share
    missing = ""
    # What is private is surely in use: a smaller drop means that others gave memory back.
    if price.drop >= price.private:
        figures[f"{name}_mb"] = price.drop / share
    else:
        missing = "others' use of memory changed meanwhile; run it on a quiet machine"
    what += ": private pages, charge of the tree's cgroup, drop of the host's available memory"
    return Measurement(name, what, "MB", tuple(figures.values()), figures, missing)


def grow(root: Sandbox, count: int, *, steps: bool = True) -> list[Sandbox]:
    """Return `root` and `count` new live states below it, four children each.

    Each new state runs a step, unless `steps` says otherwise.
    """
    states = [root]
    for parent in states:
        wanted = min(_CHILDREN, count + 1 - len(states))
        if not wanted:
            break
        for child in parent.fork(wanted):
            if isinstance(child, SandboxError):
                raise child
            if steps:
                expect(child, STEP, None)
            states.append(child)
    return states


def _price(backend: Backend, count: int) -> Price:
    """Return what a tree's growth by `count` states costs."""
    with node(backend, _roomy(count)) as root:
        private, charged = root.tree.stats().memory_bytes, _charged_bytes()
        available = _settled_bytes()
        states = grow(root, count)
        drop = available - _settled_bytes()
        stats = root.tree.stats()
        charge = _charged_bytes()
        if stats.live != count + 1:
            raise SandboxError(f"{count + 1} live states were wanted, {stats.live} are there.")
        root.tree.close()
        states.clear()
    return Price(
        drop / _MB,
        (stats.memory_bytes - private) / _MB,
        None if charge is None or charged is None else (charge - charged) / _MB,
    )


def _charged_bytes() -> int | None:
    """Return what is charged to the cgroups of this process's trees."""
    names = ("memory.current", "memory.usage_in_bytes")
    files = [folder / name for folder in _own_cgroups() for name in names]
    charges = [int(file.read_text(encoding="ascii")) for file in files if file.exists()]
    return sum(charges) if charges else None


def _own_cgroups() -> list[Path]:
    own = f"treegrpo-{os.getpid()}-"
    # Others' cgroups come and go under the walk, which passes over what has gone.
    walk = os.walk(_CGROUPS)
    return [Path(at, name) for at, names, _ in walk for name in names if name.startswith(own)]


def _mounts() -> int:
    """Return the number of mounts that we see, those of the engine's containers left out."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return sum(b"/docker/" not in line for line in lines)


def _settled_bytes() -> int:
    """Return the available memory once it stands still: ended processes give theirs back late."""
    until = time.monotonic() + _PATIENCE_S
    last, steady = available_bytes(), 0
    while steady < 5 and time.monotonic() < until:
        time.sleep(0.05)
        now = available_bytes()
        steady = steady + 1 if abs(now - last) < _STILL_BYTES else 0
        last = now
    return last


def _roomy(count: int) -> SandboxSpec:
    return SandboxSpec(zygote="numpy", max_states=count + 100, memory_budget_mb=16_384)


def _footprint() -> dict[str, int]:
    """Return how much there is of all that a tree could leave behind."""
    return {
        "processes": len(descendants()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": _mounts(),
        "cgroups": len(_own_cgroups()),
    }


def _more(before: dict[str, int]) -> int:
    return sum(max(0, count - before[name]) for name, count in _footprint().items())
