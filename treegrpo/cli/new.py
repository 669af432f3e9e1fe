"""treegrpo new: a package with one environment that works, to be made one's own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from treegrpo.cli.scaffold import env_id, files
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import list_envs

Name = Annotated[str, typer.Argument(help="Name of the package, such as my_env.")]
Into = Annotated[Path, typer.Option(help="Folder in which the package's folder is made.")]


def new_command(name: Name, into: Into = Path()) -> None:
    """Write a small package with an environment that works; nothing is ever overwritten."""
    _check_spelling(name)
    folder = into / name
    if folder.exists() or folder.is_symlink():
        raise TreegrpoError(
            f"A new package in '{folder}' asked for, but that path is taken. Give another name, "
            "or --into another folder."
        )
    _check_free(name)
    folder.mkdir(parents=True)
    for file, text in files(name).items():
        (folder / file).parent.mkdir(exist_ok=True)
        with (folder / file).open("x", encoding="utf-8") as out:
            out.write(text)
    typer.echo(f"Written: {folder}/{{{', '.join(files(name))}}}\n\nNext:")
    for line in _next_steps(name, folder):
        typer.echo(f"    {line}")


def _next_steps(name: str, folder: Path) -> list[str]:
    return [
        f"pip install -e {folder}",
        f"treegrpo check {env_id(name)}",
        f"treegrpo play {env_id(name)}",
        f"treegrpo warmstart --env {env_id(name)} --out runs/{name}_start",
        f"treegrpo train --env {env_id(name)} --model runs/{name}_start --out runs/{name}",
        f"treegrpo eval --env {env_id(name)} --agent oracle --out runs/{name}_oracle",
    ]


def _check_spelling(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name) or name.endswith("_") or "__" in name:
        raise TreegrpoError(
            f"A package '{name}' asked for; a name has small letters, digits and single "
            "underscores between them, begins with a letter, and has at most 50 characters. "
            "Try: my_env."
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise TreegrpoError(
            f"A package '{name}' asked for; that is a word of the language. Give another name."
        )


def _check_free(name: str) -> None:
    """Refuse the name of a module, a distribution or a namespace of ids that is there already."""
    taken = [id for id in list_envs() if id.partition("/")[0] == name]
    if taken:
        raise TreegrpoError(
            f"A package '{name}' asked for; {taken[0]} has that namespace. Give another name."
        )
    is_module = name in sys.modules or name in sys.stdlib_module_names
    if is_module or importlib.util.find_spec(name) is not None or _is_installed(name):
        raise TreegrpoError(
            f"A package '{name}' asked for; a module of that name can be imported already, and "
            "one would hide the other. Give another name."
        )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
