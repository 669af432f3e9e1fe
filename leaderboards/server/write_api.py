"""The writing half of the API: submissions, registrations, removals, rescoring; all by token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from treegrpo.leaderboards.errors import NotInStore
from treegrpo.leaderboards.server import queue
from treegrpo.leaderboards.server.access import Access
from treegrpo.leaderboards.server.admission import check_admission
from treegrpo.leaderboards.server.inbox import archive_file, receive, too_large
from treegrpo.leaderboards.server.queue import Submission
from treegrpo.leaderboards.server.read_api import Digest
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tokens import Token
from treegrpo.leaderboards.store import Registration, RegistrationRequest, Store
from treegrpo.leaderboards.store.ledger import entries, own_chain

MAX_REGISTERED_TASKS = 10_000
"""A registration names each of its tasks, so it costs the server as many."""


class Removed(BaseModel):
    """A run that left the boards."""

    digest: str


class Removal(BaseModel):
    """Why a run is to leave the boards; the ledger keeps it."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=3, max_length=500)]


def write_routes(store: Store, access: Access, settings: ServerSettings) -> APIRouter:
    """Return the routes below api/v1 that need a token."""
    router = APIRouter(prefix="/api/v1", tags=["write"])
    _route_submissions(router, store, access, settings)
    _route_registrations(router, store, access, settings)
    _route_runs(router, store, access)
    return router


def _route_submissions(
    router: APIRouter, store: Store, access: Access, settings: ServerSettings
) -> None:
    submitter, owner = Depends(access.submitter), Depends(access.owner)

    async def submit(request: Request, token: Token = submitter) -> Submission:
        """Take a bundle as a tar file. Once this answers 202, no kill of the server loses it."""
        await run_in_threadpool(_check_room, store, settings, token)
        return await _accept(request, store, settings, token)

    def submissions(token: Token = owner) -> list[Submission]:
        """One's own submissions, newest first; all of them for an administrator."""
        return list(queue.list_submissions(store, None if token.may("admin") else token.owner))

    def submission(submission_id: str, token: Token = owner) -> Submission:
        """What became of a submission."""
        one = queue.get_submission(store, submission_id)
        if one is None or not (one.owner == token.owner or token.may("admin")):
            raise NotInStore(f"The submission '{submission_id:.80}' asked for; you have none such.")
        return one

    router.post("/submissions", status_code=202)(submit)
    router.get("/submissions")(submissions)
    router.get("/submissions/{submission_id}")(submission)


def _route_registrations(
    router: APIRouter, store: Store, access: Access, settings: ServerSettings
) -> None:
    submitter = Depends(access.submitter)

    def register(wanted: RegistrationRequest, token: Token = submitter) -> Registration:
        """Register an attempt before it is made, and learn its seed."""
        # Before the environment is made: to make it is what a stranger must not choose freely.
        if wanted.num_tasks > MAX_REGISTERED_TASKS:
            raise HTTPException(
                422,
                f"A registration of {wanted.num_tasks} tasks asked for; this server takes at most "
                f"{MAX_REGISTERED_TASKS}. Register fewer.",
            )
        check_admission(wanted.env_id, wanted.env_kwargs, settings.environments)
        return store.register(wanted, who=token.owner)

    router.post("/registrations", status_code=201)(register)


def _route_runs(router: APIRouter, store: Store, access: Access) -> None:
    submitter, admin = Depends(access.submitter), Depends(access.admin)

    def remove(digest: Digest, removal: Removal, token: Token = submitter) -> Removed:
        """Take one's own run off the boards; the ledger says so for good."""
        store.run_detail(digest)
        if not token.may("admin") and submitter_of(store, digest) != token.owner:
            raise HTTPException(
                403,
                f"Removing the run {digest[:12]} asked for, which '{token.owner}' did not submit. "
                "Ask its submitter or the operator.",
            )
        return Removed(digest=store.remove(digest, who=token.owner, reason=removal.reason))

    def rescore(digest: Digest, token: Token = admin) -> Submission:
        """Have a run verified again with the environments as they are now."""
        if not store.run_detail(digest).episodes:
            raise HTTPException(
                422,
                f"Verifying the run {digest[:12]} again asked for, but the store has only its "
                "numbers. Submit its bundle first.",
            )
        return queue.enqueue(store, queue.new_id(), token.owner, run_digest=digest)

    router.post("/runs/{digest}/removal")(remove)
    router.post("/runs/{digest}/rescore", status_code=202)(rescore)


def submitter_of(store: Store, run_digest: str) -> str | None:
    """Return who brought a run into this store, None where it came another way.

    The store's own ledger says so. A row of the queue says only who has sent its bundle: everybody
    can send a public one again.
    """
    with store.reading() as session:
        about = entries(session, own_chain(session), run_digest)
    return next((entry.who for entry in about if entry.kind == "submit"), None)


async def _accept(
    request: Request, store: Store, settings: ServerSettings, token: Token
) -> Submission:
    name, limit = queue.new_id(), settings.max_archive_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)
    archive = await receive(request.stream(), settings.inbox, name, limit)
    accepted = await run_in_threadpool(queue.enqueue, store, name, token.owner, archive=archive)
    if accepted.id != name:
        archive_file(settings.inbox, name).unlink(missing_ok=True)
    return accepted


def _check_room(store: Store, settings: ServerSettings, token: Token) -> None:
    """Refuse a submission while too many wait."""
    mine, all_open = queue.num_open(store, token.owner), queue.num_open(store)
    if mine < settings.max_waiting_per_owner and all_open < settings.max_waiting:
        return
    raise HTTPException(
        429 if mine >= settings.max_waiting_per_owner else 503,
        f"{mine} submissions of '{token.owner}' and {all_open} in all wait for verification. "
        "Submit again in a minute.",
        headers={"Retry-After": "60"},
    )
