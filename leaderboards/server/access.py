"""Who asks, and whether they may: tokens, scopes and limits as dependencies of the endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import HTTPException, Request

from treegrpo.leaderboards.server.limits import RateLimit
from treegrpo.leaderboards.server.settings import ServerSettings
from treegrpo.leaderboards.server.tokens import Scope, Token, find_token
from treegrpo.leaderboards.store.database import Database


@dataclass(frozen=True)
class Limits:
    """The rate limits of one server."""

    reads: RateLimit
    writes: RateLimit
    failures: RateLimit

    @classmethod
    def of(cls, settings: ServerSettings) -> Limits:
        """Return the limits of the settings; a tenth of a minute's requests may come at once."""
        rates = (
            settings.reads_per_minute,
            settings.writes_per_minute,
            settings.failures_per_minute,
        )
        return cls(*(RateLimit(rate, max(1, int(rate / 10))) for rate in rates))


class Access:
    """Checks requests against the tokens in the database."""

    def __init__(self, database: Database, limits: Limits) -> None:
        """Keep the database and the limits."""
        self._database, self._limits = database, limits

    def reader(self, request: Request) -> Token | None:
        """Return the token that was sent, None without one.

        Raises:
            HTTPException: 401 for a token that opens nothing, 429 for too many requests.
        """
        self._within(self._limits.reads, _address(request))
        return self._sent(request)

    def submitter(self, request: Request) -> Token:
        """Return the token, which may submit; raises as `writer`."""
        return self._writer(request, "submit")

    def admin(self, request: Request) -> Token:
        """Return the token, which may administer; raises as `writer`."""
        return self._writer(request, "admin")

    def owner(self, request: Request) -> Token:
        """Return the token of somebody who asks for what is theirs; 401 without one."""
        self._within(self._limits.reads, _address(request))
        return self._required(request, "read")

    def _writer(self, request: Request, scope: Scope) -> Token:
        token = self._required(request, scope)
        self._within(self._limits.writes, token.id)
        return token

    def _required(self, request: Request, scope: Scope) -> Token:
        token = self._sent(request)
        if token is None:
            raise _unauthorised("This needs a token. Send it as: Authorization: Bearer tg_...")
        if not token.may(scope):
            raise HTTPException(
                403,
                f"This needs the scope '{scope}', and token {token.id} has "
                f"{', '.join(token.scopes)}. Ask the operator for another token.",
            )
        return token

    def _sent(self, request: Request) -> Token | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        kind, _, secret = header.partition(" ")
        token = find_token(self._database, secret.strip()) if kind.lower() == "bearer" else None
        if token is not None and token.revoked is None:
            return token
        self._within(self._limits.failures, _address(request))
        if token is not None:
            raise _unauthorised(f"Token {token.id} was revoked on {token.revoked}. Get a new one.")
        raise _unauthorised("No such token. Send it as: Authorization: Bearer tg_...")

    def _within(self, limit: RateLimit, name: str) -> None:
        wait_s = limit.wait_s(name)
        if wait_s > 0:
            raise HTTPException(
                429,
                f"Too many requests. Ask again in {wait_s:.1f} s.",
                headers={"Retry-After": str(int(wait_s) + 1)},
            )


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


def _unauthorised(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
