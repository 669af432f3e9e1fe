"""treegrpo train: one run from a TOML file, options and key=value overrides."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from treegrpo.cli.errors import Stopped, stopping
from treegrpo.cli.progress import Bar, TrainingNotes, quiet, say
from treegrpo.config import ConfigError, TrainConfig, load_config
from treegrpo.envs.errors import TreegrpoError

if TYPE_CHECKING:
    from treegrpo.trainer import StepReport

_SHOWN = {
    "success_rate": "success rate",
    "reward_mean": "reward mean",
    "sampled_tokens_total": "sampled tokens total",
    "tool_calls_total": "tool calls total",
    "sharing_ratio": "shared, all rollouts",
    "shared_trained": "shared, what was trained",
    "learning_rate": "learning rate",
    "loss": "loss",
    "grad_norm": "grad norm",
}
"""Metric -> what the last table calls it."""
_OF_OUTCOMES = ("success_rate", "reward_mean")

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value, such as lr=1e-5 trunks=2.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model folder or hub id.")]
EnvOption = Annotated[
    str | None, typer.Option("--env", help="Environment id; treegrpo envs shows all.")
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
    with stopping("Stopped before the first step. The same command starts again."):
        _train(run_config, resume=resume, console=Console())


def _train(config: TrainConfig, *, resume: bool, console: Console) -> None:
    from treegrpo.envs.registry import find_spec

    find_spec(config.env)  # an unknown id shows now, not after seconds of imports
    from treegrpo.runfolder import read_rows
    from treegrpo.trainer import Trainer

    quiet()
    warnings.showwarning = partial(_show_warning, console)
    trainer = Trainer(config, resume=resume)
    out = Path(config.out)
    done = read_rows(out / "metrics.jsonl")
    earlier = [row["success_rate"] for row in done if row.get("reset_leaves")]
    with (
        contextlib.closing(trainer),
        _telling_how_to_go_on(out),
        Bar(console, "training") as bar,
    ):
        notes = TrainingNotes(bar, earlier)
        bar.advance(trainer.position.next_step, config.steps)

        def show(report: StepReport) -> None:
            say(console, step_line(report))
            notes.step(report)

        rows = trainer.run(on_step=show, on_status=notes.status)
    if rows:
        console.print(last_step_table(rows))
    else:
        say(console, f"Nothing was left to do: all {config.steps} steps are done.")
    say(console, f"Model: {out}/model\nRun folder: {out}")
    if failed := sum(sum(row["failures"].values()) for row in rows):
        say(console, f"Failed rollouts: {failed:,}, with what each said: {out}/failures.jsonl")


@contextlib.contextmanager
def _telling_how_to_go_on(out: Path) -> Generator[None]:
    """Add to what ends a run early how to go on; a run that did no step leaves nothing behind."""
    from treegrpo.divergence import Diverged

    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. {how_to_go_on(out)}") from None
    except (Diverged, OSError):
        how_to_go_on(out)
        raise  # with the same settings a run diverges again
    except TreegrpoError as error:
        raise TreegrpoError(f"{error} {how_to_go_on(out)}") from error


def how_to_go_on(out: Path) -> str:
    """Return how to go on with a run that ended early; one that did no step is removed."""
    from treegrpo.checkpoint import has_checkpoint
    from treegrpo.runfolder import drop_unbegun

    if has_checkpoint(out / "checkpoint"):
        return f"With the same settings, --resume goes on from the checkpoint in {out}/checkpoint."
    if drop_unbegun(out):
        return "No step was done: start the run again without --resume."
    return (
        "There is no checkpoint: with the same settings, --resume begins at the first step again."
    )


def _show_warning(console: Console, message: Warning | str, *_: object) -> None:
    """Print a warning as a line of its own, without the line of code that gave it."""
    say(console, f"Warning: {message}")


def step_line(report: StepReport) -> str:
    """Return a step's numbers in one line: what was trained, what sharing could save and did.

    `shared` is that of the trained leaves, T / U; `S*` is the limit of the speed-up over flat
    rows, `gain` what was reached, estimated from the speed of flat rows measured once.
    """
    from treegrpo.metrics import why_nothing

    row = report.metrics
    words = [f"step {report.step + 1}/{report.steps}"]
    words.append(f"success {row['success_rate']:.2f}" if row["reset_leaves"] else "no outcome")
    if failed := sum(row["failures"].values()):
        words.append(f"failed {failed} of {row['rollouts']}: {row['commonest_failure']}")
    if skipped := round(row["skipped_updates"]):
        words.append(f"{skipped} update{'s' if skipped > 1 else ''} not finite, left out")
    if not row["trained_leaves"] and not skipped:
        words.append(f"nothing learned: {why_nothing(row)}")
    if row["trained_leaves"]:
        words.append(_trained(report))
    return "  " + "  ".join(words)


def _trained(report: StepReport) -> str:
    """Return the numbers of a step in which something was trained."""
    row = report.metrics
    sampler_gap = row.get("max_abs_log_ratio", float("nan"))  # a loss of one's own may not tell
    unique, flat = row["trained_tokens"], row["trained_tokens_flat"]
    gain = report.seconds["compute_flat_estimate"] / report.seconds["compute"]
    return (
        f"U {unique:,.0f}  T {flat:,.0f}  shared {flat / unique:.2f}  "
        f"S* {row['speedup_limit']:.2f}  gain {gain:.2f}  "
        f"gap {sampler_gap:.1e}  clipped {row.get('clip_share', 0.0):.1%}  "
        f"grad {row['grad_norm']:.3g}"
    )


def last_step_table(rows: list[dict[str, Any]]) -> Table:
    """Return the numbers of the last step that people look at first."""
    table = Table(title=f"Last of {len(rows)} step{'s' if len(rows) > 1 else ''}")
    table.add_column("what")
    table.add_column("value", justify="right")
    row = dict(rows[-1])
    if row.get("trained_tokens"):
        row["shared_trained"] = row["trained_tokens_flat"] / row["trained_tokens"]
    for name, label in _SHOWN.items():
        value = row.get(name)
        if name in _OF_OUTCOMES and not row["reset_leaves"]:
            table.add_row(label, "no outcome")
        elif isinstance(value, float):
            table.add_row(label, f"{value:.4g}")
        elif isinstance(value, int):
            table.add_row(label, f"{value:,}")
    return table
