"""Arguments and options that the commands of `treegrpo leaderboard` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treegrpo.leaderboards.guarded import Limits

_EPISODE_S = 3600.0

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
StepSeconds = Annotated[
    float | None, typer.Option(help="Replay in a process that is ended when a step takes longer.")
]
EpisodeSeconds = Annotated[
    float | None, typer.Option(help="The same for an episode [3600, with --step-seconds].")
]
AllowedSigners = Annotated[
    Path | None, typer.Option(help="File of known keys, as man ssh-keygen describes it.")
]
AcceptChanged = Annotated[
    bool, typer.Option("--accept-changed", help="Let replay alone decide where sources changed.")
]


def limits(step_seconds: float | None, episode_seconds: float | None) -> Limits | None:
    """Return the limits of a replay, None where neither was asked for.

    Either may stand alone: a step takes no longer than its episode may.
    """
    if step_seconds is None and episode_seconds is None:
        return None
    episode = _EPISODE_S if episode_seconds is None else episode_seconds
    return Limits(episode if step_seconds is None else step_seconds, episode)
