"""The bench of sandboxes: what is timed, what the metrics are, and what a rival's absence says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from treegrpo.sandboxes.bench import (
    FULL,
    QUICK,
    TARGETS,
    BenchReport,
    Measurement,
    Target,
    crowds,
    forks,
    rivals,
)
from treegrpo.sandboxes.bench.report import latencies, quantile
from treegrpo.sandboxes.errors import SandboxError

TINY = replace(QUICK, runs=3, warm=2, copies=2, containers=1, clones=2)
FAKE_SANDLOCK = """
import contextlib, io, types
class Sandbox:
    def __init__(self, fs_readable, init_fn=None, work_fn=None):
        self.work = work_fn
    def fork(self, count):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            for number in range(count):
                self.work(number)
        return told.getvalue()
    def reduce(self, command, made):
        return types.SimpleNamespace(stdout=made.encode())
"""


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(1, 501)), 0.99) == 495
    assert quantile([7.0], 0.99) == 7.0


def test_latencies_are_in_milliseconds_and_keep_every_run() -> None:
    found = latencies("node_fork", "what", [0.004, 0.002, 0.003])
    assert found.values == pytest.approx((4.0, 2.0, 3.0))
    assert found.metrics == {"node_fork_p50_ms": pytest.approx(3), "node_fork_p99_ms": 4.0}


def test_a_target_is_met_at_its_limit_and_missed_beyond() -> None:
    assert Target("a", 5.0).met(5.0) and not Target("a", 5.0).met(5.01)
    assert Target("a", 5.0, at_least=True).met(5.0)
    assert not Target("a", 5.0, at_least=True).met(4.99)


def test_rows_say_met_missed_or_not_measured() -> None:
    found = (
        Measurement("a", "", metrics={"a_ms": 1.0, "b_ms": 9.0}),
        Measurement("c", "", missing="no engine"),
    )
    report = BenchReport("process", 3, found, {}, {})
    targets = [Target("a_ms", 2.0), Target("b_ms", 2.0), Target("c_ms", 2.0)]
    assert [(row.value, row.met) for row in report.rows(targets)] == [
        (1.0, True),
        (9.0, False),
        (None, None),
    ]
    assert report.missing == {"c": "no engine"}


def test_a_full_run_is_as_large_as_the_rules_ask() -> None:
    assert FULL.runs >= 500 and FULL.warm > 0 and FULL.live == 2_000 and FULL.crowd == 1_000
    assert len({target.metric for target in TARGETS}) == len(TARGETS)


def test_only_the_run_is_timed_and_kinds_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = [0.0], []
    monkeypatch.setattr(forks.time, "perf_counter", lambda: clock[0])

    def run(name: str, seconds: float) -> Callable[[], Callable[[], object]]:
        def begin() -> Callable[[], object]:
            log.append(name)
            clock[0] += seconds

            def undo() -> None:
                log.append(f"-{name}")
                clock[0] += 100.0

            return undo

        return begin

    one, two = forks.timed(TINY, run("a", 1.0), run("b", 2.0))
    assert (one, two) == ([1.0] * 3, [2.0] * 3)
    assert log == ["a", "-a", "b", "-b"] * 5  # two of five were to warm up


class WrongSandbox:
    def exec(self, code: str) -> object:
        from treegrpo.sandboxes import Result

        return Result("ok", value="8")


def test_a_sandbox_that_gives_wrong_values_is_not_measured() -> None:
    sandbox: object = WrongSandbox()
    with pytest.raises(SandboxError, match="wanted '7' and found"):
        forks.expect(sandbox, "x", "7")  # pyright: ignore[reportArgumentType]


def test_what_a_tree_leaves_behind_is_seen() -> None:
    before = crowds._footprint()
    assert crowds._more(before) == 0
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as left:
        assert crowds._more(before) == 2  # a process, and the descriptor of its pipe
        left.communicate(b"\n")
    assert crowds._more(before) == 0


def test_a_drop_of_memory_below_the_private_pages_is_no_number() -> None:
    found = crowds._priced("parked", "each", crowds.Price(300.0, 140.0, 180.0), 100)
    assert found.metrics == {
        "parked_private_mb": 1.4,
        "parked_cgroup_mb": 1.8,
        "parked_mb": 3.0,
    }
    noisy = crowds._priced("parked", "each", crowds.Price(-20.0, 140.0, None), 100)
    assert noisy.metrics == {"parked_private_mb": 1.4}
    assert "quiet machine" in noisy.missing


def test_copies_are_measured_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.tempfile, "tempdir", str(tmp_path))
    (found,) = rivals.copies(TINY)
    assert len(found.values) == 2 and min(found.values) > 0
    assert list(tmp_path.iterdir()) == []


def test_without_an_engine_the_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    (found,) = rivals.docker_commits(TINY, "any")
    assert found.values == () and found.metrics == {}
    assert "/nowhere/docker.sock" in found.missing and "none answers" in found.missing


def test_without_sandlock_the_row_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    (found,) = rivals.sandlock_forks(TINY)
    assert (found.values, found.missing) == ((), "not installed: pip install sandlock")


def test_clones_are_timed_between_their_first_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, FAKE_SANDLOCK)
    between, calls = rivals.sandlock_forks(TINY)
    assert len(between.values) == 2 * 99 and len(calls.values) == 2
    assert min(between.values) >= 0 and set(calls.metrics) == {
        "sandlock_call_p50_ms",
        "sandlock_call_p99_ms",
    }


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("raise RuntimeError('no Landlock here')", "no Landlock here"),
        (FAKE_SANDLOCK.replace("range(count)", "range(count - 1)"), "1 clones were asked for"),
    ],
)
def test_a_sandlock_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, told: str
) -> None:
    _install(tmp_path, monkeypatch, broken)
    (found,) = rivals.sandlock_forks(TINY)
    assert found.values == () and found.missing.startswith("it failed: ") and told in found.missing


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (folder / "sandlock.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: object())
