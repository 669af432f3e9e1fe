"""One run of tree_vs_chain: warm start, training to the token budget, held-out success.

Whatever is finished lies in a cache folder as one file per run, named by the setting's digest,
so an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers.utils import logging

from benchmarks._record import commit
from benchmarks._settings import (
    ALGORITHMS,
    Algorithm,
    Setting,
    build_warm_start,
    run_config,
)
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.digest import stable_seed
from treegrpo.rollout import Question, RolloutSettings, Scheduler
from treegrpo.runfolder import write_text
from treegrpo.trainer import StepReport, Trainer

Row = dict[str, Any]
_TOTALS = ("sampled_tokens", "tool_calls", "leaves", "flat_tokens", "unique_tokens")
_SECONDS = ("generation", "environment", "training", "step", "cpu")


def finished_runs(
    settings: list[Setting], seeds: list[int], cache: Path, workers: int
) -> Iterator[Row]:
    """Yield every run as soon as it is there; those in the cache come first.

    Runs of one setting and seed share a worker process, one after the other, and each process
    computes with one thread: their seconds can be compared.
    """
    code = commit()  # now: files may change while the workers go on with what they loaded
    jobs = [(setting, seed) for seed in seeds for setting in settings]
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin_worker
    ) as pool:
        futures = [pool.submit(both_runs, setting, seed, cache, code) for setting, seed in jobs]
        for future in as_completed(futures):
            yield from future.result()


def _begin_worker() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()


def both_runs(setting: Setting, seed: int, cache: Path, code: str) -> list[Row]:
    """Return the runs of all algorithms from one warm start; what is missing is run now.

    `code` is the commit that this process runs; it is noted with each new run.
    """
    folder = cache / f"{setting.name}-{setting.digest()}"
    rows: list[Row] = []
    for algorithm in ALGORITHMS:
        file = folder / f"{algorithm}-seed{seed}.json"
        if not file.exists():
            warm = _warm_start(setting, seed, folder)
            row = train_run(setting, algorithm, seed, warm)
            write_text(file, json.dumps({**row, "commit": code}) + "\n")
        rows.append(json.loads(file.read_text(encoding="utf-8")))
    return rows


def train_run(setting: Setting, algorithm: Algorithm, seed: int, warm: Path) -> Row:
    """Return one run: totals, and a point (spent so far, held-out success) per evaluation."""
    with tempfile.TemporaryDirectory() as out:
        config = run_config(setting, algorithm, seed, warm, Path(out) / "run")
        trainer = Trainer(config)
        log = _Log(trainer, setting, seed)
        log.evaluate()
        trainer.run(on_step=log.step)
        log.evaluate()
    totals = log.totals
    return {
        "setting": setting.name,
        "algorithm": algorithm,
        "seed": seed,
        "config": {name: getattr(config, name) for name in ("trunks", "forks", "rounds", "credit")},
        "success_start": log.points[0]["success"],
        "success_end": log.points[-1]["success"],
        "points": log.points,
        "training_success": log.training_success,
        "mixed_questions": fmean(log.mixed),
        "steps": len(log.mixed),
        **{name: totals[name] for name in _TOTALS},
        "sharing_ratio": totals["flat_tokens"] / totals["unique_tokens"],
        **{f"seconds_{name}": totals[name] for name in _SECONDS},
        "seconds_warm_start": float((warm / "seconds.txt").read_text(encoding="utf-8")),
    }


@dataclass
class _Log:
    """What a run has spent, and its held-out success along the way.

    `cpu` counts the processor seconds of the steps: other load on the machine hardly moves it.
    """

    trainer: Trainer
    setting: Setting
    seed: int
    totals: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys((*_TOTALS, *_SECONDS), 0)
    )
    points: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    training_success: list[float] = field(default_factory=list[float])
    mixed: list[float] = field(default_factory=list[float])
    cpu_mark: float = 0.0

    def step(self, report: StepReport) -> None:
        """Add up one training step; evaluate when the next share of the budget is spent."""
        for name in _TOTALS:
            self.totals[name] += report.metrics[name]
        for name, seconds in report.seconds.items():
            self.totals[name] += seconds
        self.totals["cpu"] += time.process_time() - self.cpu_mark
        self.training_success.append(report.metrics["success_rate"])
        self.mixed.append(report.metrics["mixed_questions"] / self.setting.questions)
        share = self.totals["sampled_tokens"] / self.setting.budget_tokens
        due = len(self.points)
        if due < self.setting.eval_points and share * self.setting.eval_points >= due:
            self.evaluate()
        self.cpu_mark = time.process_time()

    def evaluate(self) -> None:
        """Note the success on held-out tasks; the same tasks and draws every time."""
        spent = {name: self.totals[name] for name in ("sampled_tokens", "tool_calls")}
        success = held_out_success(self.trainer, self.setting, self.seed)
        self.points.append({**spent, "cpu_seconds": self.totals["cpu"], "success": success})
        self.cpu_mark = time.process_time()


def held_out_success(trainer: Trainer, setting: Setting, seed: int) -> float:
    """Return the share of held-out tasks that the trainer's policy solves, one try each."""
    config = trainer.config
    settings = RolloutSettings(
        trunks=1,
        forks=0,
        rounds=0,
        noise=config.noise,
        temperature=config.temperature,
        max_action_tokens=config.max_action_tokens,
        max_context_tokens=config.max_context_tokens,
    )
    engine = HFEngine(trainer.model)
    questions = [
        Question(
            stable_seed("held out", seed, number),
            {"split": "test", "index": number * setting.stride},
        )
        for number in range(setting.eval_tasks)
    ]
    grown = Scheduler(engine, trainer.chat, trainer.pool, settings).grow(questions)
    bar = trainer.pool.core.success_threshold
    # A question whose reset failed has no tree: it counts as not solved.
    solved = [tree.episode_reward(tree.leaves()[0]) >= bar for [tree] in grown.questions if tree]
    return sum(solved) / setting.eval_tasks


def _warm_start(setting: Setting, seed: int, folder: Path) -> Path:
    """Return the folder of the warm-started model; built unless it is there."""
    target = folder / f"warm-seed{seed}"
    if not target.exists():
        part = folder / f".warm-seed{seed}.part"
        shutil.rmtree(part, ignore_errors=True)
        started = time.perf_counter()
        build_warm_start(setting, seed, part)
        seconds = time.perf_counter() - started
        (part / "seconds.txt").write_text(f"{seconds}\n", encoding="utf-8")
        os.replace(part, target)
    return target
