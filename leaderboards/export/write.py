"""Write a bundle in another format: whole or not at all, and never over something else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.export import every_eval_ever, hugging_face, inspect_log
from treegrpo.leaderboards.files import sync_folder


@dataclass(frozen=True)
class Format:
    """How a bundle is written: `write` makes a file or folder at a path where nothing is."""

    write: Callable[[Bundle, Path], None]
    suffix: str | None
    """What the file's name must end in; None for a folder."""


FORMATS: Mapping[str, Format] = {
    every_eval_ever.NAME: Format(every_eval_ever.write, None),
    hugging_face.NAME: Format(hugging_face.write, ".yaml"),
    inspect_log.NAME: Format(inspect_log.write, ".json"),
}


def export(bundle: Path, format_name: str, out: Path) -> Bundle:
    """Return the bundle that was read, after writing it at `out` in another format.

    The bundle is checked as `read_bundle` checks it, not replayed.

    Args:
        bundle: folder of a bundle.
        format_name: one of FORMATS.
        out: a path where nothing is, outside the bundle; it appears whole or not at all.

    Raises:
        TreegrpoError: an unknown format, or a place that cannot be written.
        BundleError: a bundle that cannot be read.
    """
    wanted = FORMATS.get(format_name)
    if wanted is None:
        raise UnknownOption(
            f"Format '{format_name}' asked for, found {', '.join(FORMATS)}."
            f"{suggest(format_name, FORMATS)} Give one of these."
        )
    _check_place(bundle, wanted, format_name, out)
    found = read_bundle(bundle)
    try:
        _write(found, wanted, out)
    except OSError as error:
        raise TreegrpoError(
            f"An export to '{out}' asked for, but it cannot be written: {error.strerror}. "
            "Give a path in an existing folder with space and write permission."
        ) from error
    except (OverflowError, ValueError) as error:
        raise TreegrpoError(
            f"An export of '{bundle}' asked for, but it holds a number that {format_name} cannot "
            f"hold: {ascii(str(error))[1:-1][:200]}. No evaluation gives it: mistrust this bundle."
        ) from error
    return found


def _check_place(bundle: Path, wanted: Format, name: str, out: Path) -> None:
    if wanted.suffix is not None and out.suffix != wanted.suffix:
        raise TreegrpoError(
            f"An export to '{out}' asked for, but {name} is one file whose name ends in "
            f"{wanted.suffix}. Give such a name."
        )
    if out.resolve().is_relative_to(bundle.resolve()):
        raise TreegrpoError(
            f"An export to '{out}' asked for, but that lies in the bundle '{bundle}', where "
            "nothing else may lie. Give a path outside it."
        )
    _check_free(out)


def _check_free(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise TreegrpoError(
            f"An export to '{out}' asked for, but that path exists already. Give another path, "
            "or move away what is there; nothing is overwritten."
        )


def _write(bundle: Bundle, wanted: Format, out: Path) -> None:
    """Write beside `out`, then give it its name; on any error nothing stays."""
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", dir=out.parent))
    try:
        made = stage / out.name
        wanted.write(bundle, made)
        _check_free(out)
        made.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(stage)
