"""One request over HTTP within limits: of time, size, redirects, tries, and of whom to ask.

The body is read and unpacked piece by piece up to a number of bytes, so neither a page of
50 MB nor a small one that unpacks to gigabytes fills the memory. Proxies of the environment
are not used: they would resolve names behind the guard's back.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from treegrpo.envs.retrieval.base import PageFailed
from treegrpo.envs.retrieval.guard import Guard

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WORTH_ANOTHER_TRY = frozenset({429, 500, 502, 503, 504})
_PIECE_BYTES = 65_536
_USER_AGENT = "treegrpo (search environment)"


@dataclass(frozen=True)
class Limits:
    """What one request may take; times in seconds."""

    connect_s: float = 5.0
    read_s: float = 10.0
    total_s: float = 20.0
    """Of one try, from the request to the last byte."""
    max_bytes: int = 2_000_000
    """Of the unpacked body; the rest is cut off."""
    max_redirects: int = 5
    retries: int = 2
    max_wait_s: float = 20.0
    """The longest pause that a server may ask for before the next try."""


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers, the unpacked body, whether it was cut."""

    status: int
    headers: httpx.Headers
    body: bytes
    is_cut: bool


@dataclass(frozen=True)
class Fetcher:
    """Requests to where a guard allows, within limits; holds no connection between two."""

    guard: Guard
    limits: Limits = Limits()
    sleep: Callable[[float], None] = field(default=time.sleep)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the answer with status 200, after redirects and tries.

        Raises:
            PageFailed: there is none, with the reason.
        """
        return self._answer("GET", url, headers, None)

    def post(self, url: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the answer to a JSON body; see get()."""
        return self._answer("POST", url, headers, body)

    def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Any
    ) -> Answer:
        for tried in range(self.limits.retries + 1):
            is_last = tried == self.limits.retries
            try:
                answer = self._follow(method, _parsed(url), headers or {}, body)
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
                if is_last or not isinstance(error, httpx.ConnectError):
                    raise PageFailed(_reason(error)) from error
                self.sleep(0.5 * 2**tried)
                continue
            if answer.status == 200:
                return answer
            if is_last or answer.status not in _WORTH_ANOTHER_TRY:
                raise PageFailed(f"the site answered with status {answer.status}")
            self.sleep(self._pause(answer, tried))
        raise AssertionError("the last try returns or raises")

    def _pause(self, answer: Answer, tried: int) -> float:
        """Return how long to wait before the next try, as the server says or by doubling."""
        asked = retry_after_s(answer.headers.get("retry-after", ""))
        if asked is None:
            return 0.5 * 2**tried
        if asked > self.limits.max_wait_s:
            raise PageFailed(
                f"the site answered with status {answer.status} and asks to wait {asked:.0f} s"
            )
        return asked

    def _follow(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Any) -> Answer:
        """Return the answer at the end of the redirects; each stop is checked by the guard."""
        for _ in range(self.limits.max_redirects + 1):
            answer = self._once(method, url, headers, body)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            if method != "GET":
                raise PageFailed("the site sends a request with a body elsewhere")
            there = _parsed(answer.headers["location"], url)
            if _origin(there) != _origin(url):
                headers = {}  # keys are for the site that was asked
            url = there
        raise PageFailed(f"it redirects more than {self.limits.max_redirects} times")

    def _once(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Any) -> Answer:
        """Return the answer of one site, whatever its status."""
        addresses = self.guard.addresses(url)
        for address in addresses[:-1]:
            try:
                return self._ask(address, method, url, headers, body)
            except httpx.ConnectError:
                continue
        return self._ask(addresses[-1], method, url, headers, body)

    def _ask(
        self, address: str, method: str, url: httpx.URL, headers: Mapping[str, str], body: Any
    ) -> Answer:
        limits, watch = self.limits, _Watch(self.limits.total_s)
        times = httpx.Timeout(limits.read_s, connect=limits.connect_s)
        sent = {"Host": url.netloc.decode("ascii"), "User-Agent": _USER_AGENT, **headers}
        sent["Accept-Encoding"] = "gzip"
        verify: Any = _tls() if url.scheme == "https" else False
        with (
            watch,
            httpx.Client(timeout=times, trust_env=False, verify=verify) as client,
            client.stream(
                method,
                url.copy_with(host=address, fragment=None),
                headers=sent,
                json=body,
                extensions={"sni_hostname": url.host, "trace": watch.trace},
            ) as response,
        ):
            is_body_wanted = response.status_code == 200
            content, is_cut = self._read(response) if is_body_wanted else (b"", False)
            watch.check()
            return Answer(response.status_code, response.headers, content, is_cut)

    def _read(self, response: httpx.Response) -> tuple[bytes, bool]:
        """Return the body up to the limit, and whether there was more."""
        room, parts = self.limits.max_bytes, list[bytes]()
        unpack = _unpacker(response.headers.get("content-encoding", ""))
        for piece in response.iter_raw(_PIECE_BYTES):
            part = unpack(piece, room + 1)
            parts.append(part[:room])
            if len(part) > room:
                return b"".join(parts), True
            room -= len(part)
        return b"".join(parts), False


class _Watch:
    """Ends a request that takes too long, also one whose server sends a byte now and then.

    A time-out of httpx bounds each wait for bytes, not their sum. The watch learns of the
    connection through httpx's trace and shuts it down when its time is over.
    """

    def __init__(self, total_s: float) -> None:
        """Take the time; it runs from __enter__ on."""
        self._total_s, self._is_over = total_s, False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(total_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        """Start the time."""
        self._timer.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop the time; a failure after its end is a failure of time."""
        self._timer.cancel()
        self._timer.join()
        if isinstance(error, httpx.HTTPError):
            self.check()

    def check(self) -> None:
        """Raise PageFailed if the time is over."""
        if self._is_over:
            raise PageFailed(f"the site took longer than {self._total_s:g} s")

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn of the connection; called by httpx at each of its steps."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self._is_over:
                self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def retry_after_s(text: str) -> float | None:
    """Return the seconds of a Retry-After header, in either of its forms; None if unreadable."""
    if text.strip().isdecimal() and len(text) < 12:
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _unpacker(coding: str) -> Callable[[bytes, int], bytes]:
    """Return a function that unpacks a piece to at most so many bytes."""
    if coding.strip().lower() in ("", "identity"):
        return lambda piece, most: piece[:most]
    if coding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise PageFailed(f"it is packed as {coding[:40]!r}, which was not asked for")
    unpacking = zlib.decompressobj(wbits=47)  # gzip or zlib, told by its first bytes

    def unpack(piece: bytes, most: int) -> bytes:
        try:
            return unpacking.decompress(piece, most)
        except zlib.error as error:
            raise PageFailed("its packed data are damaged") from error

    return unpack


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _parsed(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return httpx.URL(url) if base is None else base.join(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise PageFailed("its address cannot be read") from error


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "the site did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return "the site cannot be reached"
    return f"the site broke off its answer ({type(error).__name__})"


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the one context for https; reading the certificates takes a while."""
    return httpx.create_ssl_context(trust_env=False)
