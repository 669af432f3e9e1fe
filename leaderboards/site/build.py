"""A leaderboard as a folder of files that any static host can serve, or a browser can open.

The folder appears whole or not at all: it is written beside its place and then renamed. An older
site is replaced; a folder that holds anything else is refused. A build that is killed leaves its
folders beside the place: the next one puts an older site back where none stands, and sweeps.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import Board, BoardKey, EnvironmentDetail, RunDetail
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.site.data import environment_id, model_json, run_name, run_script
from treegrpo.leaderboards.site.pages import (
    ASSETS,
    MAX_EPISODES,
    STATIC,
    render_board,
    render_environment,
    render_index,
    render_run,
)
from treegrpo.leaderboards.site.viewer import write_episodes
from treegrpo.leaderboards.site.viewer_model import Link

_LEFT_AFTER_S = 24 * 3600.0
"""What another build left is swept when it is older: a younger one may be at work."""
MARK = ".treegrpo-site"
"""An empty file by which a folder is known as a site, and may be replaced."""


class BoardSource(Protocol):
    """What a site is built from; the results database is one."""

    def boards(self) -> Sequence[BoardKey]:
        """Return the key of every board."""
        ...

    def board(self, board_id: str) -> Board:
        """Return one board."""
        ...

    def run_detail(self, digest: str) -> RunDetail:
        """Return everything that is known of one run."""
        ...

    def environment_detail(
        self, env_id: str, env_kwargs: Mapping[str, Any], split: str
    ) -> EnvironmentDetail:
        """Return what is known of one environment."""
        ...

    def episode_logs(self, digest: str) -> Callable[[int, int], list[Event]]:
        """Return what gives the action log of each episode (index, trial) of one run."""
        ...


def build_site(source: BoardSource, out: Path) -> int:
    """Return the number of files of the site that now stands at `out`.

    Raises:
        StoreError: `out` holds other files or cannot be written, or a run cannot be read.
    """
    check_place(out)
    with _writing(out):
        _sweep(out)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        try:
            part.chmod(0o755)  # a web server may be another user
            _write_site(source, part)
            count = sum(path.is_file() for path in part.rglob("*"))
            _replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return count


def check_place(out: Path) -> None:
    """Refuse a place that holds anything but an older site.

    Raises:
        StoreError: there is a file, or a folder with other files.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise StoreError(f"A site at '{out}' asked for, but that is no folder. Give another path.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise StoreError(
            f"A site at '{out}' asked for, but that folder holds other files. Give an empty or "
            "new folder, or one that this command has made."
        )


def _write_site(source: BoardSource, out: Path) -> None:
    (out / MARK).touch()
    for name in ("static", "boards", "environments", "runs", "data"):
        (out / name).mkdir()
    for name in ASSETS:
        shutil.copyfile(STATIC / name, out / "static" / name)
    boards = [source.board(key.id) for key in source.boards()]
    _write(out / "index.html", render_index(boards))
    environments: set[str] = set()
    for board in boards:
        key = board.key
        _write(out / "boards" / f"{key.id}.html", render_board(board))
        _write(out / "boards" / f"{key.id}.json", model_json(board))
        name = environment_id(key.env_id, key.env_kwargs, key.split)
        if name not in environments:
            environments.add(name)
            detail = source.environment_detail(key.env_id, key.env_kwargs, key.split)
            _write(out / "environments" / f"{name}.html", render_environment(detail))
        for row in board.rows:
            _write_run(source, source.run_detail(row.digest), out)


def _write_run(source: BoardSource, detail: RunDetail, out: Path) -> None:
    """Write the pages of one run; at any time one run is in memory, not all of them."""
    digest = detail.row.digest
    name = run_name(digest)
    _write(out / "runs" / f"{name}.html", render_run(detail))
    if detail.manifest is None or not detail.episodes:
        return
    _write(out / "data" / f"{name}.js", run_script(detail))
    listed = detail.model_copy(update={"episodes": detail.episodes[:MAX_EPISODES]})
    log_of = source.episode_logs(digest)
    write_episodes(
        listed,
        lambda episode: log_of(episode.index, episode.trial),
        out,
        links=[Link("The run", f"../runs/{name}.html")],
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(part: Path, out: Path) -> None:
    """Put the finished folder in its place; an older site is moved aside first, then deleted."""
    if not out.exists():
        part.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    aside.rmdir()
    out.rename(aside)
    try:
        part.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Put back the site that a killed build had moved aside, and delete what is left of others."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}\.(part|old)")
    left = [path for path in out.absolute().parent.iterdir() if name.fullmatch(path.name)]
    sites = [path for path in left if (path / MARK).is_file()]
    aside = [path for path in sites if path.suffix == ".old"]
    if aside and not out.exists():
        max(aside, key=lambda path: path.stat().st_mtime).rename(out)
    for path in sites:
        if path.exists() and time.time() - path.stat().st_mtime > _LEFT_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _writing(out: Path) -> Generator[None]:
    try:
        if not os.path.isdir(out.absolute().parent):
            raise FileNotFoundError(2, "its parent folder does not exist")
        yield
    except OSError as error:
        raise StoreError(
            f"A site at '{out}' asked for, but it cannot be written: {error.strerror}. "
            "Give a path with space and write permission."
        ) from error
