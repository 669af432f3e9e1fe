"""Rate limits: a burst, then so many a minute, each name on its own."""

from __future__ import annotations

import pytest

from treegrpo.leaderboards.server.limits import RateLimit


class Clock:
    """A clock that stands until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_then_a_request_per_period() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=30, burst=3, clock=clock)
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 2.0]
    clock.now_s += 1.5
    assert limit.wait_s("a") == pytest.approx(0.5)
    clock.now_s += 0.5
    assert limit.wait_s("a") == 0
    assert limit.wait_s("a") == pytest.approx(2.0)


def test_a_pause_earns_no_more_than_the_burst() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=2, clock=clock)
    assert [limit.wait_s("a"), limit.wait_s("a")] == [0, 0]
    clock.now_s += 3_600
    assert [limit.wait_s("a") for _ in range(3)] == [0, 0, 1.0]


def test_names_do_not_share() -> None:
    limit = RateLimit(per_minute=1, burst=1, clock=Clock())
    assert limit.wait_s("a") == 0
    assert limit.wait_s("a") == 60
    assert limit.wait_s("b") == 0


def test_buckets_that_are_full_again_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=1, clock=clock)
    for name in range(1_000):
        limit.wait_s(f"stranger {name}")
    clock.now_s += 10
    for _ in range(1_024):
        limit.wait_s("regular")
    assert limit.num_names == 1
