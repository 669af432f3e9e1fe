"""Does a start along an oracle's way teach a task that the policy next to never solves?

    python -m benchmarks.start_states [--quick] [--json FILE]

A corridor of 12 rooms, each with a sign for which one word is right; a single wrong word loses
the episode, and the policy solves about 1 in 1,000. Trained twice per seed from one model, with
trees as the trainer's defaults grow them: begun at reset, or half of the questions begun along
the oracle's way until the policy solves more than 5 % by itself. Success is measured from reset.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._record import write_record
from benchmarks._start_figure import draw
from benchmarks._start_runs import ARMS, FULL, Row, finished_runs
from benchmarks._start_summary import (
    flat_metrics,
    oracle_minus_reset,
    over_seeds,
    reset_at_half,
    select,
    tokens_to_half,
)
from treegrpo.leaderboards.stats import UNIT, Interval, clustered_interval

QUESTION = "Does a start along an oracle's way teach a task that the policy next to never solves?"
QUICK = dataclasses.replace(
    FULL,
    demonstrations=200,
    budget_tokens=3_000,
    eval_tasks=20,
    end_tasks=20,
    eval_points=2,
    exact_tasks=20,
)
"""Next to no training: the same measures, no answer."""


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table, write the record and the picture."""
    options = _parse(words)
    setting, seeds = (QUICK, [0]) if options.quick else (FULL, list(range(options.seeds)))
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) if options.quick else options.cache
        rows: list[Row] = []
        for row in finished_runs(setting, seeds, cache):
            rows.append(row)
            console.print(_line(row), highlight=False)
    show(rows, console)
    if options.json is not None:
        notes = {
            # Runs from the cache may be older than the checkout as it is now.
            "commit": ", ".join(sorted({row["commit"] for row in rows})),
            "setting": dataclasses.asdict(setting),
        }
        metrics = flat_metrics(rows)
        write_record(
            options.json, question=QUESTION, seeds=seeds, rows=rows, metrics=metrics, notes=notes
        )
        if not options.quick:
            draw(rows, options.json.with_suffix(".png"))


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a column for each arm, then the difference between the two."""
    seeds = len(select(rows, "reset"))
    title = f"success from reset: means over {seeds} seeds, 95 % t intervals over seeds"
    table = Table("", *ARMS, title=title, title_justify="left")
    for label, *cells in _lines(rows):
        table.add_row(label, *cells)
    console.print(table)
    if at_half := reset_at_half(rows):
        reset = _rate(clustered_interval(at_half, bounds=UNIT))
        console.print(f"  reset, where oracle_prefix had come to a half: {reset}", highlight=False)
    difference = oracle_minus_reset(rows).difference
    console.print(f"  oracle_prefix - reset, success at the end: {difference}", highlight=False)


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table's lines: label, and a cell for each arm."""
    pair = [select(rows, arm) for arm in ARMS]

    def mean(name: str) -> list[str]:
        return [f"{sum(row[name] for row in runs) / len(runs):,.0f}" for runs in pair]

    halves = [[tokens_to_half(row) for row in runs] for runs in pair]
    return [
        ["success of the warm start", *(_rate(over_seeds(r, "success", at=0)) for r in pair)],
        ["its chance of success", *(_rate(over_seeds(r, "chance", at=0)) for r in pair)],
        ["success at the end", *(_rate(over_seeds(r, "success")) for r in pair)],
        ["chance of success at the end", *(_rate(over_seeds(r, "chance")) for r in pair)],
        ["sampled tokens to a half, by seed", *(_tokens(found) for found in halves)],
        ["sampled tokens", *mean("sampled_tokens")],
        ["training steps", *mean("steps")],
        ["leaves", *mean("leaves_in_training")],
        ["solved leaves", *mean("solved_in_training")],
        ["seconds of all steps", *mean("seconds")],
    ]


def _rate(found: Interval) -> str:
    """Return four digits: the rates of one arm are near 0."""
    if found.low is None or found.high is None:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _tokens(found: Sequence[float | None]) -> str:
    return ", ".join("never" if tokens is None else f"{tokens / 1e3:.0f}k" for tokens in found)


def _line(row: Row) -> str:
    ends = f"{row['success_start']:.4f} -> {row['success_end']:.4f}"
    return f"{row['arm']} seed {row['seed']}: success {ends}, {row['seconds']:.0f} s of steps"


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, next to no training")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1 (default 5)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/benchmarks/start_states"),
        help="finished runs lie here and are not run again",
    )
    options = parser.parse_args(words)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    return options


if __name__ == "__main__":
    main()
