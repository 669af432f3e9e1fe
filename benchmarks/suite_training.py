"""From nothing, how far does a small agent come on each environment of the suite?

    python -m benchmarks.suite_training [--quick] [--json FILE] [--envs NAME ...]

Per environment and seed, at level 1: `treegrpo warmstart` builds a model of 0.9M parameters from
the oracle's demonstrations with mistakes; it is scored on held-out tasks, trained on rollout
trees as the trainer's defaults grow them, and scored again on the same tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._record import write_record
from treegrpo.cli.progress import quiet
from treegrpo.config import load_config
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.digest import stable_seed
from treegrpo.leaderboards.stats import UNIT, Interval, clustered_interval
from treegrpo.rollout import Question, RolloutSettings, Scheduler
from treegrpo.starter import Starter, build_starter
from treegrpo.starter_settings import StarterSettings
from treegrpo.trainer import Trainer

QUESTION = "From nothing, how far does a small agent come on each environment of the suite?"
ENVS = (
    "Crafting-v0",
    "FrozenLake-v0",
    "Mastermind-v0",
    "Minesweeper-v0",
    "Notes-v0",
    "Sokoban-v0",
    "WebShop-v0",
    "WordGuess-v0",
)


@dataclass(frozen=True)
class Setting:
    """Sizes of one run; the same for every environment, so that nothing is tuned to one."""

    demonstrations: int = 6000
    mistakes: float = 0.1
    level: int = 1
    steps: int = 20
    questions: int = 8
    lr: float = 4e-4
    held_out: int = 200


QUICK = Setting(demonstrations=48, steps=1, questions=1, held_out=4)


@dataclass(frozen=True)
class Row:
    """One environment and seed; `solved` are the held-out tasks solved, before and after."""

    env: str
    seed: int
    before: tuple[bool, ...]
    after: tuple[bool, ...]
    sampled_tokens: int
    parameters: int
    demonstrated: float
    starter_seconds: float
    training_seconds: float

    @property
    def scores(self) -> tuple[Interval, Interval]:
        """Success before and after, with 95 % intervals over tasks."""
        first, second = (
            clustered_interval({str(i): [float(s)] for i, s in enumerate(found)}, bounds=UNIT)
            for found in (self.before, self.after)
        )
        return first, second


def run(env: str, seed: int, setting: Setting, folder: Path) -> Row:
    """Return what became of one environment and seed."""
    env_id, model = f"treegrpo/{env}", folder / "starter"
    settings = StarterSettings(
        demonstrations=setting.demonstrations,
        mistakes=setting.mistakes,
        difficulty=setting.level,
        seed=seed,
    )
    began = time.perf_counter()
    starter = build_starter(env_id, model, settings)
    built = time.perf_counter() - began
    with contextlib.closing(Trainer(_config(env_id, model, starter, setting, seed))) as trainer:
        before = held_out(trainer, setting, seed)
        began = time.perf_counter()
        rows = trainer.run()
        trained = time.perf_counter() - began
        after = held_out(trainer, setting, seed)
    return Row(
        env=env,
        seed=seed,
        before=before,
        after=after,
        sampled_tokens=rows[-1]["sampled_tokens_total"],
        parameters=starter.num_parameters,
        demonstrated=starter.demonstrated,
        starter_seconds=built,
        training_seconds=trained,
    )


def _config(env_id: str, model: Path, starter: Starter, setting: Setting, seed: int) -> Any:
    return load_config(
        base={
            "model": str(model),
            "env": env_id,
            "out": str(model.with_name("run")),
            "seed": seed,
            "difficulty": setting.level,
            "steps": setting.steps,
            "questions": setting.questions,
            "lr": setting.lr,
            "max_action_tokens": starter.max_action_tokens,
            "max_context_tokens": starter.max_context_tokens,
            "checkpoint_every": setting.steps,
            "save_trees": 0,
        }
    )


def held_out(trainer: Trainer, setting: Setting, seed: int) -> tuple[bool, ...]:
    """Return which of the test split's tasks of the level the policy solves, one try each."""
    config, core = trainer.config, trainer.pool.core
    settings = RolloutSettings(
        trunks=1,
        forks=0,
        rounds=0,
        noise=config.noise,
        temperature=config.temperature,
        max_action_tokens=config.max_action_tokens,
        max_context_tokens=config.max_context_tokens,
    )
    # Tasks of the levels take turns by index.
    first, stride = core.difficulties.index(setting.level), len(core.difficulties)
    questions = [
        Question(
            stable_seed("held out", seed, number),
            {"split": "test", "index": first + stride * number},
        )
        for number in range(setting.held_out)
    ]
    grown = Scheduler(HFEngine(trainer.model), trainer.chat, trainer.pool, settings).grow(questions)
    bar = core.success_threshold
    return tuple(
        bool(trees) and trees[0].episode_reward(trees[0].leaves()[0]) >= bar
        for trees in grown.questions
    )


