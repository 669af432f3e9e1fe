"""treegrpo sandbox probe | bench: what this host gives, and how fast it is."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from treegrpo.envs.errors import TreegrpoError
from treegrpo.sandboxes.base import Capabilities
from treegrpo.sandboxes.errors import SandboxError

sandbox_app = typer.Typer(
    help="See what this host gives a sandbox, and how fast it is.", no_args_is_help=True
)

BACKENDS = ("process", "docker")
_LEVELS = {
    3: "namespaces, seccomp, Landlock, cgroups",
    2: "namespaces, seccomp, Landlock; no cgroups",
    1: "seccomp and Landlock; files are not hidden from siblings",
    0: "nothing that holds; refused unless unsafe=True",
}


@sandbox_app.command("probe")
def probe_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    image: Annotated[
        str | None, typer.Option(help="The image that docker is probed with; else its default.")
    ] = None,
) -> None:
    """Print what holds on this host for each backend, and how to get more."""
    from treegrpo.sandboxes import open_backend  # loads the backends' libraries

    options = {} if image is None else {"docker": {"image": image}}
    found: list[Capabilities] = []
    try:
        for name in BACKENDS:
            with open_backend(name, **options.get(name, {})) as backend:
                found.append(backend.probe())
    except SandboxError as error:
        raise TreegrpoError(str(error)) from error
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    console = Console()
    for one in found:
        console.print(_table(one))


@sandbox_app.command("bench")
def bench_command(
    backend: Annotated[str, typer.Option(help="process or docker.")] = "process",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs: seconds.")] = False,
) -> None:
    """Print the targets of speed with this host's numbers."""
    from treegrpo.sandboxes import open_backend  # loads the backends' libraries
    from treegrpo.sandboxes.bench import run_bench

    if backend not in BACKENDS:
        raise TreegrpoError(
            f"Backend '{backend}' asked for, found {' and '.join(BACKENDS)}. Give one of them."
        )
    console = Console()
    try:
        with open_backend(backend) as opened, console.status("starting") as status:
            report = run_bench(opened, quick, progress=lambda name: status.update(f"{name} ..."))
    except SandboxError as error:
        raise TreegrpoError(str(error)) from error
    title = f"Sandbox speed: {backend}, level L{report.level}; targets for 2 vCPUs"
    table = Table(title=title, title_justify="left")
    for heading in ("metric", "here", "target", "met"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in report.rows():
        here = "-" if row.value is None else f"{row.value:,.2f}"
        met = {None: "not measured", True: "yes", False: "no"}[row.met]
        target = f"{'>=' if row.at_least else '<='} {row.target:,g}"
        table.add_row(row.metric, here, target, met)
    console.print(table)


def _table(found: Capabilities) -> Table:
    """Return a table of one backend's features; the reasons are text, never markup."""
    title = f"{found.backend}: level L{int(found.level)} ({_LEVELS[int(found.level)]})"
    table = Table(title=Text(title), title_justify="left")
    for heading in ("feature", "here", "how, or why not", "to get it"):
        table.add_column(heading, overflow="fold")
    for feature in found.features:
        here = Text("yes", "green") if feature.present else Text("no", "red")
        table.add_row(Text(feature.name), here, Text(feature.reason), Text(feature.remedy))
    return table
