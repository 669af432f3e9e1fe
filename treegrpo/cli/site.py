"""treegrpo leaderboard site: the boards of a results database as a folder of pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.cli.stores import ObjectsFolder, StoreUrl
from treegrpo.leaderboards.render import plain
from treegrpo.leaderboards.site.build import build_site, check_place
from treegrpo.leaderboards.store import DEFAULT_STORE, open_store

Out = Annotated[Path, typer.Argument(help="Folder of the site: new, empty, or an older site.")]


def site_command(out: Out, store: StoreUrl = DEFAULT_STORE, objects: ObjectsFolder = None) -> None:
    """Write the leaderboard as static pages, for a browser or any static host."""
    check_place(out)
    with open_store(store, objects=objects) as opened:
        count = build_site(opened, out)
    Console().print(plain(f"{count} files; open {out / 'index.html'}"))
