r"""Text of others made fit for a page: what is hidden becomes visible, numbers get one spelling.

Escaping is the template's work. Here goes what escaping cannot mend: terminal escapes, control
characters, marks that reverse the reading direction, characters without width.

    ESC and other C0 controls   their picture from the block "Control Pictures" (U+2400)
    C1 controls, direction marks, zero width, tags, lone surrogates   U+FFFD
    \n and \t   stay: they are layout
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from pydantic import JsonValue

_HIDDEN = re.compile(r"[^\n\t -~]")
_REPLACEMENT = "\ufffd"
_DELETE_PICTURE = "\u2421"


def visible(text: str) -> str:
    """Return the text with every hidden character shown; visible text comes back unchanged."""
    return _HIDDEN.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return _DELETE_PICTURE
    # Cc, Cf (direction, zero width, tags), Cs, Co, Cn; line and paragraph separators.
    hidden = unicodedata.category(character)[0] == "C" or 0x2028 <= code <= 0x2029
    return _REPLACEMENT if hidden else character


def percent(share: float) -> str:
    """Return "83.3 %" for 0.8333; halves go up, as in the pages' scripts."""
    return f"{_tenths(share)} %"


def interval(low: float | None, high: float | None) -> str:
    """Return "71.2 to 95.4 %", or "no interval"."""
    if low is None or high is None:
        return "no interval"
    return f"{_tenths(low)} to {_tenths(high)} %"


def counted(number: float | None, digits: int = 0) -> str:
    """Return "12,345", or "not counted" where nobody counted."""
    return "not counted" if number is None else f"{number:,.{digits}f}"


def options(kwargs: Mapping[str, JsonValue]) -> str:
    """Return an environment's options as "backend=sandbox, level=3", or ""."""
    return ", ".join(f"{name}={value}" for name, value in sorted(kwargs.items()))


def letter(word: str) -> str:
    """Return the letter that stands beside a number: r, c or d."""
    return {"replayed": "r", "recomputed": "c", "declared": "d"}[word]


def _tenths(share: float) -> str:
    return f"{math.floor(1_000 * share + 0.5 + 1e-9) / 10:.1f}"
