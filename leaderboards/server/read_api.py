"""The reading half of the API: boards, runs, episodes, environments, the ledger.

Open to everybody. A token is not needed, but one that is sent must be valid.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as InPath
from pydantic import BaseModel

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import Board, BoardKey, EnvironmentDetail, LedgerEntry, RunDetail
from treegrpo.leaderboards.server.access import Access
from treegrpo.leaderboards.server.archive import pack_bundle
from treegrpo.leaderboards.store import Store
from treegrpo.leaderboards.store.ledger import entries, own_chain

Digest = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]
BoardId = Annotated[str, InPath(pattern=r"^[0-9a-f]{12}$")]
Number = Annotated[int, InPath(ge=0, le=2**53)]


class Health(BaseModel):
    """Whether the server can answer."""

    status: str
    boards: int


def read_routes(store: Store, access: Access) -> APIRouter:
    """Return the routes below api/v1 that change nothing."""
    router = APIRouter(prefix="/api/v1", dependencies=[Depends(access.reader)], tags=["read"])
    _route_boards(router, store)
    _route_runs(router, store)
    _route_ledger(router, store)
    return router


def _route_boards(router: APIRouter, store: Store) -> None:

    def health() -> Health:
        """Whether the database answers."""
        return Health(status="ok", boards=len(store.boards()))

    def boards() -> list[BoardKey]:
        """All rankings."""
        return store.boards()

    def board(board_id: BoardId) -> Board:
        """One ranking with its rows, best first."""
        return store.board(board_id)

    def environments() -> list[EnvironmentDetail]:
        """What the boards are about: ceiling, floors, replays on record, difficulty."""
        return environment_details(store)

    router.get("/health")(health)
    router.get("/boards")(boards)
    router.get("/boards/{board_id}")(board)
    router.get("/environments")(environments)


def _route_runs(router: APIRouter, store: Store) -> None:
    def run(digest: Digest) -> RunDetail:
        """One run: manifest, verifications, ledger, episodes."""
        return store.run_detail(digest)

    def bundle(digest: Digest) -> Response:
        """The bundle itself, as a tar file: verify it yourself."""
        return Response(packed(store, digest), media_type="application/x-tar")

    def episode(digest: Digest, index: Number, trial: Number) -> list[Event]:
        """The action log of one episode."""
        return store.episode_events(digest, index, trial)

    router.get("/runs/{digest}")(run)
    router.get("/runs/{digest}/bundle.tar", response_class=Response)(bundle)
    router.get("/runs/{digest}/episodes/{index}/{trial}")(episode)


def _route_ledger(router: APIRouter, store: Store) -> None:
    def ledger(
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
    ) -> list[LedgerEntry]:
        """The entries of this store's ledger whose numbers are above `after`."""
        with store.reading() as session:
            return entries(session, own_chain(session), after=after, limit=limit)

    router.get("/ledger")(ledger)


def environment_details(store: Store) -> list[EnvironmentDetail]:
    """Return every environment, with its options and split, that has a board."""
    found: dict[str, EnvironmentDetail] = {}
    for key in store.boards():
        name = f"{key.env_id} {sorted(key.env_kwargs.items())} {key.split}"
        if name not in found:
            found[name] = store.environment_detail(key.env_id, key.env_kwargs, key.split)
    return list(found.values())


def packed(store: Store, digest: str) -> bytes:
    """Return the bundle of a run as a tar file.

    Raises:
        NotInStore: no such run, or only its numbers.
    """
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="treegrpo-bundle-") as folder:
        pack_bundle(store.get(digest, Path(folder) / "bundle"), archive)
    return archive.getvalue()
