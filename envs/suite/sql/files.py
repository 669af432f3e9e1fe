"""The files of a folder that may be a stranger's: no link leads out, each has a cap."""

from __future__ import annotations

from pathlib import Path

from treegrpo.envs.records import DataFile


def file_in(root: Path, name: str, what: str, max_bytes: int) -> DataFile:
    """Return the file of that name in a folder, whether it is there or not.

    Raises:
        DataFileError: a link that leads out of the folder, or in a circle.
    """
    file = DataFile(root / name, what, max_bytes)
    try:
        is_inside = file.path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # which of the two depends on Python's version
        raise file.error("it is a link in a circle", "Put the file itself there.") from error
    if not is_inside:
        found = "it is a link that leads out of the folder"
        raise file.error(found, "Put the file itself into the folder.")
    return file


def read_bytes(file: DataFile, *, first: int | None = None) -> bytes:
    """Return the bytes of a binary file, or only the first few.

    Raises:
        DataFileError: no such file, not a regular one, or one over its cap (told by its size,
            nothing is read then).
    """
    try:
        _check(file)
        with file.path.open("rb") as stream:
            return stream.read(file.max_bytes if first is None else first)
    except OSError as error:
        found = f"it cannot be read ({error.strerror})"
        raise file.error(found, "Check the rights of the file and its folder.") from error


def _check(file: DataFile) -> None:
    if not file.path.exists():
        raise file.error("there is no such file", "Unpack the whole data set; none is fetched.")
    if not file.path.is_file():  # a pipe would be waited for, a device never ends
        raise file.error("this is not a regular file", "Put the file itself there.")
    if file.path.stat().st_size > file.max_bytes:
        found = f"it is larger than {file.max_bytes / 1024**2:g} MiB"
        raise file.error(found, "Leave it and the rows about it out.")
