"""The pages over HTTP: the same paths and the same bytes as the static site's.

A page is made once for each state of the ledger, since nothing on a page changes without an
entry there.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from treegrpo.leaderboards.errors import NotInStore
from treegrpo.leaderboards.server.access import Access
from treegrpo.leaderboards.server.api_page import render_api
from treegrpo.leaderboards.server.read_api import environment_details
from treegrpo.leaderboards.site import pages
from treegrpo.leaderboards.site.data import environment_id, model_json, run_name, run_script
from treegrpo.leaderboards.site.viewer import content_policy, episode_file, render_episode
from treegrpo.leaderboards.site.viewer_model import Link
from treegrpo.leaderboards.store import Store
from treegrpo.leaderboards.store.tables import LedgerTable

_MAX_PAGES = 512
_MAX_BYTES = 64 * 2**20
_SCRIPT = "text/javascript; charset=utf-8"


class PageCache:
    """The last pages that were made, each for one state of the ledger; safe for threads."""

    def __init__(self, store: Store, max_bytes: int = _MAX_BYTES) -> None:
        """Begin with none; all pages together never take more than `max_bytes`."""
        self._store, self._max_bytes, self._num_bytes = store, max_bytes, 0
        self._pages: OrderedDict[tuple[int, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, path: str, make: Callable[[], str]) -> str:
        """Return the page at `path`, made now if the ledger has grown since."""
        with self._store.reading() as session:
            size = session.scalar(sa.select(sa.func.count()).select_from(LedgerTable)) or 0
        key = size, path
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]
        text = make()
        with self._lock:
            size = sys.getsizeof(text)
            # Another thread may have made it meanwhile.
            if key not in self._pages and size <= self._max_bytes:
                self._pages[key] = text
                self._num_bytes += size
            while len(self._pages) > _MAX_PAGES or self._num_bytes > self._max_bytes:
                self._num_bytes -= sys.getsizeof(self._pages.popitem(last=False)[1])
        return text


class Pages:
    """What is answered at each path of the pages."""

    def __init__(self, store: Store) -> None:
        """Keep the store, whose ledger says when a page is out of date."""
        self._store, self._cache = store, PageCache(store)

    def front(self) -> RedirectResponse:
        """Lead to the index."""
        return RedirectResponse("index.html")

    def index(self) -> HTMLResponse:
        """All boards."""
        boards = self._store.boards
        return self._html(
            "index", lambda: pages.render_index([self._store.board(key.id) for key in boards()])
        )

    def board(self, board_id: str) -> HTMLResponse:
        """One board."""
        return self._html(board_id, lambda: pages.render_board(self._store.board(board_id)))

    def board_json(self, board_id: str) -> Response:
        """One board in full."""
        text = self._cache.page(f"{board_id}.json", lambda: model_json(self._store.board(board_id)))
        return Response(text, media_type="application/json")

    def environment(self, name: str) -> HTMLResponse:
        """One environment."""
        return self._html(f"environment {name}", lambda: self._environment(name))

    def run(self, name: str) -> HTMLResponse:
        """One run."""
        return self._html(name, lambda: pages.render_run(self._store.run_detail(name)))

    def run_data(self, name: str) -> Response:
        """The outcomes of a run, which comparisons load."""
        text = self._cache.page(f"{name}.js", lambda: run_script(self._store.run_detail(name)))
        return Response(text, media_type=_SCRIPT)

    def episode(self, name: str) -> HTMLResponse:
        """One episode."""
        page = self._cache.page(f"episode {name}", lambda: self._episode(name))
        return HTMLResponse(page, headers=_policy(content_policy(page)))

    def asset(self, name: str) -> FileResponse:
        """A style or a script."""
        if name not in pages.ASSETS:
            raise NotInStore(f"The file 'static/{name:.80}' asked for; the pages have none such.")
        return FileResponse(pages.STATIC / name)

    def _html(self, path: str, make: Callable[[], str]) -> HTMLResponse:
        return HTMLResponse(self._cache.page(path, make), headers=_policy(pages.POLICY))

    def _environment(self, name: str) -> str:
        for detail in environment_details(self._store):
            if environment_id(detail.env_id, detail.env_kwargs, detail.split) == name:
                return pages.render_environment(detail)
        raise NotInStore(f"The environment '{name:.80}' asked for; no board has it.")

    def _episode(self, name: str) -> str:
        """Return the page of RUN-INDEX-TRIAL.html."""
        detail = self._store.run_detail(name.partition("-")[0])
        run = detail.row.digest
        for episode in detail.episodes:
            if detail.manifest is not None and episode_file(run, episode) == name:
                events = self._store.episode_events(run, episode.index, episode.trial)
                up = Link("run", f"../runs/{run_name(run)}.html")
                return render_episode(events, manifest=detail.manifest, episode=episode, links=[up])
        raise NotInStore(f"The episode '{name:.80}' asked for, which the run does not have.")


def page_routes(app: FastAPI, store: Store, access: Access) -> APIRouter:
    """Return the routes of the pages; `app` is what api.html describes."""
    router = APIRouter(dependencies=[Depends(access.reader)], include_in_schema=False)
    found = Pages(store)

    def api() -> HTMLResponse:
        return HTMLResponse(render_api(app.openapi()), headers=_policy(pages.POLICY))

    router.get("/")(found.front)
    router.get("/index.html")(found.index)
    router.get("/api.html")(api)
    router.get("/boards/{board_id}.html")(found.board)
    router.get("/boards/{board_id}.json")(found.board_json)
    router.get("/environments/{name}.html")(found.environment)
    router.get("/runs/{name}.html")(found.run)
    router.get("/data/{name}.js")(found.run_data)
    router.get("/episodes/{name}")(found.episode)
    router.get("/static/{name}")(found.asset)
    return router


def _policy(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
