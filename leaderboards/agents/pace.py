"""How long to wait so that no more than so much is asked for in a minute."""

from __future__ import annotations

from collections.abc import Callable

MINUTE_S = 60.0


class Pace:
    """Spreads amounts (requests, tokens) evenly: each pushes the next start back by its share.

    An amount that is known only afterwards is reserved by a guess and then corrected.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        """Allow `per_minute` (above 0) from now on; `clock` gives seconds."""
        self._seconds_each, self._clock = MINUTE_S / per_minute, clock
        self._free_at = clock()

    def reserve(self, amount: float) -> float:
        """Return the seconds to wait before this amount may be spent."""
        now = self._clock()
        start = max(now, self._free_at)
        self._free_at = start + amount * self._seconds_each
        return start - now

    def correct(self, difference: float) -> None:
        """Count what was spent beyond a reservation; negative where it was less."""
        self._free_at += difference * self._seconds_each
