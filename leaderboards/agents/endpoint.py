"""A chat endpoint over HTTP: asked in parallel, at a pace, again where that can help.

    asked again    no connection, no answer in time, status 408, 409, 425, 429 or 5xx, an answer
                   that cannot be read. After Retry-After where it is given, else after a wait
                   that doubles. ProviderFailed when the last try fails.
    stops all      a wrong key (401, 403), no money (402, or said with 429), a redirect, and
                   whatever is refused, or fails in every try, before the first answer that can
                   be read: AgentUnusable.
    ContextFull    the conversation is longer than the model can read.
    its episode's  any other refusal: ProviderFailed.

The key is sent in one header. It is in no message, no repr and no file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Never

import httpx
from pydantic import ValidationError

from treegrpo.leaderboards.agents.answer import Answer
from treegrpo.leaderboards.agents.pace import Pace
from treegrpo.leaderboards.agents.reach import Reach, check_url, is_loopback, retry_after
from treegrpo.leaderboards.errors import AgentUnusable, ProviderFailed, first_fault

MAX_ANSWER_BYTES = 8 * 2**20
MAX_WAIT_S = 300.0
_SHOWN_CHARS = 300
_SECRET_CHARS = 8
_CHARS_PER_TOKEN = 4
"""A guess, good enough to reserve by: the count in the answer corrects it."""
_AGAIN = frozenset({408, 409, 425, 429})
_KEYS = frozenset({401, 402, 403})
_FULL = ("context_length_exceeded", "context length", "context window", "too many tokens")
_ADDRESS = (
    "No request has been answered yet. Check that it is running and that the URL is right (most "
    "end in /v1), then give the same command again."
)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit")

Payload = dict[str, Any]


class ContextFull(Exception):
    """The conversation is longer than the model can read."""


class _Again(Exception):
    """A failure that another try may mend."""

    def __init__(self, text: str, wait_s: float | None = None, *, is_away: bool = False) -> None:
        super().__init__(text)
        self.wait_s, self.is_away = wait_s, is_away


@dataclass(frozen=True)
class Asked:
    """What came of one question, after so many requests."""

    answer: Answer | Exception
    requests: int


class Endpoint:
    """One endpoint; close it."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        reach: Reach,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            base_url: what comes before /chat/completions.
            key: sent as a bearer token; None sends none.
            reach: limits and pace.
            clock: seconds, as `sleep` passes them.
            sleep: waits between tries.

        Raises:
            AgentUnusable: an URL or a key that cannot be used.
        """
        check_url(base_url, key)
        self.url, self._key, self._reach = base_url.rstrip("/"), key, reach
        self._sleep = sleep
        self._requests = _pace(reach.requests_per_minute, clock)
        self._tokens = _pace(reach.tokens_per_minute, clock)
        self._has_answered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._room = asyncio.Semaphore(reach.connections)

    def ask(self, payload: Payload) -> Future[Asked]:
        """Begin to ask; at most `connections` are asked at once, and the others wait."""
        return asyncio.run_coroutine_threadsafe(self._ask(payload), self._started())

    def close(self) -> None:
        """Close the connections and end the thread; may be called twice."""
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = self._client = None

    def _started(self) -> asyncio.AbstractEventLoop:
        # A loop in a thread of its own, because callers may have one running themselves.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="endpoint", daemon=True
            )
            self._thread.start()
        return self._loop

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {"Content-Type": "application/json"}
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(self._reach.timeout_s, pool=None),
                trust_env=not is_loopback(self.url),
                verify=self.url.startswith("https"),  # reads every certificate there is
            )
        return self._client

    async def _ask(self, payload: Payload) -> Asked:
        """Return the answer, or the error that is left when all tries are used up."""
        body = json.dumps(payload).encode("ascii")
        guess = len(body) / _CHARS_PER_TOKEN
        requests = 0
        async with self._room:
            while True:
                requests += 1
                try:
                    await self._wait_for_turn(guess)
                    answer = await self._once(self._connected(), body)
                    self._has_answered = True
                    self._count_tokens(answer, guess)
                    return Asked(answer, requests)
                except _Again as failed:
                    error = self._last(failed, requests)
                    if error is not None:
                        return Asked(error, requests)
                    await self._sleep(self._wait_s(failed, requests))
                except (ContextFull, ProviderFailed, AgentUnusable) as error:
                    return Asked(error, requests)

    def _last(self, failed: _Again, requests: int) -> Exception | None:
        """Return the error to end with, if this was the last try."""
        if requests > self._reach.retries and not self._has_answered:
            found = str(failed) if failed.is_away else f"{failed} ({requests} tries)"
            return AgentUnusable(f"{self._told(found)}. {_ADDRESS}")
        if requests > self._reach.retries:
            return ProviderFailed(self._told(f"{failed} ({requests} tries)"))
        if failed.wait_s is not None and failed.wait_s > MAX_WAIT_S:
            found = f"{failed}; it asks to wait {failed.wait_s:.0f} s, more than {MAX_WAIT_S:.0f} s"
            if not self._has_answered:
                return AgentUnusable(f"{self._told(found)}. Give the same command again later.")
            return ProviderFailed(self._told(found))
        return None

    def _wait_s(self, failed: _Again, requests: int) -> float:
        if failed.wait_s is not None:
            return failed.wait_s
        return min(self._reach.backoff_s * 2.0 ** (requests - 1), 60.0)

    async def _wait_for_turn(self, tokens: float) -> None:
        waits = [
            pace.reserve(amount)
            for pace, amount in ((self._requests, 1), (self._tokens, tokens))
            if pace is not None
        ]
        if waits and max(waits) > 0:
            await self._sleep(max(waits))

    def _count_tokens(self, answer: Answer, guess: float) -> None:
        usage = answer.counted(1)
        if self._tokens is not None and usage.input is not None:
            self._tokens.correct(usage.input + (usage.output or 0) - guess)

    async def _once(self, client: httpx.AsyncClient, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._reach.timeout_s):
                response, data = await self._exchange(client, body)
        except (TimeoutError, httpx.TimeoutException):
            raise _Again(f"no answer within {self._reach.timeout_s:g} s") from None
        except httpx.ConnectError as error:
            raise _Again(f"no connection ({self.safe(str(error))})", is_away=True) from None
        except httpx.HTTPError as error:
            raise _Again(f"the connection broke ({self.safe(str(error))})") from None
        if response.is_success:
            return self._read(data)
        self._refused(response, data)

    async def _exchange(
        self, client: httpx.AsyncClient, body: bytes
    ) -> tuple[httpx.Response, bytes]:
        data = bytearray()
        url = f"{self.url}/chat/completions"
        async with client.stream("POST", url, content=body) as response:
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    found = f"the answer has more than {MAX_ANSWER_BYTES} bytes"
                    if not self._has_answered:
                        self._stop(found, _ADDRESS)
                    raise ProviderFailed(self._told(found))
        return response, bytes(data)

    def _read(self, data: bytes) -> Answer:
        try:
            return Answer.model_validate(json.loads(data))
        except ValidationError as error:
            fault = f"{first_fault(error)}: {self._shown(data)}"
        except (ValueError, RecursionError) as error:
            fault = f"no JSON ({self.safe(str(error))})"
        raise _Again(f"the answer cannot be read: {fault}")

    def _refused(self, response: httpx.Response, data: bytes) -> Never:
        status, shown = response.status_code, self._shown(data)
        found, lower = f"status {status}: {shown}", shown.lower()
        if status in (400, 413, 422) and any(word in lower for word in _FULL):
            raise ContextFull(self._told(found))
        if status in _KEYS or any(word in lower for word in _NO_MONEY):
            self._stop(found, "Check the key and the account, then give the same command again.")
        if status in _AGAIN or status >= 500:
            raise _Again(found, retry_after(response.headers.get("retry-after")))
        if response.is_redirect:
            self._stop(f"{found} (redirects are not followed)", "Give the URL that it leads to.")
        if not self._has_answered:
            self._stop(found, "Check the URL (most end in /v1), the model and the settings.")
        raise ProviderFailed(self._told(found))

    def _stop(self, found: str, advice: str) -> Never:
        raise AgentUnusable(f"{self._told(found)}. {advice}")

    def _told(self, found: str) -> str:
        return f"{self.url}/chat/completions was asked, but: {found}"

    def _shown(self, data: bytes) -> str:
        text = data.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text))  # one spelling, in which a key can be found
        # Redacted before it is cut: half a key is too much of it.
        return self.safe(text)[:_SHOWN_CHARS]

    def safe(self, text: str) -> str:
        """Return a text without the key, which some endpoints repeat.

        Words of less than 8 characters, such as the "EMPTY" of local servers, are no secret.
        """
        if self._key is None or len(self._key) < _SECRET_CHARS:
            return text
        return text.replace(self._key, "[key]").replace(json.dumps(self._key)[1:-1], "[key]")


def _pace(per_minute: float | None, clock: Callable[[], float]) -> Pace | None:
    return None if per_minute is None else Pace(per_minute, clock)
