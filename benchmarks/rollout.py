"""Do trees grow at the speed of chains, and what do the parts cost?

    python -m benchmarks.rollout [--quick] [--json FILE]
    python -m benchmarks.rollout --device cuda --json FILE

Seconds to grow trees and chains of equally many leaves while environments are slow at times, with
barriers and without; tokens computed over unique tokens; the time of a fork of KV; sampled tokens
a second of our engines, of the library's `generate` and continuous batching, and of a vLLM
server. On a GPU: tokens a second of models of 0.5B and 1.5B parameters in bfloat16, against the
memory's bandwidth. docs/rollouts.md explains. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks import _rollout_gpu as gpu
from benchmarks import _rollout_vllm as vllm
from benchmarks._record import write_record
from benchmarks._rollout_engines import Load, rate_metrics, rates, stopless
from benchmarks._rollout_env import Latency, make_latency
from benchmarks._rollout_figure import draw
from benchmarks._rollout_kv import (
    Row,
    fork_metrics,
    fork_rows,
    prefill_metrics,
    prefill_row,
)
from benchmarks._rollout_wall import ARMS, WallPlan, wall_metrics, wall_rows
from benchmarks._training_gpu import why_not
from benchmarks._training_model import SCRATCH_10M, build
from treegrpo.chat import ChatFormat
from treegrpo.cli.demo import ENV_ID, FULL
from treegrpo.cli.demo_model import build_warm_model
from treegrpo.engine.base import Engine, EngineRefused
from treegrpo.envs import make
from treegrpo.loading import load_model
from treegrpo.tiny import build_model, build_tokenizer

QUESTION = "Do trees grow at the speed of chains, and what do the parts cost?"
WORDS = "Where is the key? Nobody knows. That took ms. assistant user tool"
VOCABULARY = 150
"""Words of the tokenizer: about as many as the demo's."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    wall: WallPlan
    load: Load
    repeats: int
    forks: int
    demonstrations: int
    """That the model is warm-started on whose trees are grown in the demo's environment."""
    searches: int
    """Questions grown there."""
    has_servers: bool = True


@dataclass
class Found:
    """Raw rows by part, and what could not be measured."""

    wall: list[Row] = field(default_factory=list[Row])
    prefill: list[Row] = field(default_factory=list[Row])
    forks: list[Row] = field(default_factory=list[Row])
    rates: list[Row] = field(default_factory=list[Row])
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def metrics(self) -> dict[str, float]:
        """Return the summary numbers of all parts."""
        return {
            **wall_metrics(self.wall),
            **prefill_metrics(self.prefill),
            **fork_metrics(self.forks),
            **rate_metrics(self.rates),
        }

    def rows(self) -> list[Row]:
        """Return all raw rows, each with its part."""
        parts = {name: rows for name, rows in vars(self).items() if name != "missing"}
        return [{"part": name, **row} for name, rows in parts.items() for row in rows]


