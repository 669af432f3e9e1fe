"""From options to a retriever: which one, where it is, and the cassette in front of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.retrieval.base import Retriever
from treegrpo.envs.retrieval.cassette import Cassette, CassetteMode
from treegrpo.envs.retrieval.fetch import Fetcher, Limits
from treegrpo.envs.retrieval.guard import Guard
from treegrpo.envs.retrieval.live import PassageServer, Web
from treegrpo.envs.retrieval.pages import Extract, load_extractor
from treegrpo.envs.retrieval.providers import endpoint_of, key_of
from treegrpo.envs.retrieval.recorded import Recorded

RetrieverName = Literal["http", "web"]


def open_retriever(
    name: str,
    *,
    cassette: str | None,
    cassette_mode: str = "auto",
    url: str | None = None,
    provider: str = "searxng",
    hosts: Sequence[str] = (),
    allow_loopback: bool = False,
    limits: Limits | None = None,
    extract: Extract | None = None,
) -> Recorded:
    """Return a retriever behind its cassette; nothing is asked yet.

    Args:
        name: "http" for a server of passages, "web" for a search engine and the web.
        cassette: path of the SQLite file that keeps the replies.
        cassette_mode: "auto", "record" or "replay"; see `recorded`.
        url: address of the server, or of the search engine.
        provider: "searxng", "brave", "serper" or "tavily", for "web".
        hosts: the only hosts, with their subdomains, whose pages may be opened; none for all.
        allow_loopback: whether pages of this machine may be opened: for tests.
        limits: of time and size, for each request.
        extract: from markup to text; trafilatura where None.

    Raises:
        UnknownOption: a value that is none of these, a key or the extractor missing.
        DataFileError: the cassette cannot be used.
    """
    _check(name, get_args(RetrieverName), "retriever")
    _check(cassette_mode, get_args(CassetteMode), "cassette_mode")
    if not cassette:
        raise UnknownOption(
            f"retriever='{name}' asked for without a cassette; siblings and replays must see the "
            "same web. Give cassette=<path of a file>, which is made when it is missing."
        )
    limits = limits or Limits()
    if name == "http":
        address, source = _server(url), f"http {url}"
        make: Callable[[], Retriever] = partial(PassageServer, address, _asks(address, limits))
    else:
        address = endpoint_of(provider, url)
        _host(address, "url")
        source = f"{provider} {address}"
        guard = Guard(hosts=tuple(hosts), allow_loopback=allow_loopback)
        make = partial(_web, provider, address, limits, guard, extract)
    live = functools.cache(make)
    if cassette_mode == "record":
        live()  # a missing key or extractor shows now, not on the first question
    replays = cassette_mode == "replay"
    tape = Cassette(Path(cassette), writes=not replays)
    return Recorded(None if replays else live, tape, source)


def _web(provider: str, address: str, limits: Limits, guard: Guard, extract: Extract | None) -> Web:
    key, reader = key_of(provider), extract or load_extractor()
    return Web(provider, address, key, _asks(address, limits), Fetcher(guard, limits), reader)


def _server(url: str | None) -> str:
    if not url:
        raise UnknownOption(
            "retriever='http' asked for without url. Give the address of a server that speaks "
            "Search-R1's protocol, such as url='http://127.0.0.1:8000/retrieve'."
        )
    _host(url, "url")
    return url


def _asks(address: str, limits: Limits) -> Fetcher:
    """Return a fetcher for one host that the user named: it may be private, nothing else may."""
    guard = Guard(hosts=(_host(address, "url"),), allow_private=True)
    return Fetcher(guard, limits)


def _host(address: str, option: str) -> str:
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        raise UnknownOption(
            f"{option}={address!r} asked for; it is no address of the web. Give one that begins "
            "with http:// or https://."
        )
    return host


def _check(value: str, known: Sequence[str], option: str) -> None:
    if value not in known:
        raise UnknownOption(
            f"{option}={value!r} asked for; it is one of {', '.join(known)}."
            f"{suggest(str(value), known)}"
        )
