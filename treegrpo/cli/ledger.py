"""treegrpo leaderboard ledger | epoch | merge | migrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from treegrpo.cli.stores import ObjectsFolder, StoreUrl, Who
from treegrpo.leaderboards.board import LedgerEntry
from treegrpo.leaderboards.render import plain
from treegrpo.leaderboards.store import (
    DEFAULT_STORE,
    Checkpoint,
    open_store,
    parse_checkpoint,
)
from treegrpo.leaderboards.store.database import checked_url

_MAX_CHECKPOINT_BYTES = 10_000


def ledger_command(
    store: StoreUrl = DEFAULT_STORE,
    check: Annotated[
        bool, typer.Option("--check", help="Recompute every hash; exit code 2 if one differs.")
    ] = False,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Check, then print a line to publish.")
    ] = False,
    since: Annotated[
        Path | None, typer.Option(help="Check, also against a published checkpoint.")
    ] = None,
) -> None:
    """Print what happened in a results database, or check that nobody changed it since."""
    console = Console(soft_wrap=True)
    before = None if since is None else _read_checkpoint(since)
    with open_store(store) as opened:
        if not (check or checkpoint or before):
            console.print(_table(opened.ledger()))
            return
        found = opened.check_ledger(before)
    if checkpoint:
        console.print(plain(found[0].model_dump_json()))
        return
    for one in found:
        console.print(plain(f"Ledger {one.chain[:12]}: {one.size} entries, all as written."))
    if before is not None:
        console.print(plain(f"It goes on from the {before.size} entries of '{since}'."))


def epoch_command(
    salt: Annotated[str, typer.Option(help='32 to 64 hexadecimal digits, or "random".')],
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    who: Who = "local",
) -> None:
    """Begin an epoch: its public salt decides the seeds of registrations from now on."""
    with open_store(store, create=True, objects=objects) as opened:
        made = opened.new_epoch(salt, who=who)
    Console(soft_wrap=True).print(plain(f"Epoch begun. Publish its salt: {made}"))


def merge_command(
    other: Annotated[str, typer.Argument(help="URL of the results database to take over.")],
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    other_objects: Annotated[
        Path | None, typer.Option(help="Folder of the other one's files; else beside it.")
    ] = None,
    who: Who = "local",
) -> None:
    """Take over runs, registrations, files and ledger of another results database."""
    with (
        open_store(other, objects=other_objects) as theirs,
        open_store(store, create=True, objects=objects) as opened,
    ):
        new = opened.merge(theirs, who=who)
    Console().print(plain(f"Merged: {new} new runs in {store}."))


def migrate_command(store: StoreUrl = DEFAULT_STORE, objects: ObjectsFolder = None) -> None:
    """Bring an older results database up to date, with all that is in it."""
    checked_url(store, create=False)
    with open_store(store, create=True, objects=objects):
        Console().print(plain(f"{store} is up to date."))


def _read_checkpoint(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        text = file.read(_MAX_CHECKPOINT_BYTES).decode("utf-8", errors="replace")
    return parse_checkpoint(text, str(path))


def _table(entries: list[LedgerEntry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("number", justify="right")
    for name in ("time", "what", "subject", "who", "detail", "ledger"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        detail = ", ".join(f"{name}={value}" for name, value in entry.detail.items())
        cells = (
            str(entry.number), entry.time, entry.kind, entry.subject[:12], entry.who, detail[:200],
            entry.chain[:12] or "own",
        )  # fmt: skip
        table.add_row(*(plain(cell) for cell in cells))
    return table
