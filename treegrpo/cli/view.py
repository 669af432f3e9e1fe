"""treegrpo view: look at the trees of a training run or the episodes of a bundle."""

from __future__ import annotations

import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from treegrpo.cli.view_pages import (
    Written,
    is_bundle,
    is_training_run,
    write_bundle_view,
    write_training_view,
)
from treegrpo.envs.errors import TreegrpoError

Runs = Annotated[
    list[Path], typer.Argument(help="Run folder, or several of one setting; or one bundle.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the pages; RUN/view, beside a bundle BUNDLE-view."),
]
SuccessReward = Annotated[
    float, typer.Option(help="Episode reward from which on a leaf of a training run is correct.")
]
Serve = Annotated[
    int | None,
    typer.Option("--serve", min=0, max=65535, help="Serve on this port of loopback; 0 takes any."),
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def view_command(
    runs: Runs,
    out: Out = None,
    success_reward: SuccessReward = 1.0,
    serve: Serve = None,
    open_: Open = False,
) -> None:
    """Write pages of a run's trees or a bundle's episodes, and show them."""
    written = write_view(runs, out, success_reward)
    typer.echo(f"{written.shown}: {written.index}")
    if serve is None:
        if open_:
            webbrowser.open(written.index.resolve().as_uri())
        return
    with page_server(written.index.parent, serve) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        typer.echo(f"Serving {address}  (Ctrl-C ends it)")
        if open_:
            webbrowser.open(address)
        server.serve_forever()


def write_view(runs: list[Path], out: Path | None, success_reward: float) -> Written:
    """Write the pages of the folders and return what was written.

    Raises:
        TreegrpoError: a folder that is neither, bundles and runs mixed, no place to write to.
    """
    bundles = [path for path in runs if is_bundle(path)]
    for path in runs:
        if path not in bundles and not is_training_run(path):
            found = "neither metrics.jsonl nor run.json" if path.is_dir() else "no such folder"
            raise TreegrpoError(
                f"A view of '{path}' asked for, found {found}. Give the folder of a training run "
                "(treegrpo train) or of a bundle (treegrpo eval)."
            )
    if bundles and len(runs) > 1:
        raise TreegrpoError(
            f"A view of {len(runs)} folders asked for, found a bundle among them "
            f"('{bundles[0]}'). Give one bundle alone, or training runs only."
        )
    if len(runs) > 1 and out is None:
        raise TreegrpoError(
            f"A view of {len(runs)} runs asked for, but it belongs to none of their folders. "
            "Say where to write it: --out DIR."
        )
    if bundles:
        # A bundle holds its own files and nothing else, so its pages go beside it.
        return write_bundle_view(runs[0], out or runs[0].with_name(f"{runs[0].name}-view"))
    return write_training_view(runs, out or runs[0] / "view", success_reward)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is the user's."""


def page_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the folder on loopback; its caller runs and closes it.

    Raises:
        TreegrpoError: the port is taken or not allowed.
    """
    handler = partial(_Quiet, directory=str(folder))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise TreegrpoError(
            f"--serve {port} asked for, found: {error.strerror}. Give another port, or 0 for any."
        ) from error
