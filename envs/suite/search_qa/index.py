"""Retrieval: BM25 over a fixed set of documents, by bm25s, with ties broken by position."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import bm25s  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from treegrpo.envs.suite.search_qa.schemas import Document


class DocumentIndex:
    """An immutable index: shared by every fork of every episode over these documents."""

    def __init__(self, documents: Sequence[Document]) -> None:
        """Index the documents once."""
        self.documents = tuple(documents)
        self._bm25: Any = bm25s.BM25()
        texts = [f"{d.title} {d.text}" for d in self.documents]
        self._bm25.index(_tokens(texts), show_progress=False)
        # Agents repeat queries a great deal: siblings of a fork most of all.
        self._cached = functools.lru_cache(maxsize=4096)(self._search)

    def search(self, query: str, top_k: int) -> tuple[int, ...]:
        """Return the positions of the best documents with a score above zero, best first."""
        return self._cached(query, top_k)

    def _search(self, query: str, top_k: int) -> tuple[int, ...]:
        words = [w for w in _tokens([query])[0] if w in self._bm25.vocab_dict]
        if not words:
            return ()
        scores = cast("np.ndarray[Any, np.dtype[np.float32]]", self._bm25.get_scores(words))
        order = np.lexsort((np.arange(len(scores)), -scores))[:top_k]
        return tuple(int(i) for i in order if scores[i] > 0)


def _tokens(texts: list[str]) -> list[list[str]]:
    return cast(
        "list[list[str]]",
        bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False),  # pyright: ignore[reportUnknownMemberType]
    )
