"""tree_training on a GPU: large models with random weights, each attention backend.

Per model and number of unique tokens one tree that shares 4 times, trained as one micro-batch:
seconds, MFU on unique tokens, peak memory and, of the packed layout, the block efficiency. Where
memory runs out, layers are computed again in the backward pass (the row says so); where it still
does, the row says that. Last the error of bfloat16 gradients, packed and flat, against float64.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks._training_measure import Row, interleaved
from benchmarks._training_model import QWEN_05B, QWEN_15B, build, in_float64
from benchmarks._training_paths import (
    BASELINES,
    Path,
    flat_paths,
    gradients,
    packed_path,
    set_old_logps,
    train,
    train_plainly,
)
from benchmarks._training_trees import Cell, grow
from treegrpo.attention import attention_names, tree_attention
from treegrpo.attention.flex import block_efficiency
from treegrpo.bound import Bound, ModelSizes, bound
from treegrpo.logprobs import FLAT
from treegrpo.pack import Weighted

SHARING = 4.0
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
"""Dense bfloat16, by part of the device's name, without sparsity."""
DENSE_TOKENS = 8_192
"""Longest row for the backend that holds the whole mask."""
Say = Callable[[str], object]


@dataclass(frozen=True)
class GpuPlan:
    """What is measured; the device is a GPU but in tests."""

    configs: dict[str, Any]
    sizes: Sequence[int]
    repeats: int
    error_tokens: int
    """Unique tokens of the tree on which gradients are compared; float64 is slow."""
    backends: Sequence[str]
    varlen: str
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    compile: bool = True


def why_not() -> str:
    """Return why nothing can be measured on a GPU here; how, where it can."""
    if torch.cuda.is_available():
        return "a run of its own: --device cuda"
    return "no CUDA device is visible to torch"


def full_plan(*, quick: bool, repeats: int) -> GpuPlan:
    """Return the plan for the GPU of this machine."""
    names = attention_names()
    return GpuPlan(
        configs={"0.5B": QWEN_05B} if quick else {"0.5B": QWEN_05B, "1.5B": QWEN_15B},
        sizes=(8_192,) if quick else (8_192, 16_384, 32_768, 65_536),
        repeats=2 if quick else repeats,
        error_tokens=512 if quick else 2_048,
        backends=names,
        varlen="varlen" if "varlen" in names else "segments",
        compile=not quick,
    )


def run(
    *, quick: bool, repeats: int, say: Say
) -> tuple[list[Row], dict[str, float], dict[str, Any]]:
    """Return rows, metrics and notes of all that is measured on the GPU."""
    plan = full_plan(quick=quick, repeats=repeats)
    rows = measure_all(plan, say)
    notes = {"plan": {**vars(plan), "configs": list(plan.configs), "dtype": str(plan.dtype)}}
    return rows, gpu_metrics(rows), notes


def measure_all(plan: GpuPlan, say: Say) -> list[Row]:
    """Return every row, printing each as it comes."""
    rows: list[Row] = []
    for name, config in plan.configs.items():
        model = build(config, plan.dtype, plan.device)
        if plan.compile:
            model.base_model.compile(dynamic=True)
        for size in plan.sizes:
            for row in _size_rows(model, plan, size):
                rows.append({"model": name, **row})
                say(_line(rows[-1]))
        del model
        _free(plan.device)
        for row in error_rows(config, plan):
            rows.append({"model": name, **row})
            say(_line(rows[-1]))
    return rows


