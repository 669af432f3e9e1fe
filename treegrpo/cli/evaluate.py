"""treegrpo eval: evaluate an agent and write a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.cli.pairs import parse_pairs
from treegrpo.cli.progress import Bar
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.leaderboards.agents import SCRIPTED, Agent, scripted_agent
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.render import plain, summary_table

FolderAgent = Callable[[Path], Agent]
"""Makes an agent of a model folder; it is the one part that needs torch."""

AgentName = Annotated[str, typer.Option(help="oracle, random, null, or a model folder.")]
EnvId = Annotated[str, typer.Option(help="Environment id, such as treegrpo/SearchQA-v0.")]
Split = Annotated[str, typer.Option(help="Split that the tasks come from.")]
Tasks = Annotated[int, typer.Option(min=1, help="Number of tasks.")]
Trials = Annotated[int, typer.Option(min=1, help="Episodes per task.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the evaluation.")]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; must not exist yet.")]
EnvArg = Annotated[
    list[str] | None, typer.Option(help="key=value of the environment; may be repeated.")
]
FirstIndex = Annotated[int, typer.Option(min=0, help="Index of the first task.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Episodes that are live at once.")]


def eval_command(folder_agent: FolderAgent) -> Callable[..., None]:
    """Return the command `eval`; `folder_agent` is called only when a folder is named."""

    def run_eval(
        agent: AgentName,
        env: EnvId,
        out: Out,
        split: Split = "test",
        tasks: Tasks = 100,
        trials: Trials = 1,
        seed: Seed = 0,
        env_arg: EnvArg = None,
        first_index: FirstIndex = 0,
        concurrency: Concurrency = 64,
    ) -> None:
        """Evaluate an agent and write a bundle that others can verify."""
        console = Console()
        options = parse_pairs("--env-arg", env_arg)
        actor = resolve_agent(agent, folder_agent)
        with Bar(console, "episodes") as bar:
            summary = evaluate(
                actor,
                env,
                split=split,
                num_tasks=tasks,
                trials=trials,
                seed=seed,
                out=out,
                env_kwargs=options,
                concurrency=concurrency,
                first_index=first_index,
                progress=bar.advance,
            )
        console.print(summary_table(summary))
        console.print(plain(f"Bundle {summary.digest[:12]} written to {out}"))

    return run_eval


def resolve_agent(name: str, folder_agent: FolderAgent) -> Agent:
    """Return the scripted agent of that name, or the agent of that folder.

    Raises:
        UnknownOption: neither a name nor a folder.
    """
    if name in SCRIPTED:
        return scripted_agent(name)
    if Path(name).is_dir():
        return folder_agent(Path(name))
    raise UnknownOption(
        f"Agent '{name}' asked for, which is neither one of {', '.join(SCRIPTED)} nor a folder."
        f"{suggest(name, SCRIPTED)} Give one of the names or the folder of a model."
    )
