"""treegrpo mcp: an environment as an MCP server, for one episode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from treegrpo.cli.pairs import parse_pairs
from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.mcp.extra import require_mcp
from treegrpo.envs.recorder import write_log

EnvId = Annotated[str, typer.Argument(help="Environment id, such as treegrpo/SQL-v0.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the episode.")]
Split = Annotated[str | None, typer.Option(help="Split that the task comes from.")]
Index = Annotated[int | None, typer.Option(help="Task of the split; by default the seed's.")]
EnvArg = Annotated[
    list[str] | None,
    typer.Option(help="Option of the environment as key=value; may be given several times."),
]
LogFile = Annotated[
    Path | None, typer.Option("--log", help="Write the action log there, for treegrpo replay.")
]


def mcp_command(
    env: EnvId,
    seed: Seed = 0,
    split: Split = None,
    index: Index = None,
    env_arg: EnvArg = None,
    log: LogFile = None,
) -> None:
    """Serve one episode over MCP on standard input and output, until the client leaves.

    How the episode went is told on standard error; the client never sees a score.
    """
    require_mcp()
    from treegrpo.envs.mcp.server import ServedEpisode, serve_stdio

    if log is not None and log.exists():
        raise UnknownOption(f"--log '{log}' asked for, but it exists. Give another file.")
    if log is not None and not log.parent.is_dir():
        raise UnknownOption(
            f"--log '{log}' asked for, but there is no folder '{log.parent}'. Make it first."
        )
    given: dict[str, Any] = {"split": split, "index": index}
    options = {name: value for name, value in given.items() if value is not None}
    episode = ServedEpisode(
        env, seed=seed, options=options, env_kwargs=parse_pairs("--env-arg", env_arg)
    )
    try:
        serve_stdio(episode)
    finally:
        if log is not None:
            write_log(log, episode.events)
        typer.echo(episode.summary, err=True)
