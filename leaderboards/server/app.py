"""The application: pages, API and headers put together; `serve` runs it with uvicorn."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import treegrpo
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.errors import NotInStore, StoreError
from treegrpo.leaderboards.server import queue
from treegrpo.leaderboards.server.access import Access, Limits
from treegrpo.leaderboards.server.inbox import sweep
from treegrpo.leaderboards.server.pages import page_routes
from treegrpo.leaderboards.server.pool import verifiers
from treegrpo.leaderboards.server.read_api import read_routes
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tables import create_server_tables
from treegrpo.leaderboards.server.write_api import write_routes
from treegrpo.leaderboards.store import Store

AWAY = "The leaderboard's store cannot be reached at the moment. Ask again in a minute."
"""What everybody is told of a fault of the database or its folder."""
_FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)
_LOG = logging.getLogger(__name__)

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Sent with every answer; a page sends a policy of its own."""


def build_app(store: Store, settings: ServerSettings) -> FastAPI:
    """Return the application over an open store; it does not close it.

    Raises:
        StoreError: the server's tables cannot be made.
        OSError: the inbox cannot be made.
    """
    create_server_tables(store)
    sweep(settings.inbox, lambda name: queue.is_open(store, name))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with verifiers(settings):
            yield

    app = FastAPI(
        title="treegrpo leaderboard",
        version=treegrpo.__version__,
        lifespan=lifespan,
        docs_url=None,  # both pages load scripts from elsewhere; api.html shows the same
        redoc_url=None,
    )
    access = Access(store, Limits.of(settings))
    app.include_router(read_routes(store, access))
    app.include_router(write_routes(store, access, settings))
    app.include_router(page_routes(app, store, access))
    app.add_middleware(SecureHeaders)
    app.add_exception_handler(TreegrpoError, _refuse)
    return app


def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer with the one message; of a fault of the server's own, only the log has it.

    It names the database's host and the server's folders, which are nobody else's concern.
    """
    if isinstance(error, StoreError) and isinstance(error.__cause__, _FAULTS):
        _LOG.error("%s", error)
        return JSONResponse({"detail": AWAY}, 503)
    return JSONResponse({"detail": str(error)}, 404 if isinstance(error, NotInStore) else 422)


class SecureHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
