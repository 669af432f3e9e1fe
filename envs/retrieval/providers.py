"""Search engines of the web: how each is asked, and how its answer reads.

name       request                               key (environment variable)
searxng    GET  URL/search?q=&format=json        none; the instance is given as url
brave      GET  .../res/v1/web/search?q=&count=  BRAVE_API_KEY
serper     POST .../search {q, num}              SERPER_API_KEY
tavily     POST .../search {query, max_results}  TAVILY_API_KEY
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlencode

from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.retrieval.base import Hit, PageFailed, RetrievalFailed
from treegrpo.envs.retrieval.fetch import Answer, Fetcher
from treegrpo.envs.retrieval.pages import decode

ProviderName = Literal["searxng", "brave", "serper", "tavily"]
MAX_SNIPPET_CHARS = 500
MAX_TITLE_CHARS = 200


@dataclass(frozen=True)
class Provider:
    """One search engine: where it is, how it is asked, where its results stand.

    `path` leads to the list of results in the answer; `title`, `link` and `snippet` are the
    names of a result's fields.
    """

    url: str
    key_variable: str
    key_header: str
    path: tuple[str, ...]
    title: str
    link: str
    snippet: str
    query: Callable[[str, int], Mapping[str, str | int]]
    posts: bool = False


PROVIDERS: Mapping[str, Provider] = {
    "searxng": Provider(
        url="",
        key_variable="",
        key_header="",
        path=("results",),
        title="title",
        link="url",
        snippet="content",
        query=lambda query, top_k: {"q": query, "format": "json"},
    ),
    "brave": Provider(
        url="https://api.search.brave.com/res/v1/web/search",
        key_variable="BRAVE_API_KEY",
        key_header="X-Subscription-Token",
        path=("web", "results"),
        title="title",
        link="url",
        snippet="description",
        query=lambda query, top_k: {"q": query, "count": min(top_k, 20)},
    ),
    "serper": Provider(
        url="https://google.serper.dev/search",
        key_variable="SERPER_API_KEY",
        key_header="X-API-KEY",
        path=("organic",),
        title="title",
        link="link",
        snippet="snippet",
        query=lambda query, top_k: {"q": query, "num": top_k},
        posts=True,
    ),
    "tavily": Provider(
        url="https://api.tavily.com/search",
        key_variable="TAVILY_API_KEY",
        key_header="Authorization",
        path=("results",),
        title="title",
        link="url",
        snippet="content",
        query=lambda query, top_k: {"query": query, "max_results": min(top_k, 20)},
        posts=True,
    ),
}


def endpoint_of(name: str, url: str | None) -> str:
    """Return the address at which a provider is asked.

    Raises:
        UnknownOption: no such provider, or one that has no address of its own and got none.
    """
    if name not in PROVIDERS:
        raise UnknownOption(
            f"provider='{name}' asked for; there are: {', '.join(PROVIDERS)}."
            f"{suggest(str(name), PROVIDERS)}"
        )
    if not url and not PROVIDERS[name].url:
        raise UnknownOption(
            f"provider='{name}' asked for without url; it runs on a machine of your own. Give its "
            "address, such as url='http://localhost:8888'."
        )
    if name == "searxng":
        return f"{str(url).rstrip('/').removesuffix('/search')}/search"
    return url or PROVIDERS[name].url


def key_of(name: str) -> str:
    """Return a provider's key, from the environment; empty where none is needed.

    Raises:
        UnknownOption: the variable is not set.
    """
    variable = PROVIDERS[name].key_variable
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise UnknownOption(
            f"provider='{name}' asked for; its key is read from the environment, and {variable} is "
            f"not set. Set it: export {variable}=... (a replay needs none: cassette_mode='replay')."
        )
    return key


def search_web(
    name: str, endpoint: str, key: str, fetcher: Fetcher, query: str, top_k: int
) -> list[Hit]:
    """Return a provider's hits with an address of the web, best first.

    Raises:
        RetrievalFailed: it gave no answer, or one that does not read as its own.
    """
    provider = PROVIDERS[name]
    headers = {"Accept": "application/json"}
    if key:
        value = f"Bearer {key}" if provider.key_header == "Authorization" else key
        headers[provider.key_header] = value
    asked = provider.query(query, top_k)
    try:
        if provider.posts:
            answer = fetcher.post(endpoint, asked, headers)
        else:
            answer = fetcher.get(f"{endpoint}?{urlencode(asked)}", headers)
    except PageFailed as failure:
        raise RetrievalFailed(
            f"Search by '{name}' at {endpoint} asked for, but {failure}. Check the address, the "
            f"key{f' in {provider.key_variable}' if key else ''} and what is left of its quota; "
            "what was found so far is in the cassette."
        ) from failure
    where = f"Search by '{name}' at {endpoint}"
    results = results_at(read_json(answer, where), provider.path, where)
    hits = [_hit(result, provider) for result in results]
    return [hit for hit in hits if hit is not None][:top_k]


def read_json(answer: Answer, where: str) -> Any:
    """Return the JSON of an answer.

    Raises:
        RetrievalFailed: it holds none; SearXNG answers so when its JSON format is off.
    """
    try:
        return json.loads(decode(answer.body, answer.headers.get("content-type", "")))
    except (ValueError, RecursionError) as error:
        kind = answer.headers.get("content-type", "no type")[:60]
        cut = ", cut off for its size" if answer.is_cut else ""
        raise RetrievalFailed(
            f"{where}: expected JSON, found {kind}{cut}. Check the address, and that the service "
            "answers in JSON."
        ) from error


def results_at(value: Any, path: tuple[str, ...], where: str) -> list[dict[str, Any]]:
    """Return the list of results at a path; an object without it found nothing.

    Raises:
        RetrievalFailed: something else stands there.
    """
    for name in path:
        if not isinstance(value, dict):
            raise RetrievalFailed(
                f"{where}: expected an object with '{name}', found {type(value).__name__}. Check "
                "that the address is the service's own."
            )
        value = cast("dict[str, Any]", value).get(name) or ([] if name == path[-1] else {})
    if not isinstance(value, list):
        raise RetrievalFailed(
            f"{where}: '{'.'.join(path)}' should be a list, found {type(value).__name__}. Check "
            "that the address is the service's own."
        )
    return [one for one in cast("list[Any]", value) if isinstance(one, dict)]


def _hit(result: Mapping[str, Any], provider: Provider) -> Hit | None:
    link = result.get(provider.link)
    if not isinstance(link, str) or not link.startswith(("http://", "https://")):
        return None
    title = _plain(result.get(provider.title))[:MAX_TITLE_CHARS]
    return Hit(title or link, link, _plain(result.get(provider.snippet))[:MAX_SNIPPET_CHARS])


def _plain(value: object) -> str:
    """Return a text without the marks that engines put around the words they found."""
    text = re.sub(r"</?\w+[^<>]{0,100}>", "", value) if isinstance(value, str) else ""
    return " ".join(html.unescape(text).split())
