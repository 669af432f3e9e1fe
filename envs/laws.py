"""The laws every environment keeps."""

from __future__ import annotations

from typing import Any


def check_env_laws(env: Any, *, episodes: int = 3, seed: int = 0, actions: Any = None) -> list[Any]:
    """Return nothing yet."""
    return []
