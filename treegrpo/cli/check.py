"""treegrpo check: laws, determinism, grader, oracle, leaks and cost, in one table."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from treegrpo.envs.checks import Counterexample, Result, run_checks
from treegrpo.envs.errors import SandboxFailed, TreegrpoError

FAILED = 1
_STYLES = {"holds": "green", "fails": "bold red", "not checked": "yellow", "measured": ""}
_MAX_ACTION_CHARS = 400

EnvId = Annotated[str, typer.Argument(help="Environment id, such as treegrpo/SearchQA-v0.")]
Seconds = Annotated[
    float, typer.Option(min=0.1, help="The most that each open-ended part of the check takes.")
]


def check_command(env: EnvId, seconds: Seconds = 20.0) -> None:
    """Check an environment; exit with 1 if a check fails, showing the shortest episode."""
    console = Console(highlight=False)
    table = Table(title=Text(f"Checks of {env}"), title_justify="left")
    for heading in ("check", "result", "found"):
        table.add_column(heading, overflow="fold")
    failed: list[Result] = []
    begun = time.perf_counter()
    try:
        with console.status("random episodes ...") as status:
            for result in run_checks(env, seconds=seconds):
                table.add_row(*_row(result))
                failed += [result] if result.outcome == "fails" else []
                status.update(f"after {result.name} ...")
    except SandboxFailed as error:
        raise TreegrpoError(
            f"Checking '{env}' was asked for, but its sandbox failed: {error}. See treegrpo "
            "sandbox probe for what this host can run."
        ) from error
    console.print(table)
    console.print(f"{time.perf_counter() - begun:.1f} s")
    for result in failed:
        console.print(_shown(result))
    if failed:
        raise typer.Exit(FAILED)


def _row(result: Result) -> tuple[Text, Text, Text]:
    """Return a table's cells; what an environment says is text, never markup."""
    return Text(result.name), Text(result.outcome, _STYLES[result.outcome]), Text(result.found)


def _shown(result: Result) -> Text:
    lines = [f"\n{result.name} fails: {result.found.rstrip('.')}."]
    if result.shown_by is not None:
        lines += _episode(result.shown_by)
    return Text("\n".join(lines))


def _episode(shown: Counterexample) -> list[str]:
    count = len(shown.actions)
    size = "the shortest action sequence" if shown.minimal else "an action sequence"
    options = f", options={shown.options}" if shown.options else ""
    lines = [f"Shown by {size} ({count} actions) after reset(seed={shown.seed}{options}):"]
    lines += [f"  {n}. {_short(action)}" for n, action in enumerate(shown.actions, start=1)]
    return lines


def _short(action: str) -> str:
    text = repr(action) if "\n" in action.strip() or not action.isprintable() else action
    return text if len(text) <= _MAX_ACTION_CHARS else f"{text[:_MAX_ACTION_CHARS]}..."