def plan_of(*, quick: bool, repeats: int) -> Plan:
    """Return the plan: the full one, or one that takes less than 45 s and answers nothing."""
    if not quick:
        return Plan(WallPlan(repeats=repeats), Load(), repeats, 2_000, 1_600, FULL.questions)
    latency = Latency(mean_s=0.02, slow_s=0.2)
    wall = WallPlan(questions=2, repeats=1, turns=3, action_tokens=8, latency=latency)
    load = Load(rows=16, prompt_tokens=32, new_tokens=8, turns=2, turn_sampled=4)
    return Plan(wall, load, 1, 200, 150, 2, has_servers=False)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the record and the picture."""
    options = _parse(words)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    console = Console(width=110)
    if options.device == "cuda":
        plan = gpu.full_plan(quick=options.quick, repeats=options.repeats)
        rows = gpu.measure_all(plan, console.print)
        _write(options, rows, gpu.gpu_metrics(rows), {})
        return
    plan = plan_of(quick=options.quick, repeats=options.repeats)
    found = measure(plan, lambda text: console.print(f"[dim]{text}[/dim]"))
    show(found, console)
    _write(options, found.rows(), found.metrics(), found.missing)
    if options.json is not None:
        draw(found.wall, found.rates, options.json.with_suffix(".png"))


def measure(plan: Plan, say: Callable[[str], object]) -> Found:
    """Return everything that can be measured on the CPU."""
    found = Found(missing={"gpu": why_not()})
    tokenizer = build_tokenizer([f"w{n}" for n in range(VOCABULARY)] + [WORDS])
    demo = stopless(build_model(len(tokenizer)))
    chat = ChatFormat(tokenizer)
    say("trees and chains")
    found.wall = wall_rows(demo, chat, plan.wall)
    say("computed and unique tokens")
    found.prefill = _prefill_rows(demo, chat, plan)
    say("forks")
    found.forks = fork_rows(demo, plan.forks)
    for name, model in (("demo", demo), ("10m", stopless(build(SCRATCH_10M)))):
        say(f"tokens a second, model {name}")
        found.rates += _rates(name, model, plan, found.missing)
    return found


def show(found: Found, console: Console) -> None:
    """Print the tables, and what was not measured."""
    metrics = found.metrics()
    table = Table("arm", "seconds", "environments alone", "decode fill", "waiting", title="walls")
    for arm in ARMS:
        keys = ("wall_s", "critical_s", "fill", "waiting_share")
        table.add_row(arm.name, *(f"{metrics[f'{key}_{arm.name}']:.2f}" for key in keys))
    console.print(table)
    told = {key for arm in ARMS for key in metrics if key.endswith(f"_{arm.name}")}
    for name, number in metrics.items():
        if name not in told:
            console.print(f"  {name}: {number:,.4g}", highlight=False)
    for name, why in found.missing.items():
        console.print(f"  {name} was not measured: {why}", highlight=False, markup=False)


def _prefill_rows(demo: Any, chat: ChatFormat, plan: Plan) -> list[Row]:
    """Return a row of trees in the slow environment, and one of trees in the demo's."""
    quiet = replace(plan.wall.latency, mean_s=0.0, slow_s=0.0)
    turns, tokens = plan.wall.turns, plan.wall.action_tokens
    slow = make_latency(turns, 0, quiet)
    sizes = {"action_tokens": tokens, "seed": 0}
    rows = [prefill_row(demo, chat, slow, questions=plan.wall.questions, **sizes)]
    with tempfile.TemporaryDirectory() as name:
        warm = replace(FULL, demonstrations=plan.demonstrations)
        folder = Path(name) / "model"
        build_warm_model(folder, warm, 0, lambda done, total: None)
        model, tokenizer = load_model(str(folder), device="cpu")
        search = make(ENV_ID)
        rows.append(
            prefill_row(model, ChatFormat(tokenizer), search, questions=plan.searches, **sizes)
        )
    return [{"env": env, **row} for env, row in zip(("latency", "search"), rows, strict=True)]


def _rates(name: str, model: Any, plan: Plan, missing: dict[str, str]) -> list[Row]:
    """Return the rows of one model; without a server, `missing` says why."""
    others: dict[str, Engine] = {}
    with ExitStack() as stack:
        reason = vllm.why_not() if plan.has_servers else "its server is started in full runs only"
        if reason is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            load = plan.load
            try:
                others["vllm"] = stack.enter_context(
                    vllm.vllm_engine(model, folder, load.rows, load.longest)
                )
            except (RuntimeError, EngineRefused) as error:  # the others are measured without it
                reason = str(error)
        if reason is not None:
            missing["vllm" if name == "demo" else f"vllm_{name}"] = reason
        return [{"model": name, **row} for row in rates(model, others, plan.load, plan.repeats)]


def _write(
    options: argparse.Namespace,
    rows: Sequence[Row],
    metrics: dict[str, float],
    missing: dict[str, str],
) -> None:
    if options.json is None:
        return
    notes = {"threads": torch.get_num_threads(), "quick": options.quick, "not_measured": missing}
    write_record(
        options.json,
        question=QUESTION,
        seeds=sorted({row.get("repeat", 0) for row in rows}),
        rows=rows,
        metrics=metrics,
        notes=notes,
    )


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="small, one repeat; no vLLM server")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each arm (default 7)")
    options = parser.parse_args(words)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda asked for, but {why_not()}. Leave it out for the CPU.")
    return options


if __name__ == "__main__":
    main()
