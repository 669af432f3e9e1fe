"""treegrpo.rollout.workers: bounded threads, results to one caller, calls that are given up."""

import threading
import time
from typing import Any

import pytest

from treegrpo.rollout.workers import Late, Workers


def nothing(result: Any) -> None:
    """Take a result and do nothing."""


def test_results_come_back_and_threads_are_bounded() -> None:
    workers, got, alive, most = Workers(3), list[int](), [0], [0]
    lock, together = threading.Lock(), threading.Barrier(3)

    def call(number: int) -> int:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        together.wait(60.0)  # until three run at once
        time.sleep(0.005)
        with lock:
            alive[0] -= 1
        return number

    for number in range(12):
        workers.submit(lambda n=number: call(n), got.append, nothing, kind="step")
    while workers.pending:
        workers.collect(1.0)
    assert sorted(got) == list(range(12))
    assert most[0] == 3 and workers.busy_seconds >= 12 * 0.005
    assert workers.close(60.0) == 0


def test_collect_waits_only_as_long_as_it_may() -> None:
    workers, free = Workers(1), threading.Event()
    workers.submit(free.wait, nothing, nothing, kind="step")
    began = time.perf_counter()
    assert workers.collect() == 0 and workers.collect(0.05) == 0
    assert 0.05 <= time.perf_counter() - began < 60.0
    free.set()
    assert workers.collect(60.0) == 1 and workers.pending == 0
    assert workers.close(60.0) == 0


def test_an_error_is_raised_where_results_are_collected() -> None:
    workers = Workers(1)
    workers.submit(lambda: 1 // 0, nothing, nothing, kind="step")
    with pytest.raises(ZeroDivisionError):
        workers.collect(60.0)
    assert workers.close(60.0) == 0


def test_a_call_that_hangs_is_given_up_and_the_others_go_on() -> None:
    workers, got, dropped = Workers(1), list[Any](), threading.Event()

    def hang() -> None:
        while True:
            time.sleep(0.005)

    workers.submit(hang, got.append, lambda result: dropped.set(), kind="step", timeout_s=0.05)
    workers.submit(lambda: "after", got.append, nothing, kind="step", timeout_s=60.0)
    while workers.pending:
        workers.collect(1.0)
    late, after = got
    assert isinstance(late, Late) and late.seconds >= 0.05 and after == "after"
    assert "no answer within 0." in late.message
    assert dropped.wait(60.0), "what it held is given up in its own thread"
    assert workers.abandoned == 1 and workers.close(60.0) == 0


def test_what_comes_too_late_is_dropped() -> None:
    workers, got, dropped = Workers(1), list[Any](), list[str]()
    free = threading.Event()

    def stubborn() -> str:
        try:
            free.wait()
        except BaseException:  # noqa: BLE001 - an environment that swallows everything
            return "too late"
        return "too late"

    workers.submit(stubborn, got.append, dropped.append, kind="step", timeout_s=0.02)
    workers.collect(60.0)
    assert len(got) == 1 and isinstance(got[0], Late)
    assert workers.close() == 1, "it still hangs"
    free.set()
    assert workers.close(60.0) == 0 and dropped == ["too late"]


def test_closing_drops_what_runs_and_what_waits() -> None:
    workers, dropped = Workers(1), list[Any]()

    def hang() -> None:
        while True:
            time.sleep(0.002)

    for _ in range(3):
        workers.submit(hang, nothing, dropped.append, kind="step")
    time.sleep(0.02)
    assert workers.close(60.0) == 0
    assert dropped == [None] * 3 and workers.pending == 0


def test_the_clock_of_a_call_starts_when_it_runs() -> None:
    workers, got = Workers(1), list[Any]()
    for _ in range(6):
        workers.submit(lambda: time.sleep(0.4), got.append, nothing, kind="x", timeout_s=2.0)
    while workers.pending:
        workers.collect(1.0)
    assert got == [None] * 6 and workers.abandoned == 0
    assert workers.close(60.0) == 0
