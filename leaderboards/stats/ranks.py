"""Ranks with what is known about them: a range, a tier, and one careful integer.

All rows are compared on the tasks that they have in common; rows "apart" have tasks of their
own, drawn from the same kind, and are compared by their scores alone.

    rank              1 + the rows with a higher score; equal scores share a rank
    rank range        the middle 95 % of a row's rank when tasks are drawn anew. One draw holds
                      n - 1 of the n common tasks, with replacement, and the same ones for all
                      rows, so that a hard draw is hard for everybody; rows apart are drawn
                      each by itself
    upper-bound rank  1 + the rows whose interval lies wholly above this row's
    tier              rows whose rank range overlaps that of the tier's first row; the first
                      row that does not opens the next tier

Sources: bootstrap over clusters (Efron 1979), n - 1 draws per resample (Rao and Wu 1988), so
that the variance is the unbiased one; upper-bound rank as on LMArena (Chiang et al. 2024, arXiv
2403.04132). Differences: tasks are drawn, not votes; intervals are `clustered_interval`'s.

With fewer than some 30 tasks percentiles of a bootstrap are too narrow: then the upper-bound
rank, which stands on t intervals, is the one to trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as _scipy_stats

from treegrpo.leaderboards.errors import TasksDiffer
from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval
from treegrpo.leaderboards.stats.outcomes import (
    Bounds,
    Outcomes,
    check_confidence,
    shown,
    task_means,
)

_stats: Any = _scipy_stats
Scores = np.ndarray[Any, np.dtype[np.float64]]
Ranks = np.ndarray[Any, np.dtype[np.int64]]
_DECIMALS = 9
"""Scores that agree to so many decimals are equal: the rest is rounding."""
_CHUNK = 100_000


@dataclass(frozen=True)
class RankedRow:
    """A row of a board: its score on the common tasks, and what is known about its place."""

    name: str
    score: Interval
    rank: int
    rank_low: int
    """The best rank of the range."""
    rank_high: int
    """The worst rank of the range."""
    upper_bound_rank: int
    tier: int


def ranked(
    rows: Mapping[str, Outcomes],
    *,
    apart: bool = False,
    bounds: Bounds | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> list[RankedRow]:
    """Return the rows by falling score, then name, each with its ranks.

    Args:
        rows: name -> outcomes; higher values are better.
        apart: whether every row has tasks of its own, so that nothing is in common.
        bounds: as for `clustered_interval`.
        confidence: of intervals and rank range.
        resamples: number of draws, at least 100.
        seed: of the draws; the order of rows and tasks does not matter.

    Raises:
        TasksDiffer: the rows have fewer than two tasks in common, or a row apart has fewer.
        ValueError: no row, too few resamples, or as for `clustered_interval`.
    """
    check_confidence(confidence)
    if not rows or resamples < 100:
        raise ValueError(
            f"Ranks need a row and at least 100 resamples; {len(rows)} rows and {resamples} given."
        )
    inside = _apart(rows) if apart else _common(rows)
    scores = {
        name: clustered_interval(outcomes, bounds=bounds, confidence=confidence)
        for name, outcomes in inside.items()
    }
    order = sorted(rows, key=lambda name: (-round(scores[name].mean, _DECIMALS), name))
    means = [list(task_means(inside[name]).values()) for name in order]
    draw = _draw_apart(means) if apart else _draw_common(np.array(means))
    drawn = _rank_ranges(draw, len(order), confidence, resamples, seed)
    return _placed({name: scores[name] for name in order}, drawn)


def _placed(scores: Mapping[str, Interval], drawn: Sequence[tuple[int, int]]) -> list[RankedRow]:
    """Return the rows of scores by falling mean, each with the range of ranks that was drawn."""
    found = _ranks(np.array([[score.mean for score in scores.values()]]), "min")[0]
    ranks = [int(rank) for rank in found]
    # The rank that was seen is in its range, whatever the draws did.
    spans = [
        (min(low, rank), max(high, rank)) for (low, high), rank in zip(drawn, ranks, strict=True)
    ]
    careful = _upper_bound_ranks(list(scores.values()))
    return [
        RankedRow(name, score, rank, *span, bound, tier)
        for (name, score), rank, span, bound, tier in zip(
            scores.items(), ranks, spans, careful, tiers(spans), strict=True
        )
    ]


def tiers(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the tier of each rank range, from 1; ranges come in the order of the board."""
    found: list[int] = []
    first: tuple[int, int] | None = None
    for low, high in spans:
        if first is None or low > first[1] or high < first[0]:
            first = (low, high)
            found.append(found[-1] + 1 if found else 1)
        else:
            found.append(found[-1])
    return found


