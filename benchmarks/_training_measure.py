"""Times and gradients of the paths of tree_training, tree by tree.

Every repeat runs each path once, each time beginning with another: what the machine does
meanwhile meets all of them.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import torch

from benchmarks._training_model import in_float64
from benchmarks._training_paths import (
    AUTO,
    BASELINES,
    Path,
    gradients,
    set_old_logps,
    train,
    train_plainly,
    worst_relative,
)
from benchmarks._training_trees import Cell, grow
from benchmarks._trl import TrlTrainer, trl_rows
from treegrpo.bound import ModelSizes, bound
from treegrpo.pack import Weighted

Row: TypeAlias = dict[str, Any]
Timed: TypeAlias = Callable[[], float]
"""Does the work of one path once and returns its seconds."""

TRL = "trl"

DETAIL_TOKENS = 512
"""Trees of more unique tokens are timed on the trainer's choice and the flat paths alone: the
other backends, TRL and the check of every gradient in float64 take minutes each there."""


@dataclass(frozen=True)
class Bench:
    """What stays the same from tree to tree."""

    model: Any
    flat: Sequence[Path]
    packed: Sequence[Path]
    """The trainer's own choice among them, `AUTO`."""
    repeats: int
    max_tokens: int
    trl: TrlTrainer | None = None


@dataclass(frozen=True)
class CellSummary:
    """What a tree's rows come to."""

    cell: Cell
    limit: float
    medians: Mapping[str, float]
    """Seconds by path."""

    @property
    def best_flat(self) -> float:
        """Seconds of the faster of the flat paths."""
        return min(self.medians[name] for name in BASELINES)

    @property
    def speedup(self) -> float:
        """How many times faster than the best flat path the trainer's own choice is."""
        return self.best_flat / self.medians[AUTO]

    @property
    def efficiency(self) -> float:
        """Speed-up / its limit."""
        return self.speedup / self.limit


def measure(bench: Bench, cell: Cell) -> list[Row]:
    """Return a row of times for every path, and a row of each check of the gradients."""
    tree = grow(cell, bench.model.config.vocab_size)
    set_old_logps(bench.model, [tree])
    is_detailed = cell.unique_tokens <= DETAIL_TOKENS
    if not is_detailed:
        auto = next(path for path in bench.packed if path.name == AUTO)
        bench = dataclasses.replace(bench, packed=[auto], trl=None)
    checks = gradient_rows(bench, tree) if is_detailed else []
    for path in bench.packed:  # warms them up; the flat ones take minutes
        _seconds(bench, tree, path)
    work = bound([tree.tree], ModelSizes.of(bench.model))
    shared: Row = {
        "shape": cell.shape,
        "sharing": cell.sharing,
        "unique_tokens": work.unique_tokens,
        "flat_tokens": work.flat_tokens,
        "leaves": len(tree.credit),
        "sharing_ratio": work.sharing_ratio,
        "limit": work.limit,
    }
    seconds = interleaved(_timed(bench, tree), bench.repeats)
    ways = {path.name: _way(bench, tree, path) for path in (*bench.flat, *bench.packed)}
    times = [
        {**shared, "path": name, "attention": ways.get(name, "its own"), "seconds": found}
        for name, found in seconds.items()
    ]
    return [*times, *({**shared, **check} for check in checks)]


def interleaved(paths: Mapping[str, Timed], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each repeat by path."""
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    names = list(paths)
    gc.collect()
    gc.disable()
    try:
        for repeat in range(repeats):
            first = repeat % len(names)
            for name in [*names[first:], *names[:first]]:
                seconds[name].append(paths[name]())
    finally:
        gc.enable()
    return seconds


def gradient_rows(bench: Bench, tree: Weighted) -> list[Row]:
    """Return how far the gradients of each path are from the plain ones, by number format.

    Those of a float64 copy of the model against plain rows in float64, those of the model
    against plain rows in its own format; per parameter tensor, the worst of them.
    """
    rows: list[Row] = []
    for dtype, model in (
        ("float32", bench.model),
        ("float64", in_float64(bench.model)),
    ):
        loss = train_plainly(model, [tree])
        wanted = gradients(model)
        for path in (*bench.flat, *bench.packed):
            found = train(model, [tree], path, bench.max_tokens)
            rows.append(
                {
                    "check": dtype,
                    "path": path.name,
                    "grad_rel": worst_relative(gradients(model), wanted),
                    "loss_rel": abs(found - loss) / abs(loss),
                }
            )
    if bench.trl is not None:
        rows.append(_trl_check(bench, tree))
    return rows


def summarise(rows: Sequence[Row]) -> list[CellSummary]:
    """Return the medians of each tree, in the order of the rows."""
    found: dict[Cell, dict[str, float]] = {}
    limits: dict[Cell, float] = {}
    for row in rows:
        if "seconds" in row:
            cell = Cell(row["shape"], row["sharing"], row["unique_tokens"])
            found.setdefault(cell, {})[row["path"]] = median(row["seconds"])
            limits[cell] = row["limit"]
    return [CellSummary(cell, limits[cell], found[cell]) for cell in found]


def _timed(bench: Bench, tree: Weighted) -> dict[str, Timed]:
    timed: dict[str, Timed] = {
        path.name: partial(_seconds, bench, tree, path) for path in (*bench.flat, *bench.packed)
    }
    trl, sent = bench.trl, trl_rows([tree])
    if trl is not None:
        timed[TRL] = lambda: trl.train(sent, bench.max_tokens)["seconds"]
    return timed


def _way(bench: Bench, tree: Weighted, path: Path) -> str:
    """Return the attention of a path on this tree; that of `AUTO` depends on the tree."""
    return path.prepare(bench.model, [tree], bench.max_tokens).attention


def _seconds(bench: Bench, tree: Weighted, path: Path) -> float:
    bench.model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    train(bench.model, [tree], path, bench.max_tokens)
    return time.perf_counter() - started


def _trl_check(bench: Bench, tree: Weighted) -> Row:
    """Return TRL's loss and gradient norm against those of plain rows: that it does our work."""
    assert bench.trl is not None
    loss = train_plainly(bench.model, [tree])
    squares = [float(g.square().sum()) for g in gradients(bench.model).values()]
    norm = torch.tensor(squares).sum().sqrt().item()
    answer = bench.trl.train(trl_rows([tree]), bench.max_tokens)
    return {
        "check": "trl",
        "path": TRL,
        "grad_norm_rel": abs(answer["grad_norm"] - norm) / norm,
        "loss_rel": abs(answer["loss"] - loss) / abs(loss),
    }
