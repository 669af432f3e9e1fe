"""key=value options of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from treegrpo.envs.errors import TreegrpoError


def parse_pairs(option: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return {"key": value} of "key=value"; a value is JSON where it parses, else text.

    Args:
        option: what the user wrote them after, such as "--env-arg".
        pairs: as they were written; None is none.

    Raises:
        TreegrpoError: a pair without "=", or a key given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            fault = "that key came before" if equals and key else "no key=value"
            raise TreegrpoError(
                f"{option} '{pair}' asked for, found {fault}. Write {option} top_k=3."
            )
        try:
            found[key] = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            found[key] = value
    return found
