"""How a backend gets onto a bench, and what becomes of a case's outcome."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.containers import IMAGE, IS_REQUIRED
from treegrpo.sandboxes import Backend, open_backend
from treegrpo.sandboxes.base import Level
from treegrpo.sandboxes.conformance import Bench, Case, open_bench, run_case
from treegrpo.sandboxes.errors import SandboxUnavailable

Put = Callable[[Bench, Case], None]


@pytest.fixture(scope="session")
def put() -> Put:
    """What puts a case to a bench: nothing that fails, is open or is skipped passes silently."""

    def run(bench: Bench, case: Case) -> None:
        outcome = run_case(case, bench)
        if outcome.status == "skipped":
            pytest.skip(outcome.detail)
        if outcome.status == "open":
            pytest.xfail(f"{bench.level.name} does not promise it: {outcome.declared}")
        assert outcome.status == "holds", f"{case.statement}: {outcome.detail}"
        assert outcome.checks > 0

    return run


@contextmanager
def process_bench(level: Level | None, rounds: float) -> Iterator[Bench]:
    """Yield a bench for processes at a level, at the host's own if None."""
    with open_backend("process") as backend:
        found = backend.probe()
    wanted = level or Level.L2
    if found.level < wanted:
        missing = "; ".join(f"{one.name}: {one.reason}" for one in found.missing())
        pytest.skip(f"{wanted.name} is asked, this host gives {found.level.name}: {missing}")

    def reopen() -> Backend:
        return open_backend("process") if level is None else open_backend("process", level=level)

    with open_bench(reopen, rounds=rounds) as bench:
        yield bench


@pytest.fixture(scope="module")
def highest() -> Iterator[Bench]:
    # All 500 random programs and repetitions in CI, a fifth of them where somebody waits.
    with process_bench(None, rounds=1.0 if os.environ.get("CI") else 0.2) as bench:
        yield bench


@pytest.fixture(scope="module", params=[Level.L1, Level.L2], ids=lambda level: level.name)
def lower(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with process_bench(request.param, rounds=0.05) as bench:
        yield bench


@pytest.fixture(scope="module")
def docker() -> Iterator[Bench]:
    try:
        with open_bench(lambda: open_backend("docker", image=IMAGE), rounds=0.1) as bench:
            yield bench
    except SandboxUnavailable as error:
        if IS_REQUIRED:
            pytest.fail(f"TREEGRPO_REQUIRE_DOCKER=1, yet there is no Docker: {error}")
        pytest.skip(str(error))
