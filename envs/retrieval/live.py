"""The live retrievers: a server of passages (Search-R1's protocol), and the web."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from treegrpo.envs.retrieval.base import Hit, PageFailed, RetrievalFailed
from treegrpo.envs.retrieval.fetch import Fetcher
from treegrpo.envs.retrieval.pages import Extract, page_text
from treegrpo.envs.retrieval.providers import MAX_TITLE_CHARS, read_json, search_web


@dataclass(frozen=True)
class PassageServer:
    """A server that answers POST {queries, topk, return_scores} with scored passages.

    The protocol of Search-R1 (arXiv 2503.09516): {"result": [[{"document", "score"}, ...]]},
    one inner list per query. A document is {"contents": title, line break, text}, or {"title",
    "text"}; without scores the inner list holds the documents themselves.
    """

    url: str
    fetcher: Fetcher

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return the passages, whole: there is nothing more to open."""
        body = {"queries": [query], "topk": top_k, "return_scores": True}
        where = f"Retrieval server at {self.url}"
        try:
            answer = self.fetcher.post(self.url, body, {"Accept": "application/json"})
        except PageFailed as failure:
            raise RetrievalFailed(
                f"{where} asked, but {failure}. Check that it runs and that url ends in its path, "
                "such as http://127.0.0.1:8000/retrieve."
            ) from failure
        value: Any = read_json(answer, where)
        result = cast("dict[str, Any]", value).get("result") if isinstance(value, dict) else None
        lists = cast("list[Any]", result) if isinstance(result, list) else []
        if len(lists) != 1 or not isinstance(lists[0], list):
            raise RetrievalFailed(
                f"{where}: field 'result' should be a list with one list of passages per query. "
                "Check that the server speaks Search-R1's /retrieve protocol."
            )
        return [_passage(one, where) for one in cast("list[Any]", lists[0])[:top_k]]

    def open(self, hit: Hit) -> str:
        """Return the passage."""
        return hit.text


@dataclass(frozen=True)
class Web:
    """A search engine for the hits, and the web itself for the pages.

    `engine` may be anywhere the user says; `pages` keeps away from private addresses.
    """

    provider: str
    endpoint: str
    key: str
    engine: Fetcher
    pages: Fetcher
    extract: Extract

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return what the search engine finds."""
        return search_web(self.provider, self.endpoint, self.key, self.engine, query, top_k)

    def open(self, hit: Hit) -> str:
        """Return the main text of the page."""
        return page_text(self.pages.get(hit.address), self.extract)


def _passage(value: Any, where: str) -> Hit:
    scored = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    document = scored.get("document", value)
    match document:
        case str(contents) | {"contents": str(contents)}:
            title, _, text = contents.strip().partition("\n")
            quoted = len(title) > 2 and title[0] == title[-1] == '"'
            title = title[1:-1] if quoted else title
            return Hit(title[:MAX_TITLE_CHARS], "", text.strip() or title)
        case {"title": str(title), "text": str(text)}:
            return Hit(title.strip()[:MAX_TITLE_CHARS], "", text.strip())
        case _:
            raise RetrievalFailed(
                f"{where}: a document should have 'contents', or 'title' and 'text'; found "
                f"{_fields(document)}. Check the corpus that the server reads."
            )


def _fields(value: object) -> str:
    """Return the names of an object's fields, or what the value is instead."""
    if not isinstance(value, dict):
        return type(value).__name__
    return ", ".join(list(cast("dict[str, object]", value))[:8])
