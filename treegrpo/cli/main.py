"""The command `treegrpo` and its subcommands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import treegrpo
from treegrpo.cli import check, demo, envs, mcp, new, play, replay, train, warmstart
from treegrpo.cli.errors import run
from treegrpo.cli.evaluate import eval_command
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.cli.sandbox import sandbox_app
from treegrpo.cli.view import view_command
from treegrpo.leaderboards.agents import Agent

app = typer.Typer(
    help="Train tool-using agents on rollout trees, and publish scores that can be replayed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _folder_agent(folder: Path, *, temperature: float = 1.0, max_action_tokens: int = 64) -> Agent:
    from treegrpo.cli.policy import load_policy  # torch, only when a folder is named
    from treegrpo.cli.progress import quiet

    quiet()
    return load_policy(folder, temperature=temperature, max_action_tokens=max_action_tokens)


app.command("demo")(demo.demo_command)
app.command("warmstart")(warmstart.warmstart_command)
app.command("train")(train.train_command)
app.command("new")(new.new_command)
app.command("check")(check.check_command)
app.command("play")(play.play_command)
app.command("replay")(replay.replay_command)
app.command("mcp")(mcp.mcp_command)
app.command("view")(view_command)
app.command("envs")(envs.envs_command)
app.command("eval")(eval_command(_folder_agent))
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(sandbox_app, name="sandbox")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(treegrpo.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train tool-using agents on rollout trees, and publish scores that can be replayed."""


def main() -> None:
    """Run the command line; a user's error is one message and exit code 2."""
    # Read by torch's threads when it is first imported. By default they spin while they wait,
    # which on a machine that is busy with something else makes small models six times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run(app)
