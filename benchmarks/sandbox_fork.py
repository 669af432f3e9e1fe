"""How long does a fork of live memory and files take, and what do other ways to it take?

    python -m benchmarks.sandbox_fork [--quick] [--json FILE]

Forks, steps, trees and memory of the process backend against their targets, in the same run with
docker commit and run, replay from the root, copytree with a fresh interpreter, and Sandlock's
clones. What is not installed says so. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from treegrpo.sandboxes import BACKENDS, open_backend
from treegrpo.sandboxes.bench import FULL, QUICK, BenchReport, TargetRow, run_bench

QUESTION = "How long does a fork of live memory and files take, and what do other ways to it take?"


def main(words: Sequence[str] | None = None) -> None:
    """Measure everything, print the tables, write the record and the picture."""
    options = _parse(words)
    console = Console(width=110)
    with open_backend(options.backend) as backend:
        report = run_bench(
            backend,
            options.quick,
            compare=True,
            image=options.image,
            progress=lambda name: console.print(f"[dim]measuring {name}[/dim]"),
        )
    show(report, console)
    if options.json is not None:
        write(report, options.json, quick=options.quick)


def show(report: BenchReport, console: Console) -> None:
    """Print the targets with this host's numbers, then every latency, ours and others'."""
    title = f"{report.backend} backend, level L{report.level}: targets for 2 vCPUs"
    targets = Table("metric", "here", "target", "met", title=title, title_justify="left")
    for row in report.rows():
        targets.add_row(row.metric, *_cells(row))
    console.print(targets)
    times = Table("", "runs", "p50 ms", "p99 ms", title="latencies", title_justify="left")
    for one in report.measurements:
        p50, p99 = (one.metrics.get(f"{one.name}_{q}_ms") for q in ("p50", "p99"))
        if p50 is not None and p99 is not None:
            times.add_row(one.name, str(len(one.values)), f"{p50:,.2f}", f"{p99:,.2f}")
    console.print(times)
    for name, why in report.missing.items():
        console.print(f"  {name} was not measured: {why}", highlight=False, markup=False)
    shown = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in report.before.items())
    console.print(f"  before: {shown}; load after: {report.after['load']}", markup=False)


def write(report: BenchReport, path: Path, *, quick: bool) -> None:
    """Write the record, and of a full run the picture beside it."""
    # They load torch and matplotlib, whose threads and memory are kept out of what is measured.
    from benchmarks._latency_figure import draw
    from benchmarks._record import write_record

    write_record(
        path,
        question=QUESTION,
        seeds=[0],
        rows=[dataclasses.asdict(one) for one in report.measurements],
        metrics=report.metrics,
        notes={
            "backend": report.backend,
            "level": report.level,
            "counts": dataclasses.asdict(QUICK if quick else FULL),
            "conditions": {"before": dict(report.before), "after": dict(report.after)},
            "targets": [dataclasses.asdict(row) for row in report.rows()],
            "missed": [row.metric for row in report.rows() if row.met is False],
            "not_measured": report.missing,
        },
    )
    if not quick:
        draw(report.measurements, path.with_suffix(".png"))


def _cells(row: TargetRow) -> tuple[str, str, str]:
    here = "-" if row.value is None else f"{row.value:,.2f}"
    met = {None: "not measured", True: "yes", False: "MISSED"}[row.met]
    return here, f"{'>=' if row.at_least else '<='} {row.target:,g}", met


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, few repeats")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    parser.add_argument("--backend", choices=BACKENDS, default="process")
    parser.add_argument(
        "--image", default="treegrpo-sandbox:test", help="for docker commit and run"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
