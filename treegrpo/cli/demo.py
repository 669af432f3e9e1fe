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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console

from treegrpo.cli.errors import stopping
from treegrpo.cli.progress import Stages, TrainingNotes, quiet, say
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest

if TYPE_CHECKING:
    from treegrpo.config import TrainConfig

ENV_ID = "treegrpo/SearchQA-v0"
Algo = Literal["tree", "group"]
ALGOS: tuple[Algo, ...] = ("tree", "group")
WARM_START, BEFORE, TRAINING, AFTER = "warm start", "score before", "training", "score after"
REPLAY = "replay"

OutOption = Annotated[
    Path, typer.Option("--out", help="Run folder; a finished demo there is kept as DIR.1.")
]
FastOption = Annotated[bool, typer.Option("--fast", help="A one-minute version of the same path.")]
AlgoOption = Annotated[
    str, typer.Option("--algo", help="tree: Tree-GRPO; group: chains with about as many tokens.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Decides everything.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
]


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


FULL = DemoSettings(layers=4, demonstrations=6400, steps=60, eval_tasks=300, lr=4e-4)
FAST = DemoSettings(layers=2, demonstrations=3200, steps=24, eval_tasks=120, lr=6e-4)


def demo_command(
    out: OutOption = Path("runs/demo"),
    fast: FastOption = False,
    algo: AlgoOption = "tree",
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Train a tiny agent from nothing on this machine, and score it on unseen worlds."""
    if algo not in ALGOS:
        raise UnknownOption(
            f"Algorithm '{algo}' asked for; the demo has: {', '.join(ALGOS)}."
            f"{suggest(algo, ALGOS)} Give --algo one of them."
        )
    with stopping("Stopped. What was done is kept: the same command goes on from there."):
        demo = Demo(out, FAST if fast else FULL, algo, seed, threads)
        demo.run()


class Demo:
    """One demo in one folder, begun or gone on with."""

    def __init__(
        self,
        out: Path,
        settings: DemoSettings,
        algo: Algo,
        seed: int,
        threads: int | None = None,
        console: Console | None = None,
    ) -> None:
        """Claim the folder: a new one, or that of the same demo unfinished.

        Raises:
            TreegrpoError: the folder holds something else, or cannot be written.
        """
        self.out, self.settings, self.algo, self.seed = out, settings, algo, seed
        self.threads = threads or os.cpu_count() or 1
        self.console = console or Console()
        self._claim_folder()
        self.stages = Stages(self.console, out / "stages.json")

    def run(self) -> dict[str, Any]:
        """Return the summary, as written to summary.json."""
        import torch

        quiet()
        torch.set_num_threads(self.threads)
        say(
            self.console,
            f"A tiny agent learns to search, from nothing: {self.algo}, seed {self.seed}, "
            f"CPU threads: {self.threads}.\nCtrl-C stops it; the same command goes on.",
        )
        warm = self._warm_start()
        self._evaluate(BEFORE, warm, "bundle_before", "warm start")
        self._train(warm)
        self._evaluate(AFTER, self.out / "model", "bundle_after", f"{self.algo}-grpo")
        return self._report()

    def _claim_folder(self) -> None:
        """Start a new folder, or go on in one whose demo is the same and unfinished."""
        from treegrpo.runfolder import write_text

        record = {"algo": self.algo, "seed": self.seed, **dataclasses.asdict(self.settings)}
        marker = self.out / "demo.json"
        if (self.out / "summary.json").exists() and marker.exists():
            old = _move_aside(self.out)
            say(self.console, f"The finished demo in {self.out} is now {old}.")
        if marker.exists():
            if _read_marker(marker) == record:
                return
            raise TreegrpoError(
                f"A demo in '{self.out}' was asked for, but one with other settings was left "
                "unfinished there. Finish it with its own options, remove the folder, or choose "
                "another with --out DIR."
            )
        if self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise TreegrpoError(
                f"A demo in '{self.out}' was asked for, but something else is there. "
                "Choose another folder with --out DIR."
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TreegrpoError(
                f"A demo in '{self.out}' was asked for, but that folder cannot be made: "
                f"{error.strerror}. Choose another with --out DIR."
            ) from error
        write_text(marker, json.dumps(record, indent=1) + "\n")

    def _warm_start(self) -> Path:
        """Return the folder of the warm-started model; built unless it is there."""
        folder = self.out / "warmstart"
        if folder.exists():
            self.stages.skip(WARM_START)
            return folder
        with self.stages.stage(WARM_START) as bar:
            from treegrpo.cli.demo_model import build_warm_model

            parameters = build_warm_model(
                folder, self.settings, self.seed, bar.advance, bar.set_note
            )
            bar.result = (
                f"{parameters / 1e6:.1f}M parameters, "
                f"{self.settings.demonstrations:,} flawed demonstrations"
            )
        return folder

    def _evaluate(self, title: str, model: Path, name: str, agent_name: str) -> None:
        """Play held-out worlds with a model and write the bundle; skipped if it is there."""
        if (self.out / name).exists():
            self.stages.skip(title)
            return
        with self.stages.stage(title) as bar:
            from treegrpo.cli.policy import load_policy
            from treegrpo.leaderboards.evaluate import evaluate

            agent = load_policy(model)
            agent.name = agent_name
            summary = evaluate(
                agent,
                ENV_ID,
                split="test",
                num_tasks=self.settings.eval_tasks,
                trials=1,
                seed=self.seed,
                out=self.out / name,
                concurrency=self.settings.eval_tasks,
                progress=bar.advance,
            )
            share = f"{100 * summary.success.mean:.0f} %"
            bar.result = f"{share} of {summary.num_tasks} held-out questions"

    def _train(self, warm: Path) -> None:
        """Train to the end, from the newest checkpoint if there is one."""
        if (self.out / "model").exists():  # written whole, and only at the end
            self.stages.skip(TRAINING)
            return
        with self.stages.stage(TRAINING) as bar:
            from treegrpo.runfolder import read_rows
            from treegrpo.trainer import Trainer

            config = train_config(self.settings, self.algo, self.seed, warm, self.out)
            trainer = Trainer(config, resume=(self.out / "config.json").exists())
            rows = read_rows(self.out / "metrics.jsonl")
            earlier = [row["success_rate"] for row in rows if row.get("reset_leaves")]
            notes = TrainingNotes(bar, earlier)
            trainer.run(on_step=notes.step, on_status=notes.status)

    def _report(self) -> dict[str, Any]:
        """Verify, rank, draw and print what came out; return the summary."""
        from treegrpo.cli.demo_report import finish_demo, verify_and_rank

        with self.stages.stage(REPLAY) as bar:
            rows = verify_and_rank(self.out, bar.advance)
            bar.result = "every action of both scores was played again: verified"
        facts = {"algo": self.algo, "seed": self.seed}
        return finish_demo(self.out, self.console, rows, facts=facts, stages=self.stages)


def train_config(
    settings: DemoSettings, algo: str, seed: int, model: Path, out: Path
) -> TrainConfig:
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
            "model": str(model.resolve()),  # the same run from whatever folder it goes on
            "env": ENV_ID,
            "out": str(out.resolve()),
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


def _move_aside(folder: Path) -> Path:
    """Return where the folder is now: its name with the first free number."""
    number = 1
    while (old := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    shutil.move(folder, old)
    return old


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(marker.read_text()))
    except ValueError as error:
        raise TreegrpoError(
            f"A demo in '{marker.parent}' was asked for, but its demo.json is damaged. Remove "
            "that folder, or choose another with --out DIR."
        ) from error
