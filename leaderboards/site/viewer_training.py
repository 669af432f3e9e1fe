"""The page of one or several training runs: what success cost, and a way to each step's trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treegrpo.leaderboards.site.viewer import render_page
from treegrpo.leaderboards.site.viewer_chart import Chart, Point, Scale, Series, line_chart
from treegrpo.leaderboards.site.viewer_text import clean_text

SECONDS = "seconds_total"
"""Key of the seconds since the first step, which the caller adds to the rows of metrics."""

_CHARTS: tuple[tuple[str, str, str, str, Scale], ...] = (
    (
        "success by sampled tokens",
        "success_rate",
        "sampled tokens",
        "sampled_tokens_total",
        "percent",
    ),
    ("success by tool calls", "success_rate", "tool calls", "tool_calls_total", "percent"),
    ("success by seconds", "success_rate", "seconds", SECONDS, "percent"),
    ("mean reward", "reward_mean", "step", "step", "linear"),
    ("gap between sampler and trainer", "max_abs_log_ratio", "step", "step", "log"),
    ("share of clipped tokens", "clip_share", "step", "step", "share"),
)
"""(title, key of y, label of x, key of x, scale of y), in the order of the page."""
_OF_OUTCOMES = ("success_rate", "reward_mean")


@dataclass(frozen=True)
class TrainingRun:
    """One run: rows of metrics.jsonl, and the pages of its steps relative to the page."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    facts: tuple[tuple[str, str], ...] = ()
    pages: Mapping[int, str] = field(default_factory=dict[int, str])
    """Step -> page of its trees."""


@dataclass(frozen=True)
class _Column:
    title: str
    key: str
    show: Callable[[float], str]


_COLUMNS = (
    _Column("success", "success_rate", lambda x: f"{100 * x:.0f} %"),
    _Column("reward", "reward_mean", lambda x: f"{x:.3f}"),
    _Column("mixed questions", "mixed_share", lambda x: f"{100 * x:.0f} %"),
    _Column("sampled tokens", "sampled_tokens", lambda x: f"{x:,.0f}"),
    _Column("tool calls", "tool_calls", lambda x: f"{x:,.0f}"),
    _Column("sharing", "sharing_ratio", lambda x: f"{x:.2f}"),
    _Column("gap", "max_abs_log_ratio", lambda x: f"{x:.1e}"),
    _Column("clipped", "clip_share", lambda x: f"{100 * x:.1f} %"),
    _Column("gradient", "grad_norm", lambda x: f"{x:.3g}"),
)


def render_training(runs: Sequence[TrainingRun], title: str) -> str:
    """Return the page; `runs` are those of one setting with different seeds, or one run."""
    return render_page(
        "training.html.j2",
        title=clean_text(title),
        charts=training_charts(runs),
        columns=[column.title for column in _COLUMNS],
        runs=[
            {
                "name": clean_text(run.name),
                "facts": [(name, clean_text(value)) for name, value in run.facts],
                "rows": [_cells(run, row) for row in run.rows],
            }
            for run in runs
        ],
    )


def training_charts(runs: Sequence[TrainingRun]) -> tuple[Chart, ...]:
    """Return the charts that the runs have values for."""
    charts = (
        line_chart(title, x_label, [_series(run, x, y) for run in runs], scale)
        for title, y, x_label, x, scale in _CHARTS
    )
    return tuple(chart for chart in charts if chart is not None)


def _series(run: TrainingRun, x: str, y: str) -> Series:
    points: list[Point] = []
    for row in run.rows:
        across, up = _number(row, x), _number(row, y)
        if across is not None and up is not None and _has_outcome(row, y):
            points.append((across + (x == "step"), up))  # people count steps from 1
    return Series(clean_text(run.name), tuple(points))


def _has_outcome(row: Mapping[str, Any], key: str) -> bool:
    """Return whether the number is one: without an outcome, success 0 means nothing."""
    return key not in _OF_OUTCOMES or row.get("reset_leaves") != 0


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _cells(run: TrainingRun, row: Mapping[str, Any]) -> dict[str, Any]:
    cells: list[str] = []
    for column in _COLUMNS:
        value = _number(row, column.key)
        known = value is not None and _has_outcome(row, column.key)
        cells.append(column.show(value) if value is not None and known else "-")
    step = int(_number(row, "step") or 0)
    return {"step": step + 1, "page": run.pages.get(step, ""), "cells": cells}
