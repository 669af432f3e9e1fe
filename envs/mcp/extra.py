"""The optional package `mcp`, imported when it is needed."""

from __future__ import annotations

from types import ModuleType

from treegrpo.envs.errors import TreegrpoError


def require_mcp() -> ModuleType:
    """Return the package `mcp`.

    Raises:
        TreegrpoError: it is not installed, with the line that installs it.
    """
    try:
        import mcp
    except ImportError as error:
        raise TreegrpoError(
            f"MCP asked for, but the package 'mcp' cannot be imported ({error}). Install it "
            "with: pip install 'treegrpo[mcp]'"
        ) from error
    return mcp
