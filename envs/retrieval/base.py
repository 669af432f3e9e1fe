"""What a retriever is: it finds hits for a query, and gives the text behind a hit.

Two kinds of failure, told apart by whose they are:

    PageFailed         a page of the web that cannot be read: the agent is told, and goes on
    RetrievalFailed    the search engine, the key or the cassette fails: not the agent's fault,
                       so the rollout ends and is counted as the machinery's failure
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from treegrpo.envs.errors import SandboxFailed


class Hit(NamedTuple):
    """One result of a search: plain texts, so that it can stand in an episode's state.

    `text` is a passage or a short look at the page; `address` is what the retriever needs to
    give the whole text, such as a URL; empty where `text` is the whole.
    """

    title: str
    address: str
    text: str


class PageFailed(Exception):
    """A page that cannot be read, with the reason; an observation for the agent."""


class RetrievalFailed(SandboxFailed):
    """What a search tool works on failed: the engine, a key, or a reply never recorded."""


class Retriever(Protocol):
    """Where documents come from."""

    def search(self, query: str, top_k: int) -> list[Hit]:
        """Return at most `top_k` hits, best first.

        Raises:
            RetrievalFailed: no answer to be had; the agent cannot help it.
        """
        ...

    def open(self, hit: Hit) -> str:
        """Return the whole text behind a hit.

        Raises:
            PageFailed: this page cannot be read.
            RetrievalFailed: nothing can be read now.
        """
        ...
