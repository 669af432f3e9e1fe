"""Arguments and options that the commands of `treegrpo leaderboard` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
RunDigest = Annotated[str, typer.Argument(help="Digest of the run, at least its first 8 digits.")]
StoreUrl = Annotated[str, typer.Option("--store", help="URL of the results database.")]
ObjectsFolder = Annotated[
    Path | None,
    typer.Option(
        "--objects", help="Folder of the bundles' files; by default beside the SQLite file."
    ),
]
Who = Annotated[str, typer.Option("--who", help="Who does this, for the ledger.")]
TrustModule = Annotated[
    bool, typer.Option("--trust-module", help="Import the module that the bundle's id names.")
]
AcceptChanged = Annotated[
    bool, typer.Option("--accept-changed", help="Let replay alone decide where sources changed.")
]
