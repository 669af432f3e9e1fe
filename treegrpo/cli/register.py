"""treegrpo leaderboard register | claim."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.cli.stores import ObjectsFolder, StoreUrl, Who
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.export.read_every_eval_ever import read_claims
from treegrpo.leaderboards.render import plain
from treegrpo.leaderboards.store import DEFAULT_STORE, Registration, open_store, request_like

_DECIDED = {"--tasks", "--trials", "--seed", "--first-index", "--registration", "--out"}
"""Options of eval that a registration decides."""


def register_command(
    like: Annotated[
        Path, typer.Option(help="Bundle of a trial run: same agent, environment, options, split.")
    ],
    tasks: Annotated[int | None, typer.Option(min=1, help="Tasks; else as the trial run.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Episodes per task; else as the trial run.")
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    who: Who = "local",
) -> None:
    """Say what will be run, and learn its seed: every registration counts as an attempt."""
    sizes = {"num_tasks": tasks, "trials": trials}
    changes = {name: value for name, value in sizes.items() if value is not None}
    trial = read_bundle(like).manifest
    request = request_like(trial, **changes)
    with open_store(store, create=True, objects=objects) as opened:
        found = opened.register(request, who=who)
    console = Console(soft_wrap=True)
    console.print(plain(f"Registered: {found.manifest.id}"))
    console.print(plain(f"Run it as below, and add the bundle before {found.expires}:"))
    console.print(plain(_command(trial.command, found)))


def claim_command(
    file: Annotated[Path, typer.Argument(help="Record in the format every-eval-ever.")],
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    who: Who = "local",
) -> None:
    """Add results that somebody published: shown on a board of claims, never ranked."""
    results = read_claims(file)
    with open_store(store, create=True, objects=objects) as opened:
        for result in results:
            opened.claim(result, who=who)
    Console().print(plain(f"{len(results)} claims are in {store}; none of them is ranked."))


def _command(trial: str, found: Registration) -> str:
    """Return the command of the trial run with the sizes and seeds of a registration."""
    words = iter(shlex.split(trial))
    kept: list[str] = []
    for word in words:
        if word in _DECIDED:
            next(words, None)
        elif word.partition("=")[0] not in _DECIDED:
            kept.append(word)
    manifest = found.manifest
    decided = {
        "--tasks": manifest.num_tasks, "--trials": manifest.trials, "--seed": manifest.seed,
        "--first-index": manifest.first_index, "--registration": manifest.id, "--out": "DIR",
    }  # fmt: skip
    return shlex.join([*kept, *(str(part) for pair in decided.items() for part in pair)])
