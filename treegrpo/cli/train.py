"""treegrpo train: one run from a TOML file, options and key=value overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value, such as lr=1e-5 trunks=2.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with settings.")]
Model = Annotated[str | None, typer.Option(help="Hugging Face folder or hub id.")]
EnvId = Annotated[str | None, typer.Option(help="Environment id, see treegrpo list.")]
OutFolder = Annotated[str | None, typer.Option(help="Run folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")]


def train_command(
    overrides: Overrides = None,
    config: ConfigFile = None,
    model: Model = None,
    env: EnvId = None,
    out: OutFolder = None,
    resume: Resume = False,
) -> None:
    """Train a model on an environment with rollout trees."""
    from treegrpo.config import ConfigError, load_config

    options = {"model": model, "env": env, "out": out}
    given = {key: value for key, value in options.items() if value is not None}
    words = list(overrides or [])
    for key in given:
        if any(word.partition("=")[0].strip() == key for word in words):
            raise ConfigError(f"Setting '{key}' is given twice: --{key} and {key}=. Keep one.")
    run_config = load_config(config, [*(f"{k}={v}" for k, v in given.items()), *words])

    from treegrpo.cli.progress import TrainingProgress
    from treegrpo.trainer import Trainer

    console = Console()
    trainer = Trainer(run_config, resume=resume)
    with TrainingProgress(console) as progress:
        rows = trainer.run(on_step=progress.step)
    console.print(_last_row(rows))
    console.print(f"Run folder: {run_config.out}", markup=False)


def _last_row(rows: list[dict[str, Any]]) -> Table:
    table = Table("metric", "last step", title=f"{len(rows)} steps done")
    for name, value in (rows[-1] if rows else {}).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table
