"""The numbers of tree_vs_chain: means over seeds, and differences between paired seeds.

The seed is the unit: both algorithms of a seed start from one model and are scored on the same
tasks, so their difference is paired. Intervals are 95 % t intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from treegrpo.leaderboards.stats import (
    UNIT,
    Interval,
    PairedDifference,
    clustered_interval,
    paired_difference,
)

Row = Mapping[str, Any]
Axis = Literal["sampled_tokens", "tool_calls", "cpu_seconds"]
AXES: tuple[Axis, ...] = ("sampled_tokens", "tool_calls", "cpu_seconds")
_PER_RUN = {
    "success_start": "success_start",
    "sampled_tokens": "sampled_tokens",
    "tool_calls": "tool_calls",
    "training_steps": "steps",
    "leaves": "leaves",
    "sharing_ratio": "sharing_ratio",
    "mixed_questions_share": "mixed_questions",
    "generation_s": "seconds_generation",
    "environment_s": "seconds_environment",
    "training_s": "seconds_training",
    "step_s": "seconds_step",
    "step_cpu_s": "seconds_cpu",
    "warm_start_s": "seconds_warm_start",
}


def select(rows: Sequence[Row], setting: str, algorithm: str) -> list[Row]:
    """Return the runs of one setting and algorithm, by seed."""
    found = [r for r in rows if r["setting"] == setting and r["algorithm"] == algorithm]
    return sorted(found, key=lambda row: row["seed"])


def curve(row: Row, axis: Axis) -> tuple[list[float], list[float]]:
    """Return (what was spent, held-out success) at each evaluation of a run."""
    return [p[axis] for p in row["points"]], [p["success"] for p in row["points"]]


def success_at(row: Row, axis: Axis, spent: float) -> float:
    """Return the success after so much was spent, read off the curve by straight lines."""
    return float(np.interp(spent, *curve(row, axis)))


def area_under_curve(row: Row, spent: float) -> float:
    """Return the mean success over the sampled tokens from 0 to `spent`, by trapezoids."""
    grid = np.linspace(0.0, spent, 201)
    values = np.interp(grid, *curve(row, "sampled_tokens"))
    return float((values[:-1] + values[1:]).mean() / 2)


def over_seeds(rows: Sequence[Row], name: str) -> Interval:
    """Return the mean of a rate of each run, with its interval over seeds."""
    return clustered_interval({str(row["seed"]): [row[name]] for row in rows}, bounds=UNIT)


def tree_minus_chain(
    rows: Sequence[Row], setting: str, measure: Axis | Literal["area"]
) -> PairedDifference:
    """Return the paired difference in success, or in area under the curve.

    Per seed both curves are read where the cheaper run ended: at equal spending.
    """
    chain, tree = (select(rows, setting, algorithm) for algorithm in ("chain", "tree"))
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    for one, other in zip(chain, tree, strict=True):
        axis: Axis = "sampled_tokens" if measure == "area" else measure
        spent = min(run["points"][-1][axis] for run in (one, other))
        for run, side in ((one, before), (other, after)):
            area = measure == "area"
            value = area_under_curve(run, spent) if area else success_at(run, axis, spent)
            side[str(run["seed"])] = [value]
    return paired_difference(before, after, bounds=UNIT)


def flat_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return every summary number under one flat name: setting_algorithm_measure_unit."""
    metrics: dict[str, float] = {}
    for setting in sorted({row["setting"] for row in rows}):
        prefix = setting.replace("-", "_")
        for algorithm in ("chain", "tree"):
            runs = select(rows, setting, algorithm)
            name = f"{prefix}_{algorithm}"
            metrics |= _with_ends(f"{name}_success_end", over_seeds(runs, "success_end"))
            area = {str(r["seed"]): [area_under_curve(r, r["sampled_tokens"])] for r in runs}
            metrics |= _with_ends(f"{name}_success_area", clustered_interval(area, bounds=UNIT))
            for label, key in _PER_RUN.items():
                metrics[f"{name}_{label}"] = float(np.mean([run[key] for run in runs]))
        for measure in (*AXES, "area"):
            paired = tree_minus_chain(rows, setting, measure)
            label = f"{prefix}_difference_" + ("area" if measure == "area" else f"at_{measure}")
            metrics |= _with_ends(label, paired.difference)
            if paired.p_value is not None:
                metrics[f"{label}_p"] = paired.p_value
    return metrics


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    ends = {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {name: interval.mean} | {key: end for key, end in ends.items() if end is not None}
