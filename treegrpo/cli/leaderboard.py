"""treegrpo eval, and treegrpo leaderboard add | verify | table | plan."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from treegrpo.cli.plan import plan_command
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.leaderboards import store as stores
from treegrpo.leaderboards.agents import SCRIPTED, Agent, scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import Unverified
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.guarded import Limits
from treegrpo.leaderboards.render import leaderboard_table, plain, summary_table
from treegrpo.leaderboards.signature import SIGNATURE, sign
from treegrpo.leaderboards.summary import summarise
from treegrpo.leaderboards.verify import Options, verify

FolderAgent = Callable[[Path], Agent]
"""Makes an agent of a model folder; it is the one part that needs torch."""

leaderboard_app = typer.Typer(
    help="Verify bundles by replay, and rank what verifies.", no_args_is_help=True
)
leaderboard_app.command("plan")(plan_command)

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
BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
Store = Annotated[str, typer.Option(help="URL of the results database.")]
TrustModule = Annotated[
    bool, typer.Option("--trust-module", help="Import the module that the bundle's id names.")
]
AcceptChanged = Annotated[
    bool, typer.Option("--accept-changed", help="Let replay alone decide where sources changed.")
]
SampleSize = Annotated[int | None, typer.Option(min=1, help="Replay so many episodes only.")]
StepSeconds = Annotated[
    float | None, typer.Option(help="Replay in a process that is ended when a step takes longer.")
]
EpisodeSeconds = Annotated[float, typer.Option(help="The same for an episode.")]
AllowedSigners = Annotated[
    Path | None, typer.Option(help="File of known keys, as man ssh-keygen describes it.")
]


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
        options = parse_env_args(env_arg or [])
        actor = resolve_agent(agent, folder_agent)
        with _progress(console, "episodes") as advance:
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
                progress=advance,
            )
        console.print(summary_table(summary))
        console.print(plain(f"Bundle {summary.digest[:12]} written to {out}"))

    return run_eval


@leaderboard_app.command("add")
def add_command(
    bundle: BundlePath,
    store: Store = stores.DEFAULT_STORE,
    trust_module: TrustModule = False,
    accept_changed: AcceptChanged = False,
) -> None:
    """Replay a bundle and add it to the results database."""
    options = Options(trust_module=trust_module, accept_changed=accept_changed)
    digest = stores.add(bundle, store, options=options)
    Console().print(plain(f"Bundle {digest[:12]} verified; it is in {store}"))


@leaderboard_app.command("verify")
def verify_command(
    bundle: BundlePath,
    trust_module: TrustModule = False,
    accept_changed: AcceptChanged = False,
    sample: SampleSize = None,
    step_seconds: StepSeconds = None,
    episode_seconds: EpisodeSeconds = 3600,
    allowed_signers: AllowedSigners = None,
) -> None:
    """Replay every action of a bundle and compare; exit code 2 when something differs."""
    console = Console()
    options = Options(
        trust_module=trust_module,
        accept_changed=accept_changed,
        sample=sample,
        limits=None if step_seconds is None else Limits(step_seconds, episode_seconds),
        allowed_signers=allowed_signers,
    )
    with _progress(console, "replayed") as advance:
        report = verify(bundle, options, progress=advance)
    for line in report.lines():
        console.print(plain(line))
    if not report.verified:
        raise Unverified(
            f"Verifying '{bundle}' asked for, but the replay differs: {report.first_difference}. "
            "Do not rank this bundle; evaluate again with this version."
        )
    summary = summarise(read_bundle(bundle))
    console.print(
        plain(
            f"Verified: {summary.agent} on {summary.env_id} ({summary.split}), success "
            f"{summary.success}"
        )
    )


@leaderboard_app.command("sign")
def sign_command(
    bundle: BundlePath, key: Annotated[Path, typer.Option(help="File of an SSH private key.")]
) -> None:
    """Sign a bundle with an SSH key."""
    sign(bundle, read_bundle(bundle).digest, key)
    Console().print(plain(f"Signed: {bundle / SIGNATURE}"))


@leaderboard_app.command("table")
def table_command(
    store: Store = stores.DEFAULT_STORE,
    env: Annotated[str | None, typer.Option(help="Show this environment only.")] = None,
) -> None:
    """Print the leaderboard."""
    Console().print(leaderboard_table(stores.table(store, env)))


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


def parse_env_args(pairs: list[str]) -> dict[str, Any]:
    """Return {"key": value} of "key=value"; a value is JSON where it parses, else text.

    Raises:
        TreegrpoError: a pair without "=", or a key given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            fault = "that key came before" if equals and key else "no key=value"
            raise TreegrpoError(
                f"--env-arg '{pair}' asked for, found {fault}. Write --env-arg top_k=3."
            )
        try:
            found[key] = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            found[key] = value
    return found


@contextlib.contextmanager
def _progress(console: Console, what: str) -> Generator[Callable[[int, int], None]]:
    """Yield `advance(done, total)` of a progress bar that vanishes at the end."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