def _common(rows: Mapping[str, Outcomes]) -> dict[str, Outcomes]:
    """Return what every row did on the tasks that all rows have."""
    first, *others = rows.values()
    tasks = sorted(set(first).intersection(*others))
    if len(tasks) < 2:
        raise TasksDiffer(
            f"Ranks of {len(rows)} rows asked for, which have {len(tasks)} tasks in common, and "
            "two are the least. Evaluate all of them with the same env, split and tasks."
        )
    return {name: {task: rows[name][task] for task in tasks} for name in rows}


def _apart(rows: Mapping[str, Outcomes]) -> dict[str, Outcomes]:
    few = next((name for name, outcomes in rows.items() if len(outcomes) < 2), None)
    if few is not None:
        raise TasksDiffer(
            f"Ranks of {len(rows)} rows asked for, but {shown(few)} has a single task, and two are "
            "the least. Evaluate it on more."
        )
    return dict(rows)


Draw = Callable[[np.random.Generator, int], Scores]
"""Returns scores (draws x rows) when tasks are drawn anew so many times."""


def _draw_common(means: Scores) -> Draw:
    """Return the draws of rows that share their tasks; `means` is rows x tasks."""
    count = means.shape[1]

    def draw(rng: np.random.Generator, size: int) -> Scores:
        weights = rng.multinomial(count - 1, np.full(count, 1.0 / count), size=size)
        return weights @ means.T / (count - 1)

    return draw


def _draw_apart(means: Sequence[Sequence[float]]) -> Draw:
    """Return the draws of rows with tasks of their own.

    Tasks of equal means are drawn as one number, how many of them: that is the same
    distribution, and there are few different means.
    """
    kinds = [np.unique(np.round(row, _DECIMALS), return_counts=True) for row in means]

    def draw(rng: np.random.Generator, size: int) -> Scores:
        columns: list[Scores] = []
        for values, counts in kinds:
            total = int(counts.sum())
            weights = rng.multinomial(total - 1, counts / total, size=size)
            columns.append(weights @ values / (total - 1))
        return np.stack(columns, axis=1)

    return draw


def _rank_ranges(
    draw: Draw, num_rows: int, confidence: float, resamples: int, seed: int
) -> list[tuple[int, int]]:
    """Return (best, worst) rank of each row."""
    rng = np.random.default_rng(seed)
    best: list[Ranks] = []
    worst: list[Ranks] = []
    step = max(1, _CHUNK // num_rows)
    for start in range(0, resamples, step):
        scores = draw(rng, min(step, resamples - start))
        best.append(_ranks(scores, "min"))
        worst.append(_ranks(scores, "max"))
    tail = (1.0 - confidence) / 2
    lows = np.quantile(np.concatenate(best), tail, axis=0, method="inverted_cdf")
    highs = np.quantile(np.concatenate(worst), 1.0 - tail, axis=0, method="inverted_cdf")
    return [(int(low), int(high)) for low, high in zip(lows, highs, strict=True)]


def _ranks(scores: Scores, method: str) -> Ranks:
    return _stats.rankdata(-np.round(scores, _DECIMALS), method=method, axis=1).astype(np.int64)


def _upper_bound_ranks(scores: Sequence[Interval]) -> list[int]:
    """Return 1 + the number of intervals that lie above; one without ends is its mean's point."""
    lows = np.sort([score.mean if score.low is None else score.low for score in scores])
    highs = [score.mean if score.high is None else score.high for score in scores]
    return [1 + len(lows) - int(np.searchsorted(lows, high, side="right")) for high in highs]
