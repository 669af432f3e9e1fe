"""Two agents on the same tasks: each task is compared with itself.

Pairing removes what makes tasks hard, which is most of the noise. With d_i the difference of
the two means of task i, over n tasks:

    t test        t = mean(d) / sqrt(var(d) / n), n - 1 degrees of freedom, two-sided
    sign flips    p = share of the 2^m sign patterns with |sum +-d_i| >= |sum d_i|, over the m
                  tasks with d_i != 0. Exact up to m = 16; above, over 19,999 random patterns
                  and the observed one: p = (1 + hits) / 20,000
    effect size   mean(d) / sd(d): the difference in units of its spread over tasks
    Holm          the i-th smallest of q p-values (from 0) times q - i, never falling, at most 1

Sources: Fisher 1935 (sign flips); Phipson and Smyth 2010 (the observed pattern counts); Cohen
1988 (d_z); Holm 1979. Differences: tasks without a difference are left out of the flips, which
changes no p-value and keeps the test exact for more tasks.

The flips assume only that, if the agents were equal, either could have had either result. With
few tasks they are coarse: m tasks cannot give a p below 2^(1-m).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import special as _scipy_special

from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval, standard_error
from treegrpo.leaderboards.stats.outcomes import (
    TINY,
    Bounds,
    Outcomes,
    same_tasks,
    task_means,
)

_special: Any = _scipy_special
K = TypeVar("K")

MAX_EXACT = 16
"""Up to so many tasks that differ, every sign pattern is counted."""
NUM_PATTERNS = 19_999
_CHUNK = 2_000


@dataclass(frozen=True)
class PairedDifference:
    """After minus before on the same tasks: interval, two-sided p-values, and counts of tasks.

    `p_value` is that of the paired t test; None where the differences have no spread.
    `flip_p_value` is that of the sign flips. `effect_size` is the mean difference over its
    standard deviation; None where there is no spread.
    """

    difference: Interval
    p_value: float | None
    wins: int
    ties: int
    losses: int
    flip_p_value: float
    effect_size: float | None


@dataclass(frozen=True)
class Comparison:
    """One of several comparisons: `adjusted_p` is Holm's over the flips of all of them."""

    before: str
    after: str
    paired: PairedDifference
    adjusted_p: float


def paired_difference(
    before: Outcomes,
    after: Outcomes,
    *,
    bounds: Bounds | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Return after minus before, each task compared with itself.

    Numbers of trials may differ; the tasks may not. Where all tasks differ by the same, the
    interval is Wilson's with each task as one trial, on the range that a difference can have;
    without bounds there is none, and none for a single task.

    Args:
        before: task -> values of the first agent.
        after: task -> values of the second agent.
        bounds: bounds of the values themselves; differences then lie in +-(high - low), and
            the t interval is clipped to that.
        confidence: in (0, 1).
        seed: of the random sign patterns, used above 16 tasks that differ.

    Raises:
        TasksDiffer: the two do not hold the same tasks; some are named.
        ValueError: as for `clustered_interval`.
    """
    same_tasks(before, after)
    first, second = task_means(before, bounds), task_means(after, bounds)
    named = {task: second[task] - first[task] for task in sorted(first)}
    changes = list(named.values())
    interval = _interval({task: [change] for task, change in named.items()}, bounds, confidence)
    p_value, effect_size = _t_test(changes) if interval.method == "t" else (None, None)
    wins = sum(change > TINY for change in changes)
    losses = sum(change < -TINY for change in changes)
    ties, flip_p = len(changes) - wins - losses, sign_flip_p(changes, seed=seed)
    return PairedDifference(interval, p_value, wins, ties, losses, flip_p, effect_size)


def _t_test(changes: Sequence[float]) -> tuple[float, float]:
    """Return (two-sided p-value, effect size) of differences that have a spread."""
    error, mean = standard_error(changes), math.fsum(changes) / len(changes)
    p_value = 2.0 * float(_special.stdtr(len(changes) - 1, -abs(mean) / error))
    return p_value, mean / (error * math.sqrt(len(changes)))


def compare_all(
    rows: Mapping[str, Outcomes], *, bounds: Bounds | None = None, confidence: float = 0.95
) -> list[Comparison]:
    """Return every pair of rows, later minus earlier, with p-values adjusted for their number.

    Args:
        rows: name -> outcomes on the same tasks; at least two.
        bounds: as for `paired_difference`.
        confidence: of each interval by itself.

    Raises:
        TasksDiffer: two rows do not hold the same tasks.
        ValueError: fewer than two rows.
    """
    if len(rows) < 2:
        raise ValueError(f"A comparison needs at least two rows; {len(rows)} given.")
    found = {
        (a, b): paired_difference(rows[a], rows[b], bounds=bounds, confidence=confidence)
        for a, b in itertools.combinations(rows, 2)
    }
    adjusted = holm({pair: paired.flip_p_value for pair, paired in found.items()})
    return [Comparison(*pair, paired, adjusted[pair]) for pair, paired in found.items()]


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return Holm's adjusted p-values, in the order given.

    Rejecting those at most 0.05 keeps the chance of any wrong rejection at most 5 %.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    for name, p_value in p_values.items():
        if not 0.0 <= p_value <= 1.0:
            raise ValueError(f"A p-value lies from 0 to 1; that of {name!r} is {p_value}.")
    adjusted: dict[K, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, p_values[name] * (len(p_values) - place)))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def sign_flip_p(changes: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of the sign-flip test that the differences centre on 0.

    Args:
        changes: one difference per task; 1.0 comes back where all are zero.
        seed: of the random patterns, where there are too many to count all.
    """
    moved = np.array([change for change in changes if abs(change) > TINY])
    # Sums that are equal but for rounding count as equal.
    reach = abs(float(moved.sum())) - 1e-9 * float(np.abs(moved).sum())
    if len(moved) <= MAX_EXACT:
        sums = np.zeros(1)
        for change in moved:
            sums = np.concatenate([sums + change, sums - change])
        return int(np.count_nonzero(np.abs(sums) >= reach)) / len(sums)
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, NUM_PATTERNS, _CHUNK):
        shape = min(_CHUNK, NUM_PATTERNS - start), len(moved)
        signs = rng.integers(0, 2, size=shape, dtype=np.int8)
        hits += int(np.count_nonzero(np.abs((1.0 - 2.0 * signs) @ moved) >= reach))
    return (1 + hits) / (1 + NUM_PATTERNS)


def _interval(changes: Outcomes, bounds: Bounds | None, confidence: float) -> Interval:
    plain = clustered_interval(changes, confidence=confidence)
    if bounds is None:
        return plain
    least, greatest = bounds[0] - bounds[1], bounds[1] - bounds[0]
    if plain.low is None or plain.high is None:
        return clustered_interval(changes, bounds=(least, greatest), confidence=confidence)
    return replace(plain, low=max(plain.low, least), high=min(plain.high, greatest))
