"""What a demo ends with: the tables, the leaderboard row, the page of trees, the summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from treegrpo.cli.progress import Stages, say
from treegrpo.cli.view_pages import trees_page
from treegrpo.leaderboards.board import Board
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.render import leaderboard_table
from treegrpo.leaderboards.site.viewer_training import TrainingRun, training_charts
from treegrpo.leaderboards.stats import Interval
from treegrpo.leaderboards.store import open_store
from treegrpo.leaderboards.summary import EvaluationSummary, summarise
from treegrpo.runfolder import read_rows, write_text
from treegrpo.tree import read_trees
from treegrpo.view import Costs, GroupRow, before_after_table, cost_table

MAX_QUESTIONS = 12
"""Questions on the page of trees, at even distances over the run."""


def verify_and_rank(out: Path, advance: Callable[[int, int], None]) -> list[Board]:
    """Return the leaderboard of both bundles, after every action of them was replayed."""
    url = f"sqlite:///{out / 'leaderboard.sqlite'}"
    bundles = ("bundle_before", "bundle_after")
    with open_store(url, create=True) as store:
        for done, name in enumerate(bundles):
            advance(done, len(bundles))
            store.add(out / name)  # replays every action; refuses what differs
        return [store.board(key.id) for key in store.boards()]


def finish_demo(
    out: Path, console: Console, ranked: list[Board], *, facts: dict[str, Any], stages: Stages
) -> dict[str, Any]:
    """Return the summary; print the tables and write what people look at."""
    rows = read_rows(out / "metrics.jsonl")
    before = summarise(read_bundle(out / "bundle_before"))
    after = summarise(read_bundle(out / "bundle_after"))
    seconds = _seconds(out)
    summary = facts | _numbers(before, after, rows) | _times(seconds, stages)
    costs = Costs(
        summary["sampled_tokens"], summary["tool_calls"], summary["sharing_ratio"], seconds
    )
    page = out / "trees.html"
    write_text(page, _page(out, summary, rows))
    for table in (
        before_after_table(_groups(before), _groups(after)),
        cost_table(costs),
        leaderboard_table(ranked),
    ):
        console.print()
        console.print(table)
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    say(console, _ending(out, page, summary))
    return summary


def _page(out: Path, summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the page of trees, below the numbers that a reader looks for first."""
    low, high = summary["success_after_low"], summary["success_after_high"]
    after = f"{100 * summary['success_after']:.0f} %"
    before = f"{100 * summary['success_before']:.0f} %"
    interval = "" if low is None or high is None else f"{100 * low:.0f} to {100 * high:.0f} %"
    facts = (
        ("95 % interval", interval),
        ("sampled tokens", f"{summary['sampled_tokens']:,}"),
        ("tool calls", f"{summary['tool_calls']:,}"),
        ("sharing ratio", f"{summary['sharing_ratio']:.2f}"),
        ("time", f"{summary['seconds_total']:.0f} s"),
        ("seed", str(summary["seed"])),
    )
    run = TrainingRun("demo", tuple(rows))
    return trees_page(
        read_trees(out / "trees.jsonl"),
        title="Demo: rollout trees",
        max_questions=MAX_QUESTIONS,
        headline=f"{before} \N{RIGHTWARDS ARROW} {after} success on held-out questions",
        facts=tuple(fact for fact in facts if fact[1]),
        charts=training_charts([run])[:1],
    )


def _ending(out: Path, page: Path, summary: dict[str, Any]) -> str:
    before, after = (f"{100 * summary[f'success_{name}']:.0f} %" for name in ("before", "after"))
    return (
        f"\nSuccess on held-out questions: {before} before, {after} after, "
        f"in {summary['seconds_total']:.0f} s.\n"
        f"  look at the trees   {page}\n"
        f"  replay the score    treegrpo leaderboard verify {out / 'bundle_after'}\n"
        f"  all files           {out}"
    )


def _times(seconds: dict[str, float], stages: Stages) -> dict[str, Any]:
    """Return the seconds of the phases of training, of the stages, and in all.

    A demo that was stopped counts all its calls, work that had to be done again included.
    """
    return {
        **{f"seconds_{name}": value for name, value in seconds.items()},
        "seconds_by_stage": dict(stages.seconds),
        "seconds_total": stages.total_seconds,
    }


def _numbers(
    before: EvaluationSummary,
    after: EvaluationSummary,
    rows: list[dict[str, Any]],
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
