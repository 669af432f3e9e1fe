"""treegrpo check: the laws of an environment, and whatever its author got wrong in one message."""

from __future__ import annotations

from typing import Annotated

import typer

from treegrpo.envs.errors import GraderFailed, SandboxFailed, TreegrpoError, raised_at
from treegrpo.envs.laws import LawReport, check_env_laws
from treegrpo.sandboxes.errors import SandboxError


def check_command(
    env: Annotated[str, typer.Argument(help="Environment id, such as treegrpo/SearchQA-v0.")],
) -> None:
    """Check an environment against the laws of snapshots, restores and forks."""
    for report in _reports(env):
        typer.echo(f"{report.law}: holds ({report.checks} checks)")


def _reports(env: str) -> list[LawReport]:
    """Return one report per law; what the author's code raises is told as a user's error."""
    try:
        return check_env_laws(env)
    except (TreegrpoError, SandboxError):
        raise
    except (GraderFailed, SandboxFailed) as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001 - an author's code may raise anything
        fault = f"it raised {type(error).__name__} at {raised_at(error)}: {error}"
    raise TreegrpoError(
        f"Checking '{env}' was asked for, but {fault.rstrip('.')}. Correct it, and check again."
    )
