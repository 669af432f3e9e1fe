"""The conformance suite of sandboxes: what every backend must do, and withstand.

    from treegrpo.sandboxes import open_backend
    from treegrpo.sandboxes.conformance import check_backend

    for outcome in check_backend(lambda: open_backend("process")):
        ...                          # name, statement, status, and what was found

Three groups: function (what the interface promises), fork (F1 to F13: what a fork holds) and
abuse (rows 1 to 21: what hostile code gets). A statement that holds only from some isolation
level says so in its data, and is `open` below that level, never silently passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from treegrpo.sandboxes.conformance import (
    attacks_limits,
    attacks_reach,
    attacks_trust,
    endurance,
    execution,
    forks,
    lifecycle,
    workspace,
)
from treegrpo.sandboxes.conformance.abuse import ROWS, Attack
from treegrpo.sandboxes.conformance.bench import open_bench
from treegrpo.sandboxes.conformance.case import (
    Bench,
    Case,
    Checks,
    NotHere,
    Outcome,
    Status,
    Violation,
    run_case,
)

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend

ATTACKS: tuple[Attack, ...] = (
    *attacks_limits.ATTACKS,
    *attacks_reach.ATTACKS,
    *attacks_trust.ATTACKS,
)
CASES: tuple[Case, ...] = (
    *execution.CASES,
    *workspace.CASES,
    *lifecycle.CASES,
    *forks.CASES,
    *endurance.CASES,
    *(attack.case() for attack in ATTACKS),
)


def check_backend(
    reopen: Callable[[], Backend], *, rounds: float = 1.0, only: str = ""
) -> Iterator[Outcome]:
    """Yield what came of every case, one after the other; nothing is raised for a failure.

    Args:
        reopen: opens a backend of the kind under test, each time a new one.
        rounds: scales the number of random programs and repetitions; 1 is the full suite.
        only: a part of the names of the cases to run; all of them if empty.
    """
    with open_bench(reopen, rounds=rounds) as bench:
        for case in CASES:
            if only in case.name:
                yield run_case(case, bench)


__all__ = [
    "ATTACKS",
    "CASES",
    "ROWS",
    "Attack",
    "Bench",
    "Case",
    "Checks",
    "NotHere",
    "Outcome",
    "Status",
    "Violation",
    "check_backend",
    "open_bench",
    "run_case",
]
