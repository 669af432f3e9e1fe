"""Abuse: what hostile code tries, as data, and how each attack is put to a backend.

    for attack in ATTACKS: run_case(attack.case(), bench)

An attack runs in a fork of a sandbox that has a sibling, beside another tree. It passes when
the code got no further than promised, its result is of a stated kind, no planted secret shows,
parent, sibling and other tree answer as before, and closing both trees leaves nothing behind.

The code tells by printing HELD, or BROKE and what it reached; only the host's word counts for
secrets, neighbours and leftovers. Bombs are bounded: a sandbox that fails one costs some
hundred processes or megabytes, never the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treegrpo.sandboxes.base import MIB, Level, Result, ResultKind
from treegrpo.sandboxes.conformance.bench import OTHER_MARK
from treegrpo.sandboxes.conformance.case import (
    PATIENCE_S,
    Bench,
    Case,
    Checks,
    brief,
    first_fork,
)
from treegrpo.sandboxes.conformance.leaks import (
    check_nothing_left,
    footprint,
    kills,
    new_nonce,
    resident_bytes,
)

if TYPE_CHECKING:
    from treegrpo.sandboxes import Sandbox

LIMITS = {
    "timeout_s": 60.0,
    "memory_mb": 256,
    "processes": 16,
    "workspace_mb": 8,
    "files": 300,
    "output_kib": 64,
}
DENIED = "ok"  # the kind of code that was refused everything it tried, and said so

# What every attack can use: attempt() notes a success, verdict() prints HELD or BROKE.
PREAMBLE = r"""
import errno, os, signal, sys, time
broken = []
def attempt(name, call):
    try:
        got = call()
    except (OSError, ValueError, RuntimeError, MemoryError, AttributeError, ImportError):
        return
    broken.append(f'{name}: {got!r:.80}')
def verdict():
    print('BROKE ' + '; '.join(broken) if broken else 'HELD')
"""

ROWS: dict[int, str] = {
    1: "fork bomb, thread bomb",
    2: "memory bomb",
    3: "endless loops, ignored signals",
    4: "disk and inode fill, sparse and deep files",
    5: "endless output",
    6: "protocol pipe and descriptor forgery",
    7: "exits, crashes, deep recursion",
    8: "network and sockets",
    9: "host files, environment and secrets",
    10: "signals to parent, siblings and supervisor",
    11: "ptrace and foreign memory",
    12: "links and special files against the host",
    13: "archives: traversal and bombs",
    14: "setuid and capabilities",
    15: "mounts, namespaces and kernel interfaces",
    16: "daemons that outlive a step",
    17: "limits raised, core dumps",
    18: "shared memory and locks",
    19: "tampering with the runtime",
    20: "poisoned environment and modules",
    21: "attacks on a grader",
}


@dataclass(frozen=True)
class Scene:
    """One attack under way: who stands around it, and what was planted."""

    bench: Bench
    parent: Sandbox
    sibling: Sandbox
    attacked: Sandbox
    nonce: str


Outside = Callable[[Scene, Result, Checks], None]


@dataclass(frozen=True)
class Attack:
    """One attack: its code, what must hold, and from which level."""

    row: int
    name: str
    promise: str
    code: str
    kinds: tuple[ResultKind, ...] = (DENIED,)
    says_held: bool = True  # whether code that ran to its end must have printed HELD
    timeout_s: float = 60.0  # of what ends by itself, also where the host is busy
    outside: Outside | None = None  # what the host checks besides, while the node lives
    holds_from: Level | None = Level.L1  # None: from no level
    below: str = ""  # what is so at lower levels
    runs_below: bool = True  # False where a success would hurt the host

    def case(self) -> Case:
        """Return the attack as a case of the suite."""
        return Case(
            f"{self.row:02d}-{self.name}",
            "abuse",
            self.promise,
            lambda bench, check: run_attack(self, bench, check),
            row=str(self.row),
            holds_from=self.holds_from,
            below=self.below,
            runs_below=self.runs_below,
        )


def run_attack(attack: Attack, bench: Bench, check: Checks) -> None:
    """Run one attack in one node; raise Violation at the first thing that does not hold."""
    before, nonce = footprint(bench), new_nonce()
    with kills(nonce):
        _attack(attack, bench, check, nonce)
        check_nothing_left(bench, check, before, nonce)
    check.same((), bench.bait.visitors(), "connections that reached the host")


def _attack(attack: Attack, bench: Bench, check: Checks, nonce: str) -> None:
    with _scene(bench, nonce) as scene:
        places = {"@NONCE@": nonce, "@HOME@": str(bench.home), **bench.bait.places}
        code = PREAMBLE + attack.code
        for place, value in places.items():
            code = code.replace(place, value)
        held, started = resident_bytes(), time.monotonic()
        result = scene.attacked.exec(code, timeout_s=attack.timeout_s)
        took = time.monotonic() - started
        grown = resident_bytes() - held
        check.that(grown < 64 * MIB, f"this process grew by {grown >> 20} MiB")
        _check_result(attack, bench, check, result, took)
        if attack.outside:
            attack.outside(scene, result, check)
        check_neighbours(scene, check)


def _check_result(attack: Attack, bench: Bench, check: Checks, result: Result, took: float) -> None:
    shown = brief(result, 900)
    said = result.text
    check.that(not bench.bait.found_in(result), f"a planted secret came out: {shown}")
    check.that(result.kind in attack.kinds, f"kind {result.kind}, not {attack.kinds}: {shown}")
    check.that("BROKE" not in said, f"the code got through: {shown}")
    if result.ok and attack.says_held:
        check.that("HELD" in said, f"the code did not come to its end: {shown}")
    check.that(took < attack.timeout_s + PATIENCE_S, f"took {took:.1f} s of {attack.timeout_s}")


@contextmanager
def _scene(bench: Bench, nonce: str) -> Generator[Scene]:
    with bench.sandbox(**LIMITS) as parent:
        parent.write("mark", nonce.encode())
        parent.exec(f"mark = {nonce!r}")
        sibling, attacked = first_fork(parent), first_fork(parent)
        sibling.write("secret", bench.bait.sister.encode())
        yield Scene(bench, parent, sibling, attacked, nonce)


def check_neighbours(scene: Scene, check: Checks) -> None:
    """Check that parent, sibling, a new fork and another tree are as they were, and answer."""
    mark = "(mark, open('mark').read(), len('abc'))"
    expected = repr((scene.nonce, scene.nonce, 3))
    for box in (scene.parent, scene.sibling, first_fork(scene.parent)):
        check.value(expected, box, mark)
    check.same(["mark"], [entry.name for entry in scene.parent.list()], "files of the parent")
    check.same(["mark", "secret"], [entry.name for entry in scene.sibling.list()], "sibling's")
    check.value(repr(OTHER_MARK), scene.bench.other, "mark")
    child, result = scene.parent.step("sum(range(10))")
    check.same("45", result.value, "a step of the parent")
    child.close()
