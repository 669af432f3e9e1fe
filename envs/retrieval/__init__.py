"""Search engines behind tools: what they find and what pages say, recorded and replayed.

    retriever = open_retriever("web", provider="searxng", url="http://localhost:8888",
                               cassette="web.sqlite")
    hits = retriever.search("tallest lighthouse", 5)
    text = retriever.open(hits[0])

Every reply goes through a cassette, so that siblings of a fork, and replays months later, see
the same web.
"""

from treegrpo.envs.retrieval.base import Hit, PageFailed, RetrievalFailed, Retriever
from treegrpo.envs.retrieval.cassette import Cassette, CassetteMode
from treegrpo.envs.retrieval.open import RetrieverName, open_retriever
from treegrpo.envs.retrieval.recorded import Recorded

__all__ = [
    "Cassette",
    "CassetteMode",
    "Hit",
    "PageFailed",
    "Recorded",
    "RetrievalFailed",
    "Retriever",
    "RetrieverName",
    "open_retriever",
]
