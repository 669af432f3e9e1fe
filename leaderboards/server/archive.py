"""Bundles in transit: one plain tar file, whose members are named like a bundle's files.

    run.json, episodes.jsonl, run.sig, trajectories/HASH.jsonl.gz

Not compressed: the trajectories already are, and what is not decompressed cannot explode.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import BinaryIO

from treegrpo.leaderboards.bundle import EPISODES, MANIFEST, MAX_FILE_BYTES
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.schema import MAX_EPISODES
from treegrpo.leaderboards.signature import SIGNATURE
from treegrpo.leaderboards.trajectories import FOLDER

_MEMBER = re.compile(
    rf"{re.escape(MANIFEST)}|{re.escape(EPISODES)}|{re.escape(SIGNATURE)}"
    rf"|{re.escape(FOLDER)}/[0-9a-f]{{64}}\.jsonl\.gz"
)
_BLOCK = 2**20


def pack_bundle(bundle: Path, archive: BinaryIO) -> None:
    """Write the files of a bundle as a tar file: the same bundle, the same bytes.

    Raises:
        BundleError: the folder holds something that is no file of a bundle.
    """
    paths = sorted(path for path in bundle.rglob("*") if path.is_symlink() or not path.is_dir())
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in paths:
            name = path.relative_to(bundle).as_posix()
            if path.is_symlink() or not path.is_file() or not _MEMBER.fullmatch(name):
                raise BundleError(
                    f"Sending the bundle '{bundle}' asked for, found {name!r:.200} in it, which is "
                    "no file of a bundle. Remove it."
                )
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)


def unpack_bundle(archive: BinaryIO, folder: Path) -> None:
    """Write the members of a stranger's tar file into an empty folder.

    Raises:
        BundleError: no tar file, a member that is no file of a bundle, one twice, one too large.
    """
    (folder / FOLDER).mkdir()
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count > MAX_EPISODES + 3:
                    raise _refused(f"more than {count} members")
                _unpack_member(tar, member, folder)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise _refused(f"no readable tar file ({error})") from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    if not _MEMBER.fullmatch(member.name):
        raise _refused(f"a member named {member.name!r:.200}")
    if not member.isreg() or member.issparse():
        raise _refused(f"'{member.name}', which is no regular file")
    if member.size > MAX_FILE_BYTES:
        raise _refused(f"'{member.name}' of {member.size} bytes, more than {MAX_FILE_BYTES}")
    source = tar.extractfile(member)
    assert source is not None, "a regular file has content"
    try:
        with (folder / member.name).open("xb") as file:
            while block := source.read(_BLOCK):
                file.write(block)
    except FileExistsError:
        raise _refused(f"'{member.name}' twice") from None


def _refused(found: str) -> BundleError:
    return BundleError(
        f"A bundle as a tar file asked for, found {found}. "
        "Send it with treegrpo leaderboard submit."
    )
