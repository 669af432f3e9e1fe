"""Tokens: who may submit, remove and administer; only their digests are stored.

A token is `tg_` and 43 characters of 256 random bits, shown once. It has an owner's name and
scopes:

    read      read what is public, and one's own submissions
    submit    also register, submit, and remove one's own runs
    admin     also rescore, and remove anybody's runs

A slow hash is for words that people choose; of 256 random bits a plain one gives nothing away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import sqlalchemy as sa
from pydantic import StringConstraints, TypeAdapter, ValidationError

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.errors import first_fault
from treegrpo.leaderboards.server.tables import TokenTable
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.ledger import now
from treegrpo.leaderboards.store.store import LOCAL

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "tg_"
_OWNER: TypeAdapter[str] = TypeAdapter(
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
)


@dataclass(frozen=True)
class Token:
    """A token as the server knows it: never the secret itself.

    `id` is the beginning of the secret's digest: enough to name it, useless to guess it.
    """

    id: str
    owner: str
    scopes: tuple[Scope, ...]
    created: str
    revoked: str | None

    def may(self, scope: Scope) -> bool:
        """Return whether the token holds this scope or a wider one."""
        return any(SCOPES.index(held) >= SCOPES.index(scope) for held in self.scopes)


def new_token(database: Database, owner: str, scopes: Iterable[str]) -> tuple[str, Token]:
    """Return a new secret, which is stored nowhere, and the token that it opens.

    Raises:
        TreegrpoError: an owner's name that is none or the ledger's own, an unknown scope, no scope.
    """
    wanted = tuple(scope for scope in SCOPES if scope in set(scopes))
    if not wanted or set(scopes) - set(SCOPES):
        raise TreegrpoError(
            f"A token with the scopes {sorted(set(scopes))} asked for; give one or more of "
            f"{', '.join(SCOPES)}."
        )
    try:
        _OWNER.validate_python(owner)
    except ValidationError as error:
        raise TreegrpoError(
            f"A token for {owner!r:.80} asked for, but {first_fault(error)}. Give a name of at "
            "most 64 letters, digits, dots and dashes."
        ) from None
    if owner == LOCAL:
        raise TreegrpoError(
            f"A token for '{LOCAL}' asked for, but in the ledger that is the operator on the "
            "store's own machine. Give another name."
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    row = TokenTable(digest=_digest(secret), owner=owner, scopes=list(wanted), created=now())
    with database.writing() as session:
        session.add(row)
        token = _token(row)
    return secret, token


def find_token(database: Database, secret: str) -> Token | None:
    """Return the token of a secret, revoked ones included, or None."""
    with database.reading() as session:
        row = session.get(TokenTable, _digest(secret))
        return None if row is None else _token(row)


def list_tokens(database: Database) -> Sequence[Token]:
    """Return all tokens, oldest first."""
    with database.reading() as session:
        rows = session.scalars(sa.select(TokenTable).order_by(TokenTable.created))
        return [_token(row) for row in rows]


def revoke_token(database: Database, token_id: str) -> Token:
    """Return the token of that id, which opens nothing from now on.

    Raises:
        TreegrpoError: no token or several have that id.
    """
    like = sa.select(TokenTable).where(TokenTable.digest.startswith(token_id, autoescape=True))
    with database.writing() as session:
        rows = session.scalars(like.limit(2)).all()
        if len(rows) != 1 or not token_id:
            raise TreegrpoError(
                f"Revoking the token '{token_id}' asked for, found {'several' if rows else 'none'} "
                "of that id. List them with treegrpo leaderboard token list."
            )
        rows[0].revoked = rows[0].revoked or now()
        return _token(rows[0])


def _token(row: TokenTable) -> Token:
    scopes: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in row.scopes)
    return Token(row.digest[:12], row.owner, scopes, row.created, row.revoked)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
