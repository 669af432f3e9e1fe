"""The other end: sending bundles to a leaderboard's server and waiting for its answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents.reach import is_loopback
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import first_fault
from treegrpo.leaderboards.server.archive import pack_bundle

_TRIES = 5
_AGAIN = frozenset({429, 502, 503, 504})
_POLL_S = 1.0
_BLOCK = 2**20


class Answer(BaseModel):
    """What a server says of a submission."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    state: str
    run_digest: str | None
    reason: str | None


class Client:
    """Speaks to one server with one token."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        insecure: bool = False,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep where and as whom.

        Args:
            url: address of the server, without api/v1.
            token: the secret; it goes into the header and nowhere else.
            insecure: send it over http:// to another machine, too.
            transport: in place of the network, for tests.
            sleep: waits so many seconds.

        Raises:
            TreegrpoError: an address at which the token would be shown to others.
        """
        if _is_plain(url) and not is_loopback(url) and not insecure:
            raise TreegrpoError(
                f"A leaderboard's server at '{url}' asked for with a token, but http:// shows the "
                "token to everybody on the way. Give an https:// URL, an address of this machine, "
                "or --insecure."
            )
        self._url, self._sleep = url.rstrip("/"), sleep
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"}, timeout=60, transport=transport
        )

    def __enter__(self) -> Client:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, bundle: Path) -> Answer:
        """Return the server's receipt for a bundle; sending one twice makes one submission.

        Raises:
            BundleError: the bundle cannot be read here.
            TreegrpoError: the server refused it, or was not there after several tries.
        """
        read_bundle(bundle)
        with tempfile.TemporaryFile() as archive:
            pack_bundle(bundle, archive)

            def send() -> httpx.Response:
                archive.seek(0)
                return self._http.post(
                    f"{self._url}/api/v1/submissions",
                    content=_blocks(archive),
                    headers={"Content-Type": "application/x-tar"},
                )

            return self._answer("submitting a bundle", send)

    def result(self, submission_id: str) -> Answer:
        """Return what became of a submission so far."""
        return self._answer(
            "asking for a submission",
            lambda: self._http.get(f"{self._url}/api/v1/submissions/{submission_id}"),
        )

    def wait(self, submission_id: str, timeout_s: float) -> Answer:
        """Return a submission once it is decided, or as it stands after `timeout_s`."""
        end = time.monotonic() + timeout_s
        answer = self.result(submission_id)
        while answer.state in ("waiting", "verifying") and time.monotonic() < end:
            self._sleep(_POLL_S)
            answer = self.result(submission_id)
        return answer

    def register(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return a registration as the server made it."""
        response = self._asked(
            "registering an attempt",
            lambda: self._http.post(f"{self._url}/api/v1/registrations", json=wanted),
        )
        return response.json()

    def _answer(self, what: str, ask: Callable[[], httpx.Response]) -> Answer:
        response = self._asked(what, ask)
        try:
            return Answer.model_validate_json(response.content)
        except ValidationError as error:
            raise TreegrpoError(
                f"A leaderboard's server at {self._url} asked for, but its answer is another's: "
                f"{first_fault(error)}. Check the address."
            ) from None

    def _asked(self, what: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """Return a good answer; ask again while the server is busy or away."""
        fault = ""
        for attempt in range(_TRIES):
            pause_s = 2.0**attempt
            try:
                response = ask()
            except httpx.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
            except httpx.InvalidURL as error:
                raise TreegrpoError(
                    f"{self._url} asked for, which is no address: {error}."
                ) from None
            else:
                if response.is_success:
                    return response
                fault = f"{response.status_code}: {_detail(response)}"
                if response.status_code not in _AGAIN:
                    break
                pause_s = _retry_after_s(response) or pause_s
            if attempt + 1 < _TRIES:
                self._sleep(pause_s)
        raise TreegrpoError(f"{what.capitalize()} at {self._url} asked for, but it says {fault}")


def _is_plain(url: str) -> bool:
    try:
        return urlsplit(url).scheme == "http"
    except ValueError as error:
        raise TreegrpoError(f"{url} asked for, which is no address: {error}.") from None


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase
    return str(detail)[:1_000]


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return min(60.0, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return None
