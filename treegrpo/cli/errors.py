"""How a command ends early: one message, and the exit code that says which kind it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import NoReturn

import typer
from rich.console import Console

from treegrpo.envs.errors import TreegrpoError
from treegrpo.sandboxes.errors import SandboxError

USER_ERROR, STOPPED = 2, 130

# typer carries click's classes under a private name or uses click's own, by version; the
# public BadParameter has the same ancestors in both.
_CLICK_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class Stopped(Exception):
    """The user pressed Ctrl-C; the message says what was kept and how to go on."""


@contextlib.contextmanager
def stopping(message: str) -> Generator[None]:
    """Turn Ctrl-C into `Stopped` with a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message) from None


def run(app: typer.Typer) -> None:
    """Run the command line and leave with its exit code; a user's error is one message."""
    try:
        code = app(prog_name="treegrpo", standalone_mode=False)
    except (TreegrpoError, SandboxError) as error:
        _leave(f"Error: {error}", USER_ERROR)
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        reason = error.strerror or error
        _leave(
            f"Error: Reading or writing{where} was asked for, but: {reason}. Check the path, its "
            "permissions and the free space.",
            USER_ERROR,
        )
    except (Stopped, KeyboardInterrupt, typer.Abort) as stop:
        _leave(str(stop) or "Stopped.", STOPPED)
    except Exception as error:
        if not isinstance(error, _CLICK_ERROR):
            raise
        _leave(usage_message(error), USER_ERROR)
    if isinstance(code, int) and code:
        _leave("Stopped." if code == STOPPED else "", code)


def usage_message(error: Exception) -> str:
    """Return what is wrong with a command line: the command, the fault, where help is."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "treegrpo"
    text = str(getattr(error, "format_message", lambda: error)()).strip()
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        return context.get_help()
    end = "" if text.endswith(("?", ".")) else "."
    return f"Error: '{path}' was called wrongly: {text}{end} See {path} --help."


def _leave(message: str, code: int) -> NoReturn:
    if message:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(message, style="red" if code == USER_ERROR else "", markup=False)
    sys.exit(code)
