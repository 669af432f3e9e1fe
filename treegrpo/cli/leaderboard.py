"""treegrpo leaderboard: verify bundles, and what the results database is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.cli.export import export_command
from treegrpo.cli.ledger import epoch_command, ledger_command, merge_command, migrate_command
from treegrpo.cli.plan import plan_command
from treegrpo.cli.progress import Bar
from treegrpo.cli.register import claim_command, register_command
from treegrpo.cli.serve import serve_command, submit_command, token_app
from treegrpo.cli.site import site_command
from treegrpo.cli.stores import (
    AcceptChanged,
    AllowedSigners,
    BundlePath,
    EpisodeSeconds,
    ObjectsFolder,
    RunDigest,
    StepSeconds,
    StoreUrl,
    TrustModule,
    Who,
    limits,
)
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import Unverified
from treegrpo.leaderboards.render import leaderboard_table, plain
from treegrpo.leaderboards.signature import SIGNATURE, sign
from treegrpo.leaderboards.store import DEFAULT_STORE, open_store
from treegrpo.leaderboards.store.database import checked_url, hidden, sqlite_file
from treegrpo.leaderboards.store.submissions import prove
from treegrpo.leaderboards.summary import summarise
from treegrpo.leaderboards.verify import Options, verify

leaderboard_app = typer.Typer(
    help="Verify bundles by replay, and rank what verifies.", no_args_is_help=True
)

SampleSize = Annotated[int | None, typer.Option(min=1, help="Replay so many episodes only.")]


@leaderboard_app.command("add")
def add_command(
    bundle: BundlePath,
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    trust_module: TrustModule = False,
    accept_changed: AcceptChanged = False,
    step_seconds: StepSeconds = None,
    episode_seconds: EpisodeSeconds = None,
    allowed_signers: AllowedSigners = None,
    who: Who = "local",
) -> None:
    """Replay a bundle and add it to the results database."""
    options = Options(
        trust_module=trust_module,
        accept_changed=accept_changed,
        limits=limits(step_seconds, episode_seconds),
        allowed_signers=allowed_signers,
    )
    file = sqlite_file(checked_url(store, create=True))
    if file is not None and not file.exists():
        prove(read_bundle(bundle), options)  # what is refused leaves no empty database behind
    with open_store(store, create=True, objects=objects) as opened:
        digest = opened.add(bundle, who=who, options=options)
        found = opened.run_detail(digest)
    console = Console()
    where = hidden(store)
    console.print(plain(f"Bundle {digest[:12]} verified; tier {found.row.tier}; it is in {where}"))
    if found.not_fresh is not None:
        console.print(plain(f"It is not of tier 2: {found.not_fresh}."))
    if found.removed is not None:
        console.print(plain(f"It was removed from its board: {found.removed}"))


@leaderboard_app.command("verify")
def verify_command(
    bundle: BundlePath,
    trust_module: TrustModule = False,
    accept_changed: AcceptChanged = False,
    sample: SampleSize = None,
    step_seconds: StepSeconds = None,
    episode_seconds: EpisodeSeconds = None,
    allowed_signers: AllowedSigners = None,
) -> None:
    """Replay every action of a bundle and compare; exit code 2 when something differs."""
    console = Console()
    options = Options(
        trust_module=trust_module,
        accept_changed=accept_changed,
        sample=sample,
        limits=limits(step_seconds, episode_seconds),
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
    store: StoreUrl = DEFAULT_STORE,
    env: Annotated[str | None, typer.Option(help="Show this environment only.")] = None,
) -> None:
    """Print the leaderboard."""
    with open_store(store) as opened:
        keys = [key for key in opened.boards() if env is None or key.env_id == env]
        boards = [opened.board(key.id) for key in keys]
    Console().print(leaderboard_table(boards))


@leaderboard_app.command("get")
def get_command(
    digest: RunDigest,
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; must not exist yet.")],
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
) -> None:
    """Write the bundle of a run as the folder that it was."""
    with open_store(store, objects=objects) as opened:
        opened.get(digest, out)
    Console().print(plain(f"Written: {out}"))


@leaderboard_app.command("remove")
def remove_command(
    digest: RunDigest,
    reason: Annotated[str, typer.Option(help="Why; it stays in the ledger.")],
    store: StoreUrl = DEFAULT_STORE,
    who: Who = "local",
) -> None:
    """Take a run off its board; ledger and files keep it."""
    with open_store(store) as opened:
        removed = opened.remove(digest, reason=reason, who=who)
    Console().print(plain(f"Run {removed[:12]} is off its board; the ledger keeps it."))


@leaderboard_app.command("rescore")
def rescore_command(
    digest: RunDigest,
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    trust_module: TrustModule = False,
    accept_changed: AcceptChanged = False,
    who: Who = "local",
) -> None:
    """Replay a run again with this version, and mark it where it no longer comes out."""
    options = Options(trust_module=trust_module, accept_changed=accept_changed)
    with open_store(store, objects=objects) as opened:
        found = opened.rescore(digest, who=who, options=options)
    console = Console()
    if found.verified:
        console.print(plain(f"Run {digest[:12]}: all {found.episodes} episodes came out."))
    else:
        console.print(plain(f"Run {digest[:12]} is outdated: {found.first_difference}"))


leaderboard_app.command("register")(register_command)
leaderboard_app.command("claim")(claim_command)
leaderboard_app.command("ledger")(ledger_command)
leaderboard_app.command("epoch")(epoch_command)
leaderboard_app.command("merge")(merge_command)
leaderboard_app.command("migrate")(migrate_command)
leaderboard_app.command("plan")(plan_command)
leaderboard_app.command("export")(export_command)
leaderboard_app.command("serve")(serve_command)
leaderboard_app.command("submit")(submit_command)
leaderboard_app.command("site")(site_command)
leaderboard_app.add_typer(token_app, name="token")
