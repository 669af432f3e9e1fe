"""treegrpo leaderboard export: a bundle in another project's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from treegrpo.leaderboards.export.write import FORMATS, export
from treegrpo.leaderboards.render import plain

BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
FormatName = Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")]
Out = Annotated[Path, typer.Option(help="File or folder to write; must not exist yet.")]


def export_command(bundle: BundlePath, format_: FormatName, out: Out) -> None:
    """Write a bundle as every-eval-ever, .eval_results YAML or inspect_ai log; no replay."""
    found = export(bundle, format_, out)
    Console().print(plain(f"Bundle {found.digest[:12]} written to {out} as {format_}"))
