"""treegrpo train: one run from a TOML file, options and key=value overrides."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from treegrpo.cli.errors import stopping
from treegrpo.cli.progress import Bar, TrainingNotes, quiet, say
from treegrpo.config import ConfigError, TrainConfig, load_config

if TYPE_CHECKING:
    from treegrpo.trainer import StepReport

_SHOWN = (
    "success_rate", "reward_mean", "sampled_tokens_total", "tool_calls_total", "sharing_ratio",
    "learning_rate", "loss", "grad_norm",
)  # fmt: skip

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value, such as lr=1e-5 trunks=2.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model folder or hub id.")]
EnvOption = Annotated[
    str | None, typer.Option("--env", help="Environment id; treegrpo list shows all.")
]
OutOption = Annotated[str | None, typer.Option("--out", help="Run folder.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")]


def train_command(
    overrides: Overrides = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    env: EnvOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
) -> None:
    """Train a model on an environment with rollout trees."""
    words = list(overrides or [])
    for key, value in (("model", model), ("env", env), ("out", out)):
        if value is None:
            continue
        if any(word.partition("=")[0].strip() == key for word in words):
            raise ConfigError(f"Setting '{key}' is given twice: --{key} and {key}=. Keep one.")
        words.insert(0, f"{key}={value}")
    run_config = load_config(config, words)
    with stopping(
        "Stopped. The same command with --resume goes on from the last checkpoint in "
        f"{run_config.out}/checkpoint, if one was written."
    ):
        _train(run_config, resume=resume, console=Console())


def _train(config: TrainConfig, *, resume: bool, console: Console) -> None:
    from treegrpo.envs.registry import find_spec

    find_spec(config.env)  # an unknown id shows now, not after seconds of imports
    from treegrpo.runfolder import read_rows
    from treegrpo.trainer import Trainer

    quiet()
    warnings.showwarning = partial(_show_warning, console)
    trainer = Trainer(config, resume=resume)
    metrics = Path(config.out) / "metrics.jsonl"
    earlier = [row["success_rate"] for row in read_rows(metrics)]
    with Bar(console, "training") as bar:
        notes = TrainingNotes(bar, earlier)

        def show(report: StepReport) -> None:
            say(console, step_line(report))
            notes.step(report)

        rows = trainer.run(on_step=show)
    if rows:
        console.print(last_step_table(rows))
    else:
        say(console, f"Nothing was left to do: all {config.steps} steps are done.")
    say(console, f"Model: {config.out}/model\nRun folder: {config.out}")


def _show_warning(console: Console, message: Warning | str, *_: object) -> None:
    """Print a warning as a line of its own, without the line of code that gave it."""
    say(console, f"Warning: {message}")


def step_line(report: StepReport) -> str:
    """Return a step's numbers in one line: what was trained, what sharing could save and did.

    `S*` is the limit of the speed-up over flat rows, `gain` what was reached, estimated from
    the speed of flat rows measured once.
    """
    row = report.metrics
    head = f"  step {report.step + 1}/{report.steps}  success {row['success_rate']:.2f}"
    if row["skipped_updates"]:
        head = f"{head}  {row['skipped_updates']:.0f} updates not finite, left out"
    if not row["trained_leaves"]:
        return head if row["skipped_updates"] else f"{head}  nothing to learn from"
    sampler_gap = row.get("max_abs_log_ratio", float("nan"))  # a loss of one's own may not tell
    unique, flat = row["trained_tokens"], row["trained_tokens_flat"]
    gain = report.seconds["compute_flat_estimate"] / report.seconds["compute"]
    return (
        f"{head}  U {unique:,.0f}  T {flat:,.0f}  shared {flat / unique:.2f}  "
        f"S* {row['speedup_limit']:.2f}  gain {gain:.2f}  "
        f"gap {sampler_gap:.1e}  clipped {row.get('clip_share', 0.0):.1%}  "
        f"grad {row['grad_norm']:.3g}"
    )


def last_step_table(rows: list[dict[str, Any]]) -> Table:
    """Return the numbers of the last step that people look at first."""
    table = Table(title=f"Last of {len(rows)} steps")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name in _SHOWN:
        value = rows[-1].get(name)
        if isinstance(value, float):
            table.add_row(name.replace("_", " "), f"{value:.4g}")
        elif isinstance(value, int):
            table.add_row(name.replace("_", " "), f"{value:,}")
    return table
