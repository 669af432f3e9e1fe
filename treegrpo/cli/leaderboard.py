"""treegrpo leaderboard add | verify | table | plan | export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.cli.export import export_command
from treegrpo.cli.plan import plan_command
from treegrpo.cli.progress import Bar
from treegrpo.leaderboards import store as stores
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import Unverified
from treegrpo.leaderboards.guarded import Limits
from treegrpo.leaderboards.render import leaderboard_table, plain
from treegrpo.leaderboards.signature import SIGNATURE, sign
from treegrpo.leaderboards.summary import summarise
from treegrpo.leaderboards.verify import Options, verify

leaderboard_app = typer.Typer(
    help="Verify bundles by replay, and rank what verifies.", no_args_is_help=True
)
leaderboard_app.command("plan")(plan_command)
leaderboard_app.command("export")(export_command)

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
    with Bar(console, "replayed") as bar:
        report = verify(bundle, options, progress=bar.advance)
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
