"""What a demo ends with: the tables, the leaderboard row, the page of trees, the summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from treegrpo.leaderboards import store as stores
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.render import leaderboard_table
from treegrpo.leaderboards.stats import Interval
from treegrpo.leaderboards.summary import EvaluationSummary, summarise
from treegrpo.runfolder import read_rows, write_text
from treegrpo.view import Costs, GroupRow, before_after_table, cost_table, render_trees


def finish_demo(
    out: Path,
    console: Console,
    rows: list[dict[str, Any]],
    *,
    facts: dict[str, Any],
    seconds_total: float,
) -> dict[str, Any]:
    """Return the summary; print the tables and write what people look at."""
    before = summarise(read_bundle(out / "bundle_before"))
    after = summarise(read_bundle(out / "bundle_after"))
    url = f"sqlite:///{out / 'leaderboard.sqlite'}"
    for name in ("bundle_before", "bundle_after"):
        stores.add(out / name, url)  # replays every action; refuses what differs
    seconds = _seconds(out)
    summary = facts | _numbers(before, after, rows, seconds, seconds_total)
    console.print(before_after_table(_groups(before), _groups(after)))
    console.print(
        cost_table(
            Costs(
                summary["sampled_tokens"], summary["tool_calls"], summary["sharing_ratio"], seconds
            )
        )
    )
    console.print(leaderboard_table(stores.table(url)))
    page = render_trees(
        out / "trees.jsonl", out / "trees.html", title="Demo", summary=summary, curve=rows
    )
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    console.print(f"Trees to look at: {page}", markup=False)
    console.print(f"Run folder: {out}", markup=False)
    return summary


def _numbers(
    before: EvaluationSummary,
    after: EvaluationSummary,
    rows: list[dict[str, Any]],
    seconds: dict[str, float],
    seconds_total: float,
) -> dict[str, Any]:
    unique = sum(row["unique_tokens"] for row in rows)
    return {
        **_interval("success_before", before.success),
        **_interval("success_after", after.success),
        "success_after_by_difficulty": {
            str(level): interval.mean for level, interval in after.success_by_difficulty.items()
        },
        "eval_tasks": after.num_tasks,
        "steps": len(rows),
        "sampled_tokens": sum(row["sampled_tokens"] for row in rows),
        "tool_calls": sum(row["tool_calls"] for row in rows),
        "sharing_ratio": sum(row["flat_tokens"] for row in rows) / max(1, unique),
        "max_abs_log_ratio": max((row.get("max_abs_log_ratio", 0.0) for row in rows), default=0.0),
        "seconds_generation": seconds["generation"],
        "seconds_environment": seconds["environment"],
        "seconds_training": seconds["training"],
        "seconds_total": seconds_total,
    }


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _groups(summary: EvaluationSummary) -> list[GroupRow]:
    named = [(f"{level} hop", one) for level, one in summary.success_by_difficulty.items()]
    return [
        GroupRow(
            label,
            one.num_tasks,
            one.mean,
            float("nan") if one.low is None else one.low,
            float("nan") if one.high is None else one.high,
        )
        for label, one in [*named, ("all", summary.success)]
    ]


def _seconds(out: Path) -> dict[str, float]:
    rows = read_rows(out / "timings.jsonl")
    return {
        name: sum(row[name] for row in rows) for name in ("generation", "environment", "training")
    }
