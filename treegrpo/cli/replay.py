"""treegrpo replay: does the environment really answer like this log says?"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from treegrpo.envs.errors import SandboxFailed, TreegrpoError, UnknownEnv, raised_at
from treegrpo.envs.recorder import Event, StepEvent, read_log, replay, verify_chain

DIFFERS = 1

LogPath = Annotated[Path, typer.Argument(metavar="LOG", help="An action log, as JSON lines.")]
Module = Annotated[
    str | None,
    typer.Option(help="A module to import first: the one that registers the environment."),
]
Show = Annotated[bool, typer.Option("--show", help="Print actions and observations as well.")]


def replay_command(log: LogPath, module: Module = None, show: Show = False) -> None:
    """Play a recorded episode again and compare every answer; exit with 1 if one differs."""
    events = read_log(log)
    verify_chain(events, place=lambda number: f"Replaying '{log}', line {number + 1}")
    if module is not None:
        _load(module)
    try:
        report = replay(events)
    except SandboxFailed as error:
        raise TreegrpoError(
            f"Replaying '{log}' was broken off, as a sandbox failed: {error}. Try again, or see "
            "treegrpo sandbox probe."
        ) from error
    if show:
        for event in events[: report.steps]:
            typer.echo("\n".join(_told(event)))
    if report.divergence is None:
        rewards = sum(float(event.reward) for event in events if isinstance(event, StepEvent))
        typer.echo(
            f"Replayed: {len(events) - 1} steps, every answer as logged; return {rewards:g}."
        )
        return
    found = report.divergence
    typer.echo(
        f"Differs at event {found.step} of {len(events) - 1} (0 is the reset), field "
        f"{found.field}:\n  logged: {found.expected[:500]}\n  got:    {found.got[:500]}"
    )
    raise typer.Exit(DIFFERS)


def _load(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UnknownEnv(
            f"Module '{module}' asked for; it cannot be imported: {error}. Check the spelling, or "
            "put its folder on the path: PYTHONPATH=. treegrpo replay ..."
        ) from error
    except Exception as error:  # an author's module may raise anything
        raise UnknownEnv(
            f"Module '{module}' asked for; importing it raised {type(error).__name__} at "
            f"{raised_at(error)}: {error}. Correct it there."
        ) from error


def _told(event: Event) -> list[str]:
    """Return an event as one reads it."""
    if isinstance(event, StepEvent):
        end = f", {event.end_reason}" if event.end_reason else ""
        return [f"{event.step}> {event.action}", f"{event.observation}  [{event.reward}{end}]"]
    return [f"{event.env_id}, seed {event.seed}, task {event.task_id}", event.observation]
