"""Do rollout trees learn more than chains from the same number of sampled tokens?

    python -m benchmarks.tree_vs_chain [--quick] [--json FILE]

Chain GRPO (group credit, no forks) against Tree-GRPO ((M, N, L) = (4, 2, 1), intra + inter
credit): per seed one warm-started model for both, the same budget of sampled tokens, the same
held-out tasks. Two settings: "search", the demo's short episodes, and "sql-long", long ones in
which every change is final.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._figure import draw
from benchmarks._record import write_record
from benchmarks._runs import Row, finished_runs
from benchmarks._settings import SETTINGS, Setting
from benchmarks._summary import AXES, flat_metrics, over_seeds, select, tree_minus_chain
from treegrpo.leaderboards.stats import Interval, PairedDifference

QUESTION = "Do rollout trees learn more than chains from the same number of sampled tokens?"
QUICK: dict[str, dict[str, int]] = {
    "search": {"layers": 2, "demonstrations": 320, "budget_tokens": 1_500, "questions": 4},
    "sql-long": {"demonstrations": 96, "budget_tokens": 3_000, "questions": 2},
}


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, print the tables, write the record and the picture."""
    options = _parse(words)
    settings = [SETTINGS[name] for name in options.settings]
    seeds = list(range(options.seeds))
    if options.quick:
        settings, seeds = [quick(setting) for setting in settings], [0]
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) if options.quick else options.cache
        rows = _collect(settings, seeds, cache, options.workers, console)
    show(rows, console)
    if options.json is not None:
        notes = {
            # Runs from the cache may be older than the checkout as it is now.
            "commit": ", ".join(sorted({row["commit"] for row in rows})),
            "settings": {s.name: dataclasses.asdict(s) for s in settings},
        }
        write_record(
            options.json,
            question=QUESTION,
            seeds=seeds,
            rows=rows,
            metrics=flat_metrics(rows),
            notes=notes,
        )
        if not options.quick:
            draw(rows, options.json.with_suffix(".png"))


def quick(setting: Setting) -> Setting:
    """Return the setting with next to no training: the same measures, no answer."""
    return dataclasses.replace(setting, eval_tasks=20, eval_points=2, **QUICK[setting.name])


def show(rows: Sequence[Row], console: Console) -> None:
    """Print per setting a row for each algorithm, then the differences between the two."""
    for setting in sorted({row["setting"] for row in rows}):
        seeds = len(select(rows, setting, "tree"))
        title = f"{setting}: means over {seeds} seeds, 95 % t intervals over seeds"
        table = Table("", "chain", "tree", title=title, title_justify="left")
        for label, *cells in _lines(rows, setting):
            table.add_row(label, *cells)
        console.print(table)
        for measure, words in _DIFFERENCES.items():
            paired = tree_minus_chain(rows, setting, measure)
            console.print(f"  tree - chain, {words}: {_difference(paired)}", highlight=False)
        console.print()


_DIFFERENCES: dict[Any, str] = {
    **{axis: f"success at equal {axis.replace('_', ' ').replace('cpu', 'CPU')}" for axis in AXES},
    "area": "area under success against sampled tokens",
}


def _lines(rows: Sequence[Row], setting: str) -> list[list[str]]:
    """Return the table's lines: label, chain, tree."""
    pair = [select(rows, setting, algorithm) for algorithm in ("chain", "tree")]

    def mean(name: str, digits: int) -> list[str]:
        return [f"{math.fsum(r[name] for r in runs) / len(runs):,.{digits}f}" for runs in pair]

    return [
        ["success of the warm start", *(_interval(over_seeds(p, "success_start")) for p in pair)],
        ["success at the end", *(_interval(over_seeds(p, "success_end")) for p in pair)],
        ["sampled tokens", *mean("sampled_tokens", 0)],
        ["tool calls", *mean("tool_calls", 0)],
        ["training steps", *mean("steps", 1)],
        ["leaves (scored episodes)", *mean("leaves", 0)],
        ["questions with mixed outcomes", *mean("mixed_questions", 3)],
        ["sharing ratio", *mean("sharing_ratio", 3)],
        ["seconds in generation", *mean("seconds_generation", 1)],
        ["seconds in the environment", *mean("seconds_environment", 1)],
        ["seconds in training", *mean("seconds_training", 1)],
        ["seconds of all steps", *mean("seconds_step", 1)],
        ["CPU seconds of all steps", *mean("seconds_cpu", 1)],
    ]


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _difference(paired: PairedDifference) -> str:
    found = paired.difference
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f} (one seed: no interval)"
    p_value = "" if paired.p_value is None else f", p = {paired.p_value:.2f}"
    wins = f"tree ahead in {paired.wins} of {found.num_tasks} seeds"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{p_value}; {wins}"


def _collect(
    settings: list[Setting], seeds: list[int], cache: Path, workers: int, console: Console
) -> list[Row]:
    # The longer job of a seed first: no worker is left alone with one at the end.
    order = sorted(settings, key=lambda setting: -setting.budget_tokens)
    rows: list[Row] = []
    for row in finished_runs(order, seeds, cache, workers):
        rows.append(row)
        console.print(
            f"{row['setting']} {row['algorithm']} seed {row['seed']}: success "
            f"{row['success_start']:.3f} -> {row['success_end']:.3f}, "
            f"{row['seconds_step']:.0f} s of steps",
            highlight=False,
        )
    return sorted(rows, key=lambda row: (row["setting"], row["seed"], row["algorithm"]))


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, next to no training")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1 (default 5)")
    parser.add_argument("--settings", nargs="+", choices=[*SETTINGS], default=[*SETTINGS])
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/benchmarks/tree_vs_chain"),
        help="finished runs lie here and are not run again",
    )
    options = parser.parse_args(words)
    if options.seeds < 1 or options.workers < 1:
        parser.error("--seeds and --workers must be at least 1")
    return options


if __name__ == "__main__":
    main()
