"""How often somebody may ask: token buckets in memory, one per name.

A bucket holds at most `burst` requests and gains `per_minute` of them a minute. Buckets that
are full again are forgotten, so that strangers' names do not fill the memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_SWEEP_EVERY = 1024


@dataclass
class _Bucket:
    left: float
    seen: float


class RateLimit:
    """A limit for every name on its own; safe for threads."""

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep the limit; `clock` gives seconds."""
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()
        self._asked = 0

    @property
    def num_names(self) -> int:
        """How many names are remembered."""
        return len(self._buckets)

    def wait_s(self, name: str) -> float:
        """Return 0 and count a request of `name`, or the seconds until it may ask again."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
            bucket.left = min(self._burst, bucket.left + (now - bucket.seen) * self._per_second)
            bucket.seen = now
            if bucket.left >= 1:
                bucket.left -= 1
                return 0.0
            return (1 - bucket.left) / self._per_second

    def _sweep(self, now: float) -> None:
        self._asked += 1
        if self._asked % _SWEEP_EVERY:
            return
        full_after = self._burst / self._per_second
        self._buckets = {n: b for n, b in self._buckets.items() if now - b.seen < full_after}
