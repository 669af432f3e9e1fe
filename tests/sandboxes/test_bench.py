"""The bench of sandboxes on this host's own: every metric comes out, and nothing is left."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace

import pytest

from tests.containers import IMAGE
from treegrpo.sandboxes import SandboxError, open_backend
from treegrpo.sandboxes import bench as package
from treegrpo.sandboxes.base import Level
from treegrpo.sandboxes.bench import QUICK, TARGETS, crowds, forks, rivals, run_bench

TINY = replace(
    QUICK, runs=2, warm=1, fanouts=1, crowds=1, crowd=12, parked=10, live=20, containers=1
)


@pytest.fixture(autouse=True)
def _needs_namespaces() -> None:
    with open_backend("process") as backend:
        found = backend.probe()
    if found.level < Level.L2:
        missing = "; ".join(f"{one.name}: {one.reason}" for one in found.missing())
        pytest.skip(f"L2 is asked, this host gives {found.level.name}: {missing}")


def test_every_target_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "QUICK", TINY)
    falling = itertools.count(10_000_000_000, -500_000_000)
    monkeypatch.setattr(crowds, "_settled_bytes", lambda: next(falling))
    named: list[str] = []
    before = crowds._footprint()
    with open_backend("process") as backend:
        report = run_bench(backend, quick=True, progress=named.append)
        assert report.level == backend.probe().level
    assert len(named) == 9 and report.missing == {}
    assert all(row.value is not None for row in report.rows())
    assert report.metrics["close1000_left"] == 0
    assert report.metrics["parked_mb"] == pytest.approx(50) and report.metrics["live2000_mb"] == 500
    assert report.metrics["node_fork_p50_ms"] > 0 and report.metrics["replay_root_p50_ms"] > 0
    assert {target.metric for target in TARGETS} <= set(report.metrics)
    assert crowds._more(before) == 0
    for one in report.measurements:
        assert one.values and one.what, one.name


def test_states_grow_as_a_tree_in_which_all_live() -> None:
    with open_backend("process") as backend, forks.node(backend) as root:
        states = crowds.grow(root, 9)
        assert len(states) == 10 and all(state.alive for state in states)
        assert [states[n].exec("steps").value for n in (0, 1, 4, 5, 9)] == ["0", "1", "1", "2", "2"]


def test_a_tree_that_does_not_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(crowds, "_more", lambda before: 3)
    with open_backend("process") as backend:
        (found,) = crowds.closings(backend, TINY)
    assert found.metrics["close1000_left"] == 3.0
    left = next(target for target in TARGETS if target.metric == "close1000_left")
    assert not left.met(3.0)


@pytest.mark.docker
def test_docker_commit_and_run_is_timed() -> None:
    (found,) = rivals.docker_commits(TINY, IMAGE)
    assert found.missing == "" and len(found.values) == 1
    assert found.metrics["docker_commit_run_p50_ms"] > 0
    gc.collect()  # a stream left open would be a warning, so an error


@pytest.mark.docker
def test_an_image_that_is_missing_is_a_reason() -> None:
    (found,) = rivals.docker_commits(TINY, "treegrpo-sandbox:nowhere")
    assert found.values == () and "does not have the image" in found.missing


def test_a_failing_fork_is_raised() -> None:
    with pytest.raises(SandboxError, match="spent"):
        forks.first([SandboxError("the budget is spent")])
