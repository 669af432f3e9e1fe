"""From the bytes of a web page to the text that an agent reads."""

from __future__ import annotations

import codecs
import importlib
import re
from collections.abc import Callable
from typing import Any

from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.retrieval.base import PageFailed
from treegrpo.envs.retrieval.fetch import Answer

Extract = Callable[[str], str | None]
MAX_PAGE_CHARS = 50_000
_HTML = ("text/html", "application/xhtml+xml", "")
_ALSO_TEXT = ("application/json", "application/xml")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def load_extractor() -> Extract:
    """Return trafilatura's extraction of a page's main text.

    Raises:
        UnknownOption: trafilatura cannot be imported, with the line that installs it.
    """
    try:
        trafilatura: Any = importlib.import_module("trafilatura")
    except ImportError as error:
        raise UnknownOption(
            "retriever='web' asked for; reading pages needs trafilatura, which cannot be imported "
            f"({' '.join(str(error).split())}). Install it with: pip install 'treegrpo[web]'. A "
            "replay needs nothing: give cassette_mode='replay'."
        ) from error
    return lambda html: trafilatura.extract(html, include_comments=False, deduplicate=False)


def page_text(answer: Answer, extract: Extract) -> str:
    """Return the text of a page, one paragraph a line, at most MAX_PAGE_CHARS.

    Raises:
        PageFailed: it is no text, or holds none.
    """
    header = answer.headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    is_plain = media.startswith("text/") or media in _ALSO_TEXT
    if media not in _HTML and not is_plain:
        raise PageFailed(f"it is no text but {media[:60]}")
    text = decode(answer.body, header, is_cut=answer.is_cut)
    if media in _HTML:
        try:
            text = extract(text) or ""
        except Exception as error:  # a parser may raise anything on hostile markup
            raise PageFailed(f"its markup cannot be read ({type(error).__name__})") from error
    lines = (" ".join(line.split()) for line in _printable(text).splitlines())
    text = "\n".join(line for line in lines if line)
    if not text:
        raise PageFailed("it holds no text")
    return text[:MAX_PAGE_CHARS]


def decode(body: bytes, content_type: str = "", *, is_cut: bool = False) -> str:
    """Return the text of a body whose charset may be declared wrongly, or not at all.

    A byte order mark is believed; then UTF-8 where it fits, since nothing else fits by chance;
    then the header, the page's own word, and Windows-1252, with a sign for what is still odd.
    """
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body.decode(name, "replace").removeprefix("\ufeff")
    declared = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", content_type, re.IGNORECASE)
    said = _META.search(body[:2_048])
    names = ["utf-8", declared[1] if declared else "", said[1].decode("ascii") if said else ""]
    for name in names:
        try:
            decoder = codecs.getincrementaldecoder(name)("strict") if name else None
            if decoder is not None:
                # A cut may go through the last character: no reason to doubt the rest.
                return decoder.decode(body, final=not is_cut)
        except (LookupError, UnicodeError, TypeError):
            continue
    return body.decode("cp1252", "replace")


def _printable(text: str) -> str:
    """Return the text without control characters, which no page needs."""
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", "", text)
