"""What forking an environment costs: snapshot and restore in milliseconds, and bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from treegrpo.envs.checks.result import Result
from treegrpo.envs.law_cases import Case

SNAPSHOT, RESTORE, SIZE = "snapshot cost", "restore cost", "snapshot size"
MIN_SAMPLES, MAX_SAMPLES = 20, 400


@dataclass(frozen=True)
class Costs:
    """Samples of snapshots and restores in milliseconds, and sizes in bytes (0: not portable)."""

    snapshot_ms: list[float] = field(default_factory=list[float])
    restore_ms: list[float] = field(default_factory=list[float])
    sizes: list[int] = field(default_factory=list[int])

    def sample(self, case: Case) -> None:
        """Add samples of every step of a recorded episode; of sizes, the first MIN_SAMPLES."""
        env = case.at(0)
        for action in (*case.actions, None):
            begun = time.perf_counter()
            shot = env.snapshot()
            taken = time.perf_counter()
            env.restore(shot)
            self.restore_ms.append(1_000 * (time.perf_counter() - taken))
            self.snapshot_ms.append(1_000 * (taken - begun))
            if len(self.sizes) < MIN_SAMPLES:
                self.sizes.append(shot.nbytes)
            if action is not None and not env.episode.ended:
                env.step(action)
        env.close()


def cost(cases: Sequence[Case], *, seconds: float) -> list[Result]:
    """Return p50 and p95 of snapshot, restore and size, at every step of recorded episodes."""
    costs = Costs()
    started = time.perf_counter()
    while len(costs.snapshot_ms) < MAX_SAMPLES:
        for case in cases:
            costs.sample(case)
        if time.perf_counter() - started > seconds and len(costs.snapshot_ms) >= MIN_SAMPLES:
            break
    count = len(costs.snapshot_ms)
    portable = [size for size in costs.sizes if size]
    size = f"{_of(portable, 'bytes', 0)}" if portable else "not portable: stays in this process"
    return [
        Result(SNAPSHOT, "measured", f"{_of(costs.snapshot_ms, 'ms', 3)}, {count} times"),
        Result(RESTORE, "measured", f"{_of(costs.restore_ms, 'ms', 3)}, {count} times"),
        Result(SIZE, "measured", size),
    ]


def _of(values: Sequence[float], unit: str, digits: int) -> str:
    middle, high = (float(np.percentile(values, p)) for p in (50, 95))
    return f"p50 {middle:,.{digits}f} {unit}, p95 {high:,.{digits}f} {unit}"
