"""A retriever behind a cassette: what was once answered is answered the same for ever.

    mode      stored reply    nothing stored
    auto      is given        the live retriever is asked, its reply is stored and given
    record    is given        as auto; but key and extractor are checked before the start
    replay    is given        an error that names the request; the network is never touched

A page that cannot be read is stored, too: siblings meet the same closed door. A search engine
that fails is not: that is no fact about the web, and the next try may find it well again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from treegrpo.envs.retrieval.base import Hit, PageFailed, RetrievalFailed, Retriever
from treegrpo.envs.retrieval.cassette import Cassette, Request

MAX_QUERY_CHARS = 400


class Recorded:
    """The hits and pages of a live retriever, each asked for once and kept in a cassette.

    Args:
        live: the retriever to ask for what is not stored, made when first needed; None for
            replay.
        cassette: where replies are kept.
        source: what tells this retriever's requests from another's in the same file.
    """

    def __init__(
        self, live: Callable[[], Retriever] | None, cassette: Cassette, source: str
    ) -> None:
        """Keep the parts; nothing is asked yet."""
        self._make_live, self.cassette, self.source = live, cassette, source

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return the hits, recorded or new."""
        query = " ".join(query.split())[:MAX_QUERY_CHARS]
        request: Request = {"source": self.source, "query": query, "top_k": top_k}
        reply = self._reply(request, lambda live: {"hits": live.search(query, top_k)})
        hits = reply.get("hits")
        if not isinstance(hits, list) or not all(map(_is_hit, cast("list[Any]", hits))):
            raise self._damaged(request)
        return [Hit(*hit) for hit in cast("list[list[str]]", hits)]

    def open(self, hit: Hit) -> str:
        """Return the text of a page, recorded or new; a hit without address is all there is."""
        if not hit.address:
            return hit.text
        request: Request = {"source": self.source, "page": hit.address}
        reply = self._reply(request, lambda live: _page(live, hit))
        if isinstance(reply.get("failed"), str):
            raise PageFailed(reply["failed"])
        if not isinstance(reply.get("page"), str):
            raise self._damaged(request)
        return cast("str", reply["page"])

    def _reply(self, request: Request, ask: Callable[[Retriever], dict[str, Any]]) -> Any:
        kept = self.cassette.find(request)
        if kept is None:
            if self._make_live is None:
                raise self._miss(request)
            reply = json.dumps(ask(self._make_live()), ensure_ascii=True)
            kept = self.cassette.keep(request, reply)
        try:
            value = json.loads(kept)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._damaged(request)
        return cast("dict[str, Any]", value)

    def _miss(self, request: Request) -> RetrievalFailed:
        return RetrievalFailed(
            f"Replay of {_spelled(request)} asked for; cassette '{self.cassette.path}' holds "
            f"{len(self.cassette)} replies, and none to this request. Record it with "
            "cassette_mode='auto', or check that the cassette and the options (provider, url, "
            "top_k) are those of the recording."
        )

    def _damaged(self, request: Request) -> RetrievalFailed:
        return RetrievalFailed(
            f"Reply to {_spelled(request)} in cassette '{self.cassette.path}' is malformed: the "
            "file was changed since it was recorded. Use an unchanged copy, or record it anew."
        )


def _page(live: Retriever, hit: Hit) -> dict[str, str]:
    try:
        return {"page": live.open(hit)}
    except PageFailed as failure:
        return {"failed": str(failure)}


def _is_hit(value: Any) -> bool:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return len(items) == len(Hit._fields) and all(isinstance(item, str) for item in items)


def _spelled(request: Request) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in request.items())