def all_runs(envs: Sequence[str], seeds: Sequence[int], setting: Setting) -> Iterator[Row]:
    """Yield the row of each environment and seed, one after the other."""
    for env in envs:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                yield run(env, seed, setting, Path(folder))


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a line per environment and seed."""
    table = Table(title=QUESTION)
    for name in ("environment", "seed", "starter", "trained", "sampled tokens", "seconds"):
        table.add_column(name, justify="left" if name == "environment" else "right")
    for row in rows:
        seconds = row.starter_seconds + row.training_seconds
        table.add_row(
            row.env,
            str(row.seed),
            *map(str, row.scores),
            f"{row.sampled_tokens:,}",
            f"{seconds:.0f}",
        )
    console.print(table)


def flat_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return per environment the mean success before and after, over seeds."""
    metrics: dict[str, float] = {}
    for env in dict.fromkeys(row.env for row in rows):
        own = [row.scores for row in rows if row.env == env]
        for index, name in enumerate(("starter", "trained")):
            key = f"success_{name}_{env.partition('-')[0]}"
            metrics[key] = sum(scores[index].mean for scores in own) / len(own)
    return metrics


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw success before and after, a line per environment and seed.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn = list(reversed(rows))
    figure, panel = plt.subplots(figsize=(7.0, 0.4 * len(rows) + 1.2), dpi=130)
    for place, row in enumerate(drawn):
        before, after = row.scores
        panel.plot([before.mean, after.mean], [place] * 2, color="#bbbbbb", zorder=1)
        for score, colour, marker, label in (
            (before, "#D55E00", "s", "starter"),
            (after, "#0072B2", "o", "trained"),
        ):
            panel.plot(
                [score.low or 0.0, score.high or 1.0],
                [place] * 2,
                color=colour,
                linewidth=4,
                alpha=0.3,
            )
            panel.plot(score.mean, place, marker, color=colour, label=None if place else label)
    panel.set_yticks(
        range(len(drawn)), [f"{row.env.partition('-')[0]}, seed {row.seed}" for row in drawn]
    )
    panel.set(xlim=(-0.02, 1.02), xlabel="success on held-out tasks of level 1, 95 % intervals")
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    panel.margins(y=0.12)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def main(words: Sequence[str] | None = None) -> None:
    """Run, print the table, write the record and the picture."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="two environments, no answer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--envs", nargs="+", choices=ENVS, default=list(ENVS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(words)
    quiet()
    torch.set_num_threads(1)
    setting, seeds = Setting(), list(range(options.seeds))
    if options.quick:
        setting, seeds, options.envs = QUICK, [0], ["FrozenLake-v0", "Crafting-v0"]
    console, rows = Console(width=100), list[Row]()
    for row in all_runs(options.envs, seeds, setting):
        rows.append(row)
        before, after = row.scores
        console.print(f"{row.env} seed {row.seed}: {before} -> {after}", highlight=False)
    show(rows, console)
    if options.json is not None:
        write_record(
            options.json,
            question=QUESTION,
            seeds=seeds,
            rows=[vars(row) for row in rows],
            metrics=flat_metrics(rows),
            notes={"setting": vars(setting), "threads": 1},
        )
        draw(rows, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
