"""rollout on a GPU: tokens a second of large models with random weights, against the bandwidth.

A token of every row takes at least the time in which the weights and the keys and values of all
rows are read once:

    t >= (W + KV) / bandwidth        bytes of the weights, of the KV at the mean context

Decoding alone is compared with that: the time for all tokens less the time for the first one,
which holds the prompts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks._rollout_engines import (
    Ids,
    Load,
    Row,
    Work,
    batch_once,
    generate_once,
    prompts,
    sample_once,
    stopless,
    timed_rows,
)
from benchmarks._training_model import QWEN_05B, QWEN_15B, build
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine

BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.04e12, "B200": 8.0e12}
"""Bytes a second, by part of the device's name."""
Say = Callable[[str], object]


@dataclass(frozen=True)
class GpuPlan:
    """What is measured; the device is a GPU but in tests."""

    configs: dict[str, Any]
    loads: Sequence[Load]
    repeats: int
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16


def full_plan(*, quick: bool, repeats: int) -> GpuPlan:
    """Return the plan for the GPU of this machine."""
    load = Load(new_tokens=32 if quick else 256)
    return GpuPlan(
        configs={"0.5B": QWEN_05B} if quick else {"0.5B": QWEN_05B, "1.5B": QWEN_15B},
        loads=[load] if quick else [load, replace(load, rows=256)],
        repeats=2 if quick else repeats,
    )


def measure_all(plan: GpuPlan, say: Say) -> list[Row]:
    """Return a row for every model, load and engine, printing each as it comes."""
    rows: list[Row] = []
    for name, config in plan.configs.items():
        model = stopless(build(config, plan.dtype, plan.device))
        for load in plan.loads:
            for row in _load_rows(model, load, plan):
                rows.append({"model": name, **row})
                say(_line(rows[-1]))
        del model
        gc.collect()
        if plan.device == "cuda":
            torch.cuda.empty_cache()
    return rows


def gpu_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return tokens a second, share of the bound and ratio to `generate`, by model and rows."""
    metrics: dict[str, float] = {}
    rates = {(row["model"], row["rows"], row["engine"]): _rate(row) for row in rows}
    for row in rows:
        name = f"gpu_{row['model']}_rows{row['rows']}_{row['engine']}"
        metrics[f"{name}_tokens_per_s"] = _rate(row)
        metrics[f"{name}_over_generate"] = _rate(row) / rates[row["model"], row["rows"], "generate"]
        if row["bound_share"] is not None:
            metrics[f"{name}_bound_share"] = row["bound_share"]
    return metrics


def token_bytes(model: Any, contexts: Sequence[int]) -> int:
    """Return the bytes that one token of every row has to read: weights once, and all KV."""
    config = model.config.get_text_config()
    weights = {id(one): one.numel() * one.element_size() for one in model.parameters()}
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    return sum(weights.values()) + sum(contexts) * numbers * model.dtype.itemsize


def _load_rows(model: Any, load: Load, plan: GpuPlan) -> list[Row]:
    asked = prompts(int(model.config.vocab_size), load)
    rows = timed_rows(_works(model, asked, load), plan.repeats, plan.device)
    first = timed_rows(_works(model, asked, replace(load, new_tokens=1)), plan.repeats, plan.device)
    least = _least_seconds(model, asked, load, plan.device)
    for row, one in zip(rows, first, strict=True):
        steps = load.new_tokens - 1
        decode = (median(row["seconds"]) - median(one["seconds"])) / steps
        row |= {
            "rows": load.rows,
            "first_seconds": one["seconds"],
            "decode_step_s": decode,
            "bound_step_s": least,
            "bound_share": None if least is None else least / decode,
        }
    return rows


def _works(model: Any, asked: Sequence[Ids], load: Load) -> dict[str, Work]:
    native = NativeEngine(model, max_rows=load.rows, max_context_tokens=load.longest)
    return {
        "native": partial(sample_once, native, asked, load),
        "hf": partial(sample_once, HFEngine(model), asked, load),
        "generate": partial(generate_once, model, asked, load.new_tokens),
        "continuous_batching": partial(batch_once, model, asked, load),
    }


def _least_seconds(model: Any, asked: Sequence[Ids], load: Load, device: str) -> float | None:
    """Return the seconds that a token of every row takes at least; None for unknown devices."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    speed = next((value for part, value in BANDWIDTH.items() if part in name), None)
    contexts = [len(ids) + load.new_tokens // 2 for ids in asked]
    return None if speed is None else token_bytes(model, contexts) / speed


def _rate(row: Row) -> float:
    return row["tokens"] / median(row["seconds"])


def _line(row: Row) -> str:
    share = row["bound_share"]
    told = "" if share is None else f", {100 * share:.0f} % of the bandwidth bound"
    return f"{row['model']}, {row['rows']} rows, {row['engine']}: {_rate(row):,.0f} tokens/s{told}"
