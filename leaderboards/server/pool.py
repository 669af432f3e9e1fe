"""The verifying processes of a server: started with it, started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator

from treegrpo.leaderboards.server.settings import ServerSettings

_PAUSE_S = 1.0
_GRACE_S = 10.0


@contextlib.asynccontextmanager
async def verifiers(settings: ServerSettings) -> AsyncGenerator[None]:
    """Keep `settings.workers` processes running meanwhile."""
    tasks = [asyncio.create_task(_keep_one(settings)) for _ in range(settings.workers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_one(settings: ServerSettings) -> None:
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "treegrpo.leaderboards.server.worker",
            stdin=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None, "it was asked for"
        try:
            process.stdin.write(settings.model_dump_json().encode() + b"\n")
            await process.wait()
            await asyncio.sleep(_PAUSE_S)
        finally:
            # The end of its input tells it to give back what it has taken, and to end.
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE_S)
            if process.returncode is None:
                process.kill()
                await process.wait()
