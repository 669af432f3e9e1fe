"""treegrpo warmstart: a small model for one environment, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from treegrpo.cli.errors import stopping
from treegrpo.cli.progress import Bar, quiet, say
from treegrpo.envs.errors import TreegrpoError
from treegrpo.starter_settings import StarterSettings

if TYPE_CHECKING:
    from treegrpo.starter import Starter

EnvOption = Annotated[
    str, typer.Option("--env", help="Id of an environment with an oracle; treegrpo envs lists all.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the model; must be new.")]
DemonstrationsOption = Annotated[
    int, typer.Option("--demonstrations", min=1, help="Episodes of the oracle to learn from.")
]
MistakesOption = Annotated[
    float,
    typer.Option("--mistakes", min=0, max=0.99, help="Share of steps that are random instead."),
]
DifficultyOption = Annotated[
    int | None, typer.Option("--difficulty", min=1, help="Level of the tasks; all if not given.")
]
LayersOption = Annotated[int, typer.Option("--layers", min=1, help="Layers, each of width 128.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Decides everything.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; torch's choice if not given.")
]


_DEFAULT = StarterSettings()


def warmstart_command(
    env: EnvOption,
    out: OutOption,
    demonstrations: DemonstrationsOption = _DEFAULT.demonstrations,
    mistakes: MistakesOption = _DEFAULT.mistakes,
    difficulty: DifficultyOption = _DEFAULT.difficulty,
    layers: LayersOption = _DEFAULT.layers,
    seed: SeedOption = _DEFAULT.seed,
    threads: ThreadsOption = None,
) -> None:
    """Build a small model that imitates an environment's oracle and its mistakes."""
    settings = StarterSettings(
        demonstrations=demonstrations,
        mistakes=mistakes,
        difficulty=difficulty,
        layers=layers,
        seed=seed,
    )
    console = Console()
    built = _build(env, out, settings, threads, console)
    say(
        console,
        f"Model: {out}, {built.num_parameters / 1e6:.1f}M parameters, loss {built.loss:.2f}; of "
        f"its {demonstrations:,} demonstrations {built.demonstrated:.0%} succeeded.\n\nNext:\n"
        f"    treegrpo eval --env {env} --agent {out} --out {out}_score\n"
        f"    treegrpo train --env {env} --model {out} --out {out}_run "
        f"max_action_tokens={built.max_action_tokens} "
        f"max_context_tokens={built.max_context_tokens}",
    )


def _build(
    env: str, out: Path, settings: StarterSettings, threads: int | None, console: Console
) -> Starter:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TreegrpoError(
            f"A model in '{out}' asked for, but that path is taken. Choose another with --out."
        )
    from treegrpo.envs.registry import find_spec

    find_spec(env)  # an unknown id shows now, not after seconds of imports
    import torch

    from treegrpo.starter import build_starter

    quiet()
    if threads is not None:
        torch.set_num_threads(threads)
    stop = stopping("Stopped; nothing was written. The same command starts again.")
    with stop, Bar(console, "warm start") as bar:
        return build_starter(env, out, settings, advance=bar.advance, note=bar.set_note)
