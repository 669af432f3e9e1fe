"""How much of the possible speed-up does training the tree instead of its leaves reach?

    python -m benchmarks.tree_training [--quick] [--json FILE] [--trl-python PYTHON]
    python -m benchmarks.tree_training --device cuda --json FILE

Forward and backward over trees of 512 to 4,096 unique tokens that share 2, 4 and 8 times, packed
and flat (padded rows, and rows without padding), a model of 10M parameters, same run. The
efficiency is the speed-up over the faster flat path / its limit S* (docs/training_limit.md).
With --trl-python also TRL's trainer on the same rows. On a GPU: models of 0.5B and 1.5B
parameters in bfloat16. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import _training_gpu as gpu
from benchmarks._record import write_record
from benchmarks._training_figure import draw, draw_limits
from benchmarks._training_measure import TRL, Bench, CellSummary, Row, measure, summarise
from benchmarks._training_model import build_10m
from benchmarks._training_paths import AUTO, auto_path, flat_paths, packed_path
from benchmarks._training_trees import Cell, cells
from benchmarks._trl import trl_trainer
from treegrpo.learner import BACKENDS

QUESTION = "How much of the possible speed-up does training the tree reach?"
SHARINGS = (2.0, 4.0, 8.0)
SIZES = (512, 1024, 2048, 4096)
LITTLE_SHARED = (Cell("group", 1.1, 512), Cell("balanced", 1.2, 512), Cell("group", 1.1, 2048))
"""Trees for which packing hardly pays or not at all: there the trainer must train flat."""
QUICK_SIZES = (128,)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the record and the pictures."""
    options = _parse(words)
    console = Console(width=110)
    if options.device == "cuda":
        rows, metrics, notes = gpu.run(
            quick=options.quick, repeats=options.repeats, say=console.print
        )
    else:
        rows, metrics, notes = _run_cpu(options, console)
    if options.json is None:
        return
    _write(options, rows, metrics, notes)
    if not options.quick and options.device == "cpu":
        draw(summarise(rows), options.json.with_suffix(".png"))
        draw_limits(options.json.with_name(f"{options.json.stem}_limit.png"))


def _write(
    options: argparse.Namespace, rows: list[Row], metrics: dict[str, float], notes: dict[str, Any]
) -> None:
    write_record(
        options.json, question=QUESTION, seeds=[0], rows=rows, metrics=metrics, notes=notes
    )


def show(summaries: Sequence[CellSummary], console: Console) -> None:
    """Print a line for every tree."""
    title = (
        "tree: shape, sharing, unique tokens; seconds: medians; speed-up over the faster flat path"
    )
    paths = list(dict.fromkeys(name for one in summaries for name in one.medians))
    table = Table("tree", *paths, "speed-up", "limit", "efficiency", title=title)
    table.title_justify = "left"
    for one in summaries:
        seconds = [f"{one.medians[name]:.3f}" if name in one.medians else "-" for name in paths]
        ends = (f"{one.speedup:.2f}", f"{one.limit:.2f}", f"{one.efficiency:.2f}")
        table.add_row(_label(one.cell), *seconds, *ends)
    console.print(table)


def _label(cell: Cell) -> str:
    return f"{cell.shape} x{cell.sharing:g}, {cell.unique_tokens}"


def flat_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the summary numbers; without a size in its name one is the worst over sizes."""
    metrics: dict[str, float] = {}
    summaries = summarise(rows)
    for sharing in SHARINGS:
        found = [one for one in summaries if one.cell.sharing == sharing]
        name = f"sharing{sharing:g}"
        for one in found:
            size = f"{name}_unique{one.cell.unique_tokens}"
            metrics[f"efficiency_{size}"] = one.efficiency
            metrics[f"speedup_{size}"] = one.speedup
        if found:
            metrics[f"efficiency_{name}"] = min(one.efficiency for one in found)
            metrics[f"speedup_{name}"] = min(one.speedup for one in found)
            metrics |= _against_trl(name, found)
    metrics["auto_speedup_worst"] = min(one.speedup for one in summaries)
    for dtype in ("float32", "float64"):
        errors = [row["grad_rel"] for row in rows if row.get("check") == dtype]
        metrics[f"worst_grad_rel_{dtype}"] = max(errors)
    return metrics


def _against_trl(name: str, found: Sequence[CellSummary]) -> dict[str, float]:
    ratios = [one.medians[TRL] / one.medians[AUTO] for one in found if TRL in one.medians]
    return {f"speedup_over_trl_{name}": min(ratios)} if ratios else {}


def _run_cpu(
    options: argparse.Namespace, console: Console
) -> tuple[list[Row], dict[str, float], dict[str, Any]]:
    model = build_10m()
    backends = BACKENDS["cpu"]
    bench = Bench(
        model,
        flat_paths(varlen="segments"),
        [*(packed_path(name) for name in backends), auto_path(backends)],
        2 if options.quick else options.repeats,
        options.max_tokens,
    )
    sizes = QUICK_SIZES if options.quick else SIZES
    trees = [dataclasses.replace(LITTLE_SHARED[0], unique_tokens=128)]
    trees = trees if options.quick else list(LITTLE_SHARED)
    # The longest last: what is done stays in the record of a run that is stopped.
    trees = sorted([*cells(SHARINGS, sizes), *trees], key=lambda c: c.sharing * c.unique_tokens)
    missing = {"gpu": gpu.why_not()}
    rows: list[Row] = []
    with ExitStack() as stack:
        if options.trl_python is None:
            missing["trl"] = "no interpreter with trl given (--trl-python)"
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            trl = stack.enter_context(trl_trainer(options.trl_python, model, folder))
            bench = dataclasses.replace(bench, trl=trl)
        for number, cell in enumerate(trees):
            console.print(f"[dim]{number + 1} of {len(trees)}: {cell.name}[/dim]")
            rows += measure(bench, cell)
            if options.json is not None:
                left = [one.name for one in trees[number + 1 :]]
                notes = {**_notes(options, bench, missing), "trees_left": left}
                _write(options, rows, flat_metrics(rows), notes)
    show(summarise(rows), console)
    metrics = flat_metrics(rows)
    for name, number in metrics.items():
        console.print(f"  {name}: {number:.3g}", highlight=False)
    for name, why in missing.items():
        console.print(f"  {name} was not measured: {why}", highlight=False, markup=False)
    return rows, metrics, _notes(options, bench, missing)


def _notes(options: argparse.Namespace, bench: Bench, missing: dict[str, str]) -> dict[str, Any]:
    return {
        "max_tokens": options.max_tokens,
        "threads": torch.get_num_threads(),
        "trl": None if bench.trl is None else bench.trl.versions,
        "not_measured": missing,
    }


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="small trees, two repeats")
    parser.add_argument("--json", type=Path, help="write the record here, the pictures beside it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each path (default 5)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="of a micro-batch, padded")
    parser.add_argument("--trl-python", type=Path, help="interpreter of an environment with trl")
    options = parser.parse_args(words)
    if options.repeats < 1 or options.max_tokens < 1:
        parser.error("--repeats and --max-tokens must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda asked for, but {gpu.why_not()}. Leave it out for the CPU.")
    return options


if __name__ == "__main__":
    main()
