"""How pages are shown: a line in a list, a part of bounded size, the sentences with a word."""

from __future__ import annotations

import functools
import re

from treegrpo.envs.retrieval.base import Hit

NOTHING_FOUND = "Nothing found."
MAX_LISTED_CHARS = 120
MAX_FOUND = 5
MAX_SENTENCE_CHARS = 400


def listing(hit: Hit) -> str:
    """Return a hit as one line: its title and the beginning of its text."""
    text = " ".join(hit.text.split())
    if len(text) > MAX_LISTED_CHARS:
        text = text[:MAX_LISTED_CHARS].rpartition(" ")[0] + " ..."
    return f"{hit.title}: {text}" if text else hit.title


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, in order; a line break ends one, too."""
    return [one for one in re.split(r"(?<=[.!?])\s+|\s*\n\s*", text.strip()) if one]


@functools.lru_cache(maxsize=256)
def parts(text: str, max_chars: int) -> tuple[str, ...]:
    """Return a text in parts of at most `max_chars`, whole sentences where they fit; never none."""
    found, line = list[str](), ""
    for sentence in sentences(text):
        pieces = [sentence[i : i + max_chars] for i in range(0, len(sentence), max_chars)]
        for piece in pieces:
            joined = f"{line} {piece}" if line else piece
            if len(joined) > max_chars:
                found.append(line)
                joined = piece
            line = joined
    return (*found, line)


def find(text: str, words: str) -> str:
    """Return the first sentences that hold the words, whatever their case and spacing."""
    wanted = " ".join(words.casefold().split())
    if not wanted:
        return NOTHING_FOUND
    held = [one for one in sentences(text) if wanted in " ".join(one.casefold().split())]
    shown = [one[:MAX_SENTENCE_CHARS] for one in held[:MAX_FOUND]]
    if len(held) > MAX_FOUND:
        shown.append(f"({len(held) - MAX_FOUND} more)")
    return "\n".join(shown) or NOTHING_FOUND
