"""Pages on this machine as a retriever: found by BM25, opened by their place."""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.envs.retrieval.base import Hit
from treegrpo.envs.suite.search_qa.index import DocumentIndex
from treegrpo.envs.suite.search_qa.reading import sentences
from treegrpo.envs.suite.search_qa.schemas import Document

_TITLE_WEIGHT = 3


class Shelf:
    """A fixed set of documents, shared by every fork of every episode over them."""

    def __init__(self, documents: Sequence[Document]) -> None:
        """Index the documents once; a title weighs more than the text."""
        self.documents = tuple(documents)
        weighted = (Document(" ".join([d.title] * _TITLE_WEIGHT), d.text) for d in documents)
        self._index = DocumentIndex(tuple(weighted))

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return the best documents, each with its first sentence."""
        return [self._hit(position) for position in self._index.search(query, top_k)]

    def open(self, hit: Hit) -> str:
        """Return the text of a document."""
        return self.documents[int(hit.address)].text

    def _hit(self, position: int) -> Hit:
        document = self.documents[position]
        return Hit(document.title, str(position), "".join(sentences(document.text)[:1]))
