"""What forking an environment costs: snapshot and restore in milliseconds, and bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from treegrpo.envs.checks.result import Result
from treegrpo.envs.law_cases import Case

SNAPSHOT, RESTORE, SIZE = "snapshot cost", "restore cost", "snapshot size"
MIN_SAMPLES, MAX_SAMPLES = 20, 400


def cost(cases: Sequence[Case], *, seconds: float) -> list[Result]:
    """Return p50 and p95 of snapshot, restore and size, at every step of recorded episodes."""
    snapshot_ms: list[float] = []
    restore_ms: list[float] = []
    sizes: list[int] = []
    started = time.perf_counter()
    while len(snapshot_ms) < MAX_SAMPLES:
        for case in cases:
            _sample(case, snapshot_ms, restore_ms, sizes)
        if time.perf_counter() - started > seconds and len(snapshot_ms) >= MIN_SAMPLES:
            break
    count = len(snapshot_ms)
    portable = [size for size in sizes if size]
    size = f"{_of(portable, 'bytes', 0)}" if portable else "not portable: stays in this process"
    return [
        Result(SNAPSHOT, "measured", f"{_of(snapshot_ms, 'ms', 3)}, {count} times"),
        Result(RESTORE, "measured", f"{_of(restore_ms, 'ms', 3)}, {count} times"),
        Result(SIZE, "measured", size),
    ]


def _sample(
    case: Case, snapshot_ms: list[float], restore_ms: list[float], sizes: list[int]
) -> None:
    env = case.at(0)
    for action in (*case.actions, None):
        begun = time.perf_counter()
        shot = env.snapshot()
        taken = time.perf_counter()
        env.restore(shot)
        restore_ms.append(1_000 * (time.perf_counter() - taken))
        snapshot_ms.append(1_000 * (taken - begun))
        if len(sizes) < MIN_SAMPLES:
            sizes.append(shot.nbytes)
        if action is not None and not env.episode.ended:
            env.step(action)
    env.close()


def _of(values: Sequence[float], unit: str, digits: int) -> str:
    middle, high = (float(np.percentile(values, p)) for p in (50, 95))
    return f"p50 {middle:,.{digits}f} {unit}, p95 {high:,.{digits}f} {unit}"
