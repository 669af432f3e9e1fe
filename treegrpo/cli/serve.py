"""treegrpo leaderboard serve | submit, and treegrpo leaderboard token new | list | revoke."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from treegrpo.cli.stores import BundlePath, ObjectsFolder, StoreUrl
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.render import plain
from treegrpo.leaderboards.server.client import Client
from treegrpo.leaderboards.server.tables import create_server_tables
from treegrpo.leaderboards.server.tokens import list_tokens, new_token, revoke_token
from treegrpo.leaderboards.store import DEFAULT_STORE, open_store

token_app = typer.Typer(help="Tokens of a leaderboard's server.", no_args_is_help=True)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
]
Inbox = Annotated[Path, typer.Option(help="Folder of submissions that wait.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Processes that verify.")]
Reads = Annotated[float, typer.Option(min=1, help="Requests a minute of one address.")]
Writes = Annotated[float, typer.Option(min=1, help="Submissions a minute of one token.")]
Environments = Annotated[
    list[str] | None, typer.Option("--env", help="Take this environment only; may be repeated.")
]
Url = Annotated[str, typer.Option("--to", help="Address of the server.")]
TokenVariable = Annotated[
    str, typer.Option("--token-env", help="Environment variable that holds the token.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token over http:// to another machine.")
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for the verification.")]


def serve_command(
    store: StoreUrl = DEFAULT_STORE,
    objects: ObjectsFolder = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    inbox: Inbox = Path("leaderboard-inbox"),
    workers: Workers = 1,
    reads_per_minute: Reads = 1_200,
    writes_per_minute: Writes = 60,
    env: Environments = None,
) -> None:
    """Serve the pages, the API and the queue of verifications; Ctrl-C ends it."""
    require_server()
    import uvicorn

    from treegrpo.leaderboards.server.app import build_app
    from treegrpo.leaderboards.server.settings import ServerSettings

    settings = ServerSettings(
        store=store,
        objects=objects,
        inbox=inbox,
        workers=workers,
        reads_per_minute=reads_per_minute,
        writes_per_minute=writes_per_minute,
        environments=tuple(env or ()),
    )
    with (
        _listening(host, port) as listener,
        open_store(store, create=True, objects=objects) as opened,
    ):
        app = build_app(opened, settings)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"Serving at http://{shown}:{listener.getsockname()[1]} until Ctrl-C")
        config = uvicorn.Config(app, log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; a place that is taken is found before anything is made."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise TreegrpoError(
            f"Serving at {host}, port {port} asked for, but: {error.strerror}. Give another --host "
            "or --port; --port 0 takes a free one."
        ) from None


def submit_command(
    bundle: BundlePath,
    to: Url,
    token_env: TokenVariable = "TREEGRPO_TOKEN",
    wait: Wait = 600,
    insecure: Insecure = False,
) -> None:
    """Send a bundle to a leaderboard's server and wait until it was verified there."""
    console = Console()
    with Client(to, token_from(token_env), insecure=insecure) as client:
        receipt = client.submit(bundle)
        console.print(plain(f"Accepted as submission {receipt.id}"))
        answer = client.wait(receipt.id, wait)
    if answer.state in ("refused", "failed"):
        raise TreegrpoError(f"Submitting '{bundle}' asked for, but it was {answer.state}: "
                            f"{answer.reason}")  # fmt: skip
    if answer.state == "verified":
        console.print(plain(f"Verified: {to.rstrip('/')}/runs/{answer.run_digest}.html"))
    else:
        console.print(plain(f"It is {answer.state}. Ask again: {to.rstrip('/')}"
                            f"/api/v1/submissions/{receipt.id}"))  # fmt: skip


@token_app.command("new")
def new_command(
    owner: Annotated[str, typer.Argument(help="Whose token it is.")],
    scope: Annotated[list[str], typer.Option(help="read, submit or admin; may be repeated.")],
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a token and print it: this once."""
    with open_store(store, create=True) as opened:
        create_server_tables(opened)
        secret, token = new_token(opened, owner, scope)
    Console().print(plain(f"Token {token.id} of {owner}; keep it, it is shown this once:"))
    typer.echo(secret)


@token_app.command("list")
def list_command(store: StoreUrl = DEFAULT_STORE) -> None:
    """List the tokens: never their secrets."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("id", "owner", "scopes", "created", "revoked"):
        table.add_column(name)
    with open_store(store) as opened:
        create_server_tables(opened)
        for token in list_tokens(opened):
            cells = token.id, token.owner, ", ".join(token.scopes), token.created, token.revoked
            table.add_row(*(plain(cell or "-") for cell in cells))
    Console().print(table)


@token_app.command("revoke")
def revoke_command(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As list prints it.")],
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a token open nothing from now on."""
    with open_store(store) as opened:
        create_server_tables(opened)
        token = revoke_token(opened, token_id)
    Console().print(plain(f"Revoked the token {token.id} of {token.owner}"))


def require_server() -> None:
    """Refuse to go on without the extra `server`.

    Raises:
        TreegrpoError: with the line that installs it.
    """
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise TreegrpoError(
            f"The leaderboard's server asked for, but {' and '.join(missing)} is not installed. "
            "Install it: pip install 'treegrpo[server]'"
        )


def token_from(variable: str) -> str:
    """Return the secret in an environment variable.

    Raises:
        TreegrpoError: the variable is not set.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise TreegrpoError(
            f"A token in the environment variable {variable} asked for, found none. Get one from "
            "the operator (treegrpo leaderboard token new NAME --scope submit) and export it."
        )
    return secret
