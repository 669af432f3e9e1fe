"""treegrpo eval: evaluate an agent on an environment or a suite, and write bundles."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console

from treegrpo.cli.agents import FolderAgent, Found, Wanted, find_agent, without_secrets
from treegrpo.cli.errors import stopping
from treegrpo.cli.pairs import parse_pairs
from treegrpo.cli.progress import Bar
from treegrpo.cli.tally import Tally
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.envs.suites import find_suite, list_suites
from treegrpo.leaderboards.evaluate import Extent, evaluate
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.render import failures_line, plain, suite_table, summary_table
from treegrpo.leaderboards.schema import Training
from treegrpo.leaderboards.suite import evaluate_suite

DEFAULT_SPLIT = "test"
_KEPT = "Stopped. Finished episodes are kept beside --out: the same command goes on."

AgentName = Annotated[
    str, typer.Option(help="oracle, random, null, DIR, openai:MODEL, module:name or search:AGENT.")
]
EnvId = Annotated[str, typer.Option(help="Environment id or suite, such as treegrpo/SearchQA-v0.")]
Split = Annotated[
    str | None, typer.Option(help="Split that the tasks come from [test]; a suite has its own.")
]
Tasks = Annotated[int, typer.Option(min=1, help="Number of tasks, of each member of a suite.")]
Trials = Annotated[int, typer.Option(min=1, help="Episodes per task.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the evaluation.")]
Out = Annotated[
    Path, typer.Option(help="Folder of the bundle, which must not exist; of a suite's bundles.")
]
EnvArg = Annotated[
    list[str] | None, typer.Option(help="key=value of the environment; may be repeated.")
]
AgentArg = Annotated[
    list[str] | None, typer.Option(help="key=value of the agent; may be repeated.")
]
FirstIndex = Annotated[int, typer.Option(min=0, help="Index of the first task.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Episodes that are live at once.")]
RetryFailed = Annotated[
    int,
    typer.Option(min=0, help="Play provider failures again so often before the bundle is sealed."),
]
TrainingWord = Annotated[
    str | None, typer.Option(help=f"What the weights have seen: {', '.join(get_args(Training))}.")
]
Registration = Annotated[
    str | None, typer.Option(help="Id of the registration that this run answers.")
]
BaseUrl = Annotated[str | None, typer.Option(help="URL before /chat/completions, for openai:.")]
KeyEnv = Annotated[
    str | None, typer.Option(help="Name of the environment variable that holds the key.")
]
Prices = Annotated[Path | None, typer.Option(help="TOML file of a dated price table.")]
Retries = Annotated[
    int | None, typer.Option(min=0, help="How often a failed request is sent again [5].")
]
Rate = Annotated[float | None, typer.Option(help="Most requests a minute.")]


def eval_command(folder_agent: FolderAgent) -> Callable[..., None]:
    """Return the command `eval`; `folder_agent` is called only when a folder is named."""

    def run_eval(
        context: typer.Context,
        agent: AgentName,
        env: EnvId,
        out: Out,
        split: Split = None,
        tasks: Tasks = 100,
        trials: Trials = 1,
        seed: Seed = 0,
        env_arg: EnvArg = None,
        agent_arg: AgentArg = None,
        first_index: FirstIndex = 0,
        concurrency: Concurrency = 64,
        retry_failed: RetryFailed = 0,
        training: TrainingWord = None,
        registration: Registration = None,
        base_url: BaseUrl = None,
        key_env: KeyEnv = None,
        prices: Prices = None,
        retries: Retries = None,
        requests_per_minute: Rate = None,
    ) -> None:
        """Evaluate an agent and write a bundle that others can verify."""
        options = without_secrets("--env-arg", parse_pairs("--env-arg", env_arg))
        wanted = Wanted(
            agent, parse_pairs("--agent-arg", agent_arg), base_url, key_env, prices, retries,
            requests_per_minute,
        )  # fmt: skip
        extent = Extent(
            num_tasks=tasks, trials=trials, seed=seed, concurrency=concurrency,
            first_index=first_index, retry_failed=retry_failed,
        )  # fmt: skip
        with _agent(wanted, folder_agent) as found:
            terms = _terms(context, found, training, registration)
            _run(found, env, out, split, options, extent, terms)

    return run_eval


def _terms(
    context: typer.Context, found: Found, training: str | None, registration: str | None
) -> Terms:
    return Terms(
        training=_training(training),
        registration=registration,
        prices=found.prices,
        command=command_line(context),
    )


@contextlib.contextmanager
def _agent(wanted: Wanted, folder_agent: FolderAgent) -> Generator[Found]:
    """Yield the agent, and close it where it can be closed."""
    found = find_agent(wanted, folder_agent)
    try:
        yield found
    finally:
        close = getattr(found.agent, "close", None)
        if close is not None:
            close()


def _run(
    found: Found,
    env: str,
    out: Path,
    split: str | None,
    options: Mapping[str, Any],
    extent: Extent,
    terms: Terms,
) -> None:
    console = Console()
    if found.note is not None:
        console.print(plain(found.note))
    with stopping(_KEPT), Bar(console, "episodes") as bar:
        if env in list_suites():
            _refuse_with_suite(env, split, options)
            suite = find_suite(env)
            tally = Tally(bar, len(suite.entries))
            whole = evaluate_suite(
                found.agent, suite, out=out, terms=terms, begin=tally.begin,
                progress=tally.advance, watch=tally.watch, **extent,
            )  # fmt: skip
            shown, summaries = suite_table(whole), list(whole.entries.values())
        else:
            tally = Tally(bar)
            summary = evaluate(
                found.agent, env, split=split or DEFAULT_SPLIT, out=out, env_kwargs=options,
                terms=terms, progress=tally.advance, watch=tally.watch, **extent,
            )  # fmt: skip
            shown, summaries = summary_table(summary), [summary]
    console.print(shown)
    line = failures_line(summaries)
    if line is not None:
        console.print(plain(line))
    what = f"Bundle {summaries[0].digest[:12]}" if env not in list_suites() else "Bundles"
    console.print(plain(f"{what} written to {out}"))


def _refuse_with_suite(suite: str, split: str | None, options: Mapping[str, Any]) -> None:
    for option, value in (("--split", split), ("--env-arg", options)):
        if value:
            raise TreegrpoError(
                f"{option} asked for with suite '{suite}', which says it for each of its entries. "
                "Leave it out, or name one environment."
            )


def _training(word: str | None) -> Training | None:
    known = get_args(Training)
    if word is not None and word not in known:
        raise UnknownOption(
            f"--training '{word}' asked for; it is one of {', '.join(known)}.{suggest(word, known)}"
        )
    return cast("Training | None", word)


def command_line(context: typer.Context) -> str:
    """Return the command line as it was meant: every option that was given, defaults left out.

    It holds no secret: a key comes from the environment, and only the variable's name is here.
    """
    words = ["treegrpo", "eval"]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if value is None or value == parameter.default:
            continue
        # An option that may be repeated comes as a tuple, an empty one where it was not given.
        for one in cast("list[Any]", value) if isinstance(value, list | tuple) else [value]:
            words += [parameter.opts[0], str(one)]
    return shlex.join(words)