def gpu_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the summary numbers, by model, size and backend."""
    metrics: dict[str, float] = {}
    timed = [row for row in rows if row.get("seconds")]
    for row in timed:
        name = f"gpu_{row['model']}_unique{row['unique_tokens']}_{row['path']}"
        metrics[f"{name}_s"] = median(row["seconds"])
        metrics[f"{name}_peak_gib"] = row["peak_bytes"] / 2**30
        if row["path"] in BASELINES:
            continue
        if row["mfu"] is not None:
            metrics[f"{name}_mfu"] = row["mfu"]
        metrics[f"{name}_block_efficiency"] = row["block_efficiency"]
        same = [
            median(flat["seconds"])
            for flat in timed
            if flat["path"] in BASELINES
            and (flat["model"], flat["unique_tokens"]) == (row["model"], row["unique_tokens"])
        ]
        if same:
            metrics[f"{name}_speedup"] = min(same) / median(row["seconds"])
            metrics[f"{name}_efficiency"] = metrics[f"{name}_speedup"] / row["limit"]
    for row in rows:
        if "error_ratio" in row:
            metrics[f"gpu_{row['model']}_{row['path']}_bf16_error_ratio"] = row["error_ratio"]
    return metrics


def error_rows(config: Any, plan: GpuPlan) -> Iterator[Row]:
    """Yield each path's gradient error in the plan's format, and its ratio to the flat one's.

    Errors are |gradient - float64| / |float64| over all parameters together.
    """
    tree = grow(Cell("balanced", SHARING, plan.error_tokens), config.vocab_size)
    model = build(config, plan.dtype, plan.device)
    set_old_logps(model, [tree])
    exact = in_float64(model)
    train_plainly(exact, [tree])
    wanted = gradients(exact)
    del exact
    _free(plan.device)
    whole = sum(float(g.square().sum()) for g in wanted.values()) ** 0.5
    flat_error = float("inf")
    for path in _paths(plan, plan.error_tokens):
        train(model, [tree], path, _longest(tree))
        found = gradients(model)
        squares = sum(float((found[name] - g).square().sum()) for name, g in wanted.items())
        error = squares**0.5 / whole
        if path.name in BASELINES:
            flat_error = min(flat_error, error)
            yield {"path": path.name, "grad_error": error}
        else:
            ratio = error / flat_error
            yield {"path": path.name, "grad_error": error, "error_ratio": ratio}


def _size_rows(model: Any, plan: GpuPlan, size: int) -> Iterator[Row]:
    tree = grow(Cell("trunk", SHARING, size), model.config.vocab_size)
    work = bound([tree.tree], ModelSizes.of(model))
    shared: Row = {
        "shape": "trunk",
        "sharing": SHARING,
        "unique_tokens": size,
        "sharing_ratio": work.sharing_ratio,
        "limit": work.limit,
    }
    ready: dict[str, Callable[[], float]] = {}
    facts: dict[str, Row] = {}
    for path in _paths(plan, size):
        found = _first_runs(model, tree, path, plan.device)
        facts[path.name] = found
        if "missing" in found:
            yield {**shared, "path": path.name, **found}
        else:
            ready[path.name] = _timer(model, tree, path, plan.device, recompute=found["recompute"])
    if not ready:
        return
    for name, seconds in interleaved(ready, plan.repeats).items():
        row: Row = {**shared, "path": name, "seconds": seconds, **facts[name]}
        if name not in BASELINES:
            row["mfu"] = _mfu(work, median(seconds), plan.device)
            row["block_efficiency"] = _layout_efficiency(model, tree)
        yield row


def _paths(plan: GpuPlan, size: int) -> list[Path]:
    fits = [name for name in plan.backends if name != "dense" or size <= DENSE_TOKENS]
    return [*flat_paths(plan.varlen), *(packed_path(name) for name in fits)]


def _first_runs(model: Any, tree: Weighted, path: Path, device: str) -> Row:
    """Return peak memory and whether layers had to be computed again; compiles and warms up."""
    for recompute in (False, True):
        try:
            timer = _timer(model, tree, path, device, recompute=recompute)
            timer()
            _reset_peak(device)
            timer()
        except torch.OutOfMemoryError:
            _free(device)
            continue
        return {"recompute": recompute, "peak_bytes": _peak(device)}
    return {"missing": "out of memory, also when layers are computed again"}


def _timer(
    model: Any, tree: Weighted, path: Path, device: str, *, recompute: bool
) -> Callable[[], float]:
    attention = path.prepare(model, [tree], _longest(tree)).attention

    def timed() -> float:
        model.zero_grad(set_to_none=True)
        _wait(device)
        started = time.perf_counter()
        with _recomputed(model, attention) if recompute else nullcontext():
            train(model, [tree], path, _longest(tree))
        _wait(device)
        return time.perf_counter() - started

    return timed


@contextmanager
def _recomputed(model: Any, attention: str) -> Generator[None]:
    """Compute layers again in the backward pass, with the attention of the forward pass."""
    with warnings.catch_warnings():
        # A new name from 5.23 on; under the old one it is there in every version we run on.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()  # it takes effect in training only; the models have no dropout
    try:
        with nullcontext() if attention == FLAT else tree_attention(model, attention):
            yield
    finally:
        model.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_disable()


def _longest(tree: Weighted) -> int:
    """Return the size of a micro-batch: the whole tree."""
    return tree.tree.unique_tokens


def _layout_efficiency(model: Any, tree: Weighted) -> float:
    ready = packed_path("dense").prepare(model, [tree], _longest(tree))
    return float(np.mean([block_efficiency(batch.layout) for batch in ready.batches]))


def _mfu(work: Bound, seconds: float, device: str) -> float | None:
    """Return the share of the device's peak that useful work on unique tokens reaches."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    return None if peak is None else work.tree_flops / (seconds * peak)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


def _line(row: Row) -> str:
    shown = {key: value for key, value in row.items() if key not in ("shape", "sharing")}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
