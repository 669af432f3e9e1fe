"""The shortest action sequence that still shows a fault.

Delta debugging: chunks are left out, halves first, single actions last, as long as the fault
stays. What remains is minimal in this sense: without any one of its actions the fault is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Fails = Callable[[tuple[str, ...]], bool]


def shortest(
    actions: Sequence[str], fails: Fails, *, seconds: float
) -> tuple[tuple[str, ...], bool]:
    """Return a shorter sequence that fails, and whether it is minimal.

    Args:
        actions: a sequence that fails.
        fails: whether a sequence shows the fault; must not raise.
        seconds: no probe is begun later than this; what was found by then is returned.
    """
    deadline = time.perf_counter() + seconds
    kept = tuple(actions)
    # Most faults show long before the end, so the end goes first.
    low, high = 0, len(kept)
    while low < high and time.perf_counter() < deadline:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(kept[:middle]) else (middle + 1, high)
    kept = kept[:high]
    size = max(1, len(kept) // 2)
    while kept:
        start, removed = 0, False
        while start < len(kept):
            if time.perf_counter() >= deadline:
                return kept, False
            shorter = kept[:start] + kept[start + size :]
            if fails(shorter):
                kept, removed = shorter, True
            else:
                start += size
        if size == 1 and not removed:
            return kept, True
        size = size if removed and size == 1 else max(1, size // 2)
    return kept, True
