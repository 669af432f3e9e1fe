"""The numbers of start_states: per arm over seeds, and the difference paired by seed.

The seed is the unit: both arms of a seed start from one model and are scored on the same tasks.
Intervals are 95 % t intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treegrpo.leaderboards.stats import (
    UNIT,
    Interval,
    PairedDifference,
    clustered_interval,
    paired_difference,
)

Row = Mapping[str, Any]
HALF = 0.5
ONE_PERCENT = 0.01
_PER_RUN = {
    "sampled_tokens": "sampled_tokens",
    "training_steps": "steps",
    "leaves": "leaves_in_training",
    "solved_leaves": "solved_in_training",
    "steps_s": "seconds",
}


def select(rows: Sequence[Row], arm: str) -> list[Row]:
    """Return the runs of one arm, by seed."""
    return sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])


def curve(row: Row, name: str) -> tuple[list[float], list[float]]:
    """Return (sampled tokens, the value of that name) at each evaluation of a run."""
    return [p["sampled_tokens"] for p in row["points"]], [p[name] for p in row["points"]]


def tokens_to_half(row: Row) -> float | None:
    """Return the sampled tokens after which the chance of success was first a half, or None.

    Read off by straight lines between evaluations. The chance is taken, not the sampled success,
    whose noise would cross the line too soon.
    """
    tokens, chances = curve(row, "chance")
    for number, chance in enumerate(chances):
        if chance >= HALF:
            if number == 0:
                return float(tokens[0])
            before = chances[number - 1]
            share = (HALF - before) / (chance - before)
            return tokens[number - 1] + share * (tokens[number] - tokens[number - 1])
    return None


def reset_at_half(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return, by seed, the chance of `reset` at the tokens where `oracle_prefix` came to a half.

    Seeds in which it never did are left out.
    """
    found: dict[str, list[float]] = {}
    for reset, oracle in zip(select(rows, "reset"), select(rows, "oracle_prefix"), strict=True):
        tokens = tokens_to_half(oracle)
        if tokens is not None:
            found[str(reset["seed"])] = [float(np.interp(tokens, *curve(reset, "chance")))]
    return found


def end_values(rows: Sequence[Row], name: str, *, at: int = -1) -> dict[str, list[float]]:
    """Return, by seed, a value at the last evaluation, or at another."""
    return {str(row["seed"]): [row["points"][at][name]] for row in rows}


def over_seeds(rows: Sequence[Row], name: str, *, at: int = -1) -> Interval:
    """Return the mean of a rate at the last evaluation, with its interval over seeds."""
    return clustered_interval(end_values(rows, name, at=at), bounds=UNIT)


def oracle_minus_reset(rows: Sequence[Row]) -> PairedDifference:
    """Return the difference in success at the end, paired by seed."""
    before, after = (end_values(select(rows, a), "success") for a in ("reset", "oracle_prefix"))
    return paired_difference(before, after, bounds=UNIT)


def flat_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return every summary number under one flat name: measure_arm_when_unit.

    `tokens_to_half_success_` is a mean over the runs that came so far, and left out where none
    did; `seeds_at_half_` counts the runs whose sampled success at the end is at least a half,
    `seeds_above_one_percent_` those that it shows to have moved at all.
    """
    metrics = _with_ends("success_start", over_seeds(select(rows, "reset"), "success", at=0))
    metrics |= _with_ends("chance_start", over_seeds(select(rows, "reset"), "chance", at=0))
    metrics["right_word_start"] = over_seeds(select(rows, "reset"), "right_word", at=0).mean
    for arm in ("reset", "oracle_prefix"):
        runs = select(rows, arm)
        for name in ("success", "chance"):
            metrics |= _with_ends(f"{name}_{arm}_end", over_seeds(runs, name))
        ends = [run["success_end"] for run in runs]
        metrics[f"success_{arm}_end_least"] = min(ends)
        metrics[f"success_{arm}_end_most"] = max(ends)
        metrics[f"seeds_at_half_{arm}"] = sum(end >= HALF for end in ends)
        metrics[f"seeds_above_one_percent_{arm}"] = sum(end > ONE_PERCENT for end in ends)
        reached = [tokens for run in runs if (tokens := tokens_to_half(run)) is not None]
        if reached:
            metrics[f"tokens_to_half_success_{arm}"] = float(np.mean(reached))
        for label, key in _PER_RUN.items():
            metrics[f"{label}_{arm}"] = float(np.mean([run[key] for run in runs]))
    off = [r["off_at_tokens"] for r in select(rows, "oracle_prefix") if r["off_at_tokens"]]
    metrics["seeds_switched_off"] = len(off)
    if off:
        metrics["switched_off_at_tokens"] = float(np.mean(off))
    at_half = reset_at_half(rows)
    if at_half:
        name = "chance_reset_when_oracle_prefix_at_half"
        metrics |= _with_ends(name, clustered_interval(at_half, bounds=UNIT))
    metrics["seeds"] = len(select(rows, "reset"))
    return metrics | _with_ends("success_difference_end", oracle_minus_reset(rows).difference)


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    ends = {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {name: interval.mean} | {key: end for key, end in ends.items() if end is not None}
