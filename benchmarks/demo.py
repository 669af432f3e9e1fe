"""How well does the demo's agent do after training, and how long does the demo take?

    python -m benchmarks.demo --json benchmarks/results/demo.json

Runs `treegrpo demo` in a fresh folder once per seed, as a user would, and reads summary.json.
`--quick` runs the one-minute version once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._record import write_record


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of the fast demo")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to SEEDS - 1")
    parser.add_argument("--algo", choices=("tree", "group"), default="tree")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    given = parser.parse_args()
    seeds = list(range(1 if given.quick else given.seeds))
    rows = [run_demo(seed, algo=given.algo, fast=given.quick) for seed in seeds]
    metrics = summarise(rows)
    Console().print(table(rows))
    if given.json:
        write_record(
            given.json,
            question=__doc__.splitlines()[0] if __doc__ else "",
            seeds=seeds,
            rows=rows,
            metrics=metrics,
            notes={"algo": given.algo, "fast": given.quick},
        )


def run_demo(seed: int, *, algo: str, fast: bool) -> dict[str, Any]:
    """Return the summary of one demo, run in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        words = ["--out", str(out), "--seed", str(seed), "--algo", algo]
        code = "from treegrpo.cli.main import main; main()"
        subprocess.run(
            [sys.executable, "-c", code, "demo", *words, *(["--fast"] if fast else [])],
            check=True,
            stdout=sys.stderr,
        )
        return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the flat metrics over the seeds; shares from 0 to 1, times in seconds."""
    return {
        "success_before_mean": fmean(row["success_before"] for row in rows),
        "success_after_mean": fmean(row["success_after"] for row in rows),
        "success_after_min": min(row["success_after"] for row in rows),
        "seconds_total_median": median(row["seconds_total"] for row in rows),
        "sharing_ratio_mean": fmean(row["sharing_ratio"] for row in rows),
        "max_abs_log_ratio": max(row["max_abs_log_ratio"] for row in rows),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Return what people read: one line per seed."""
    shown = Table("seed", "before", "after", "95 % interval", "tokens", "seconds")
    for row in rows:
        shown.add_row(
            str(row["seed"]),
            f"{row['success_before']:.2f}",
            f"{row['success_after']:.2f}",
            f"{row['success_after_low']:.2f} to {row['success_after_high']:.2f}",
            f"{row['sampled_tokens']:,}",
            f"{row['seconds_total']:.0f}",
        )
    return shown


if __name__ == "__main__":
    main()
