"""Where submissions lie until they are decided: one tar file each, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterable, Callable
from pathlib import Path

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.files import sync_folder

_STALE_S = 3_600.0


def archive_file(inbox: Path, submission_id: str) -> Path:
    """Return the path of a submission's tar file."""
    return inbox / f"{submission_id}.tar"


async def receive(
    chunks: AsyncIterable[bytes], inbox: Path, submission_id: str, max_bytes: int
) -> str:
    """Return the digest of what came, which lies in the inbox and on the disk by then.

    Raises:
        HTTPException: 413 for more than `max_bytes`.
        BundleError: nothing came.
        OSError: no space, no permission. Nothing stays behind.
    """
    part = inbox / f"{submission_id}.part"
    hasher, size = hashlib.sha256(), 0
    try:
        with part.open("xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise too_large(max_bytes)
                hasher.update(chunk)
                await run_in_threadpool(file.write, chunk)
            if not size:
                raise BundleError("A bundle as a tar file asked for, found an empty body.")
            file.flush()
            await run_in_threadpool(os.fsync, file.fileno())
        part.rename(archive_file(inbox, submission_id))
        await run_in_threadpool(sync_folder, inbox)
    finally:
        part.unlink(missing_ok=True)
    return hasher.hexdigest()


def too_large(max_bytes: int) -> HTTPException:
    """Return what somebody is told who sends more than is taken."""
    return HTTPException(
        413,
        f"A submission of at most {max_bytes} bytes asked for, found more. "
        "Evaluate fewer tasks per bundle.",
    )


def sweep(inbox: Path, is_open: Callable[[str], bool]) -> None:
    """Make the inbox, and remove what killed servers received but never accepted.

    Args:
        inbox: the folder.
        is_open: whether a submission of that id was accepted and is not decided.
    """
    inbox.mkdir(parents=True, exist_ok=True)
    for path in [*inbox.glob("*.part"), *inbox.glob("*.tar")]:
        # Another server may be receiving into the same inbox at this moment.
        if time.time() - path.stat().st_mtime > _STALE_S and not is_open(path.stem):
            path.unlink(missing_ok=True)
