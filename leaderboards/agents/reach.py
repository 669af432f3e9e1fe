"""How an endpoint may be reached: limits and pace, which URL and key, and what Retry-After says."""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field

from treegrpo.leaderboards.errors import AgentUnusable

Rate = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]


class Reach(BaseModel):
    """How hard to try. None of it changes an answer, so none of it stands in a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Most seconds for one request, from sending to the last byte."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    """How often a request that failed is sent again."""
    backoff_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Seconds before the second try where the endpoint names none; they double each time."""
    connections: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most requests at once."""
    requests_per_minute: Rate | None = None
    """Most requests in a minute, spread evenly; None is no limit."""
    tokens_per_minute: Rate | None = None
    """Most tokens in a minute, read and sampled; None is no limit."""


def check_url(url: str, key: str | None) -> None:
    """Refuse an URL or a key that would not work, or would show the key to others.

    Raises:
        AgentUnusable: what is wrong; a key is never quoted.
    """
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        httpx.URL(url)  # raises where it holds what no URL holds
    except (ValueError, httpx.InvalidURL):
        parts, is_whole = urlsplit(""), False
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise AgentUnusable(
            "A base URL with a user, a password, a query or a fragment was given; it stands in "
            "every bundle. Give the key through an environment variable: --key-env NAME."
        )
    if not is_whole:
        raise AgentUnusable(
            f"Base URL '{url}' asked for, which is none. Give one such as http://127.0.0.1:8000/v1."
        )
    if key is None:
        return
    if not key or not key.isascii() or any(not "!" <= character <= "~" for character in key):
        raise AgentUnusable(
            "A key was given that is empty, or holds a space or another character that no key "
            "has. Set the environment variable again, without quotes or a line's end."
        )
    if parts.scheme == "http" and not is_loopback(url):
        raise AgentUnusable(
            f"Base URL '{url}' asked for with a key, but http:// shows the key to everybody on "
            "the way. Give an https:// URL, or an address of this machine."
        )


def is_loopback(url: str) -> bool:
    """Return whether an URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or an HTTP date.

    None where there is no header, or nothing that can be read.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
