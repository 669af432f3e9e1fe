"""treegrpo demo: from nothing to a trained agent, its score, and pictures of its trees.

Stages, each kept in the run folder so that a killed demo goes on where it was:
build and warm-start a tiny model -> evaluate -> train on rollout trees -> evaluate ->
verify both by replay -> leaderboard row -> page of trees -> summary.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from treegrpo.cli.progress import TrainingProgress, stage
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest

ENV_ID = "treegrpo/SearchQA-v0"
ALGOS = ("tree", "group")

Out = Annotated[Path, typer.Option(help="Run folder; an earlier finished demo there is kept as DIR.1.")]
Fast = Annotated[bool, typer.Option("--fast", help="A one-minute version of the same path.")]
Algo = Annotated[str, typer.Option(help="tree: Tree-GRPO; group: chains with the same tokens.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides everything.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of torch.")]


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; `FULL` takes about four minutes on 2 cores, `FAST` about one."""

    layers: int
    demonstrations: int
    steps: int
    eval_tasks: int
    lr: float
    mix_up: float = 0.65
    stop_early: float = 0.25
    questions: int = 14


FULL = DemoSettings(layers=4, demonstrations=6400, steps=50, eval_tasks=300, lr=4e-4)
FAST = DemoSettings(layers=2, demonstrations=3200, steps=16, eval_tasks=120, lr=6e-4)


def demo_command(
    out: Out = Path("runs/demo"),
    fast: Fast = False,
    algo: Algo = "tree",
    seed: Seed = 0,
    threads: Threads = os.cpu_count() or 1,
) -> None:
    """Train a tiny agent from nothing on this machine, and score it on unseen worlds."""
    if algo not in ALGOS:
        raise UnknownOption(
            f"Algorithm '{algo}' asked for; the demo has: {', '.join(ALGOS)}.{suggest(algo, ALGOS)}"
        )
    Demo(out, FAST if fast else FULL, algo, seed, threads, Console()).run()  # type: ignore[arg-type]


class Demo:
    """One demo run in one folder."""

    def __init__(
        self,
        out: Path,
        settings: DemoSettings,
        algo: Literal["tree", "group"],
        seed: int,
        threads: int,
        console: Console,
    ) -> None:
        """Claim the folder: new, or that of the same demo unfinished."""
        self.out, self.settings, self.algo, self.seed = out, settings, algo, seed
        self.threads, self.console = threads, console
        self._claim_folder()

    def run(self) -> dict[str, Any]:
        """Return the summary, as written to summary.json."""
        import torch

        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        warm = self._warm_start()
        self._evaluate(warm, "bundle_before", "before training")
        rows = self._train(warm)
        self._evaluate(self.out / "model", "bundle_after", "after training")
        summary = self._report(rows, started)
        return summary

    def _claim_folder(self) -> None:
        """Start a new folder, or go on in one whose demo is the same and unfinished."""
        record = {"algo": self.algo, "seed": self.seed, **dataclasses.asdict(self.settings)}
        marker = self.out / "demo.json"
        if (self.out / "summary.json").exists() and marker.exists():
            number = 1
            while (old := self.out.with_name(f"{self.out.name}.{number}")).exists():
                number += 1
            os.replace(self.out, old)
            self.console.print(f"The finished demo in {self.out} is now {old}.", markup=False)
        if marker.exists() and json.loads(marker.read_text()) != record:
            raise TreegrpoError(
                f"A demo with other settings was left unfinished in '{self.out}'. Remove that "
                "folder, or choose another with --out DIR."
            )
        if not marker.exists() and self.out.exists() and any(self.out.iterdir()):
            raise TreegrpoError(
                f"A demo in '{self.out}' was asked for, but the folder holds something else. "
                "Choose another with --out DIR."
            )
        from treegrpo.runfolder import write_text

        self.out.mkdir(parents=True, exist_ok=True)
        write_text(marker, json.dumps(record, indent=1) + "\n")

    def _warm_start(self) -> Path:
        """Return the folder of the warm-started model; built unless it is there."""
        from treegrpo.cli.demo_model import build_warm_model

        folder = self.out / "warmstart"
        if not folder.exists():
            part = self.out / ".warmstart.part"
            shutil.rmtree(part, ignore_errors=True)
            with stage(self.console, "warm start on flawed demonstrations") as advance:
                build_warm_model(part, self.settings, self.seed, advance)
            os.replace(part, folder)
        return folder

    def _evaluate(self, model: Path, name: str, title: str) -> None:
        """Play held-out worlds with a model and write the bundle; skipped if it is there."""
        from treegrpo.cli.policy import load_policy
        from treegrpo.leaderboards.evaluate import evaluate

        if (self.out / name).exists():
            return
        agent = load_policy(model)
        agent.name = f"{'warm start' if name == 'bundle_before' else self.algo + '-grpo'} demo"
        with stage(self.console, f"evaluation {title}") as advance:
            evaluate(
                agent,
                ENV_ID,
                split="test",
                num_tasks=self.settings.eval_tasks,
                trials=1,
                seed=self.seed,
                out=self.out / name,
                concurrency=self.settings.eval_tasks,
                progress=advance,
            )

    def _train(self, warm: Path) -> list[dict[str, Any]]:
        """Return the metrics of all steps; goes on from a checkpoint if there is one."""
        from treegrpo.checkpoint import has_checkpoint
        from treegrpo.runfolder import read_rows
        from treegrpo.trainer import Trainer

        trainer = Trainer(
            train_config(self.settings, self.algo, self.seed, warm, self.out),
            resume=has_checkpoint(self.out / "checkpoint"),
        )
        started = time.perf_counter()
        with TrainingProgress(self.console) as progress:
            trainer.run(on_step=progress.step)
        seconds = time.perf_counter() - started
        self.console.print(f"training on rollout trees: {seconds:.1f} s", highlight=False)
        return read_rows(self.out / "metrics.jsonl")

    def _report(self, rows: list[dict[str, Any]], started: float) -> dict[str, Any]:
        from treegrpo.cli.demo_report import finish_demo

        return finish_demo(
            self.out,
            self.console,
            rows,
            facts={"algo": self.algo, "seed": self.seed},
            seconds_total=time.perf_counter() - started,
        )


def train_config(
    settings: DemoSettings, algo: str, seed: int, model: Path, out: Path
) -> Any:
    """Return the demo's training configuration.

    The chain baseline gets 9 chains per question, which sample about as many tokens as the
    (4, 2, 1) trees: 4 trunks and 8 forks of which each samples the rest of an episode.
    """
    from treegrpo.config import load_config

    shape: dict[str, Any] = {"trunks": 4, "forks": 2, "rounds": 1, "credit": "intra_inter"}
    if algo == "group":
        shape = {"trunks": 9, "forks": 0, "rounds": 0, "credit": "group"}
    return load_config(
        base={
            "model": str(model),
            "env": ENV_ID,
            "out": str(out),
            "seed": seed,
            "steps": settings.steps,
            "questions": settings.questions,
            "lr": settings.lr,
            "max_action_tokens": 24,
            "max_context_tokens": 512,
            "checkpoint_every": max(1, settings.steps // 5),
            **shape,
        }
    )
