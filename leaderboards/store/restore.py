"""Bundles out of the store: read from the objects, or written back as the folder they were."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.bundle import (
    EPISODES,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    MAX_MANIFEST_BYTES,
    Bundle,
    read_bundle,
)
from treegrpo.leaderboards.chain import leaf_hash, root_of
from treegrpo.leaderboards.errors import BundleError, NotInStore, StoreError
from treegrpo.leaderboards.files import content, lines, parsed, sync_folder, write_file
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.signature import MAX_SIGNATURE_BYTES, SIGNATURE
from treegrpo.leaderboards.store.objects import Objects
from treegrpo.leaderboards.store.tables import ObjectTable
from treegrpo.leaderboards.trajectories import (
    FOLDER,
    MAX_PACKED_BYTES,
    file_name,
    read_trajectory,
)

_LIMITS = {
    MANIFEST: MAX_MANIFEST_BYTES,
    EPISODES: MAX_FILE_BYTES,
    SIGNATURE: MAX_SIGNATURE_BYTES,
}


@dataclass(frozen=True)
class KeptBundle:
    """What the objects hold of one run; `manifest` is None and `episodes` empty for a claim."""

    digest: str
    objects: Objects
    files: Mapping[str, str]
    """Name in the bundle -> digest of the object."""
    manifest: Manifest | None
    episodes: list[EpisodeRecord]

    def events(self, index: int, trial: int) -> list[Event]:
        """Return the action log of one episode.

        Raises:
            StoreError: no such episode, or its file is damaged.
        """
        found = [e for e in self.episodes if (e.index, e.trial) == (index, trial)]
        if self.manifest is None or not found:
            raise NotInStore(
                f"Task {index}, trial {trial} of run {self.digest[:12]} asked for, which has no "
                "such episode in the store. Its page lists those there are."
            )
        [episode] = found
        if episode.chain is None or episode.trajectory is None:
            return []
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / FOLDER).mkdir()
            data = self.objects.get(episode.trajectory, MAX_PACKED_BYTES)
            (Path(folder) / file_name(episode.chain)).write_bytes(data)
            return read_trajectory(Path(folder), self.manifest, episode)


def kept_bundle(session: Session, objects: Objects, digest: str) -> KeptBundle:
    """Return what the objects hold of a run.

    Raises:
        StoreError: a file is missing or damaged.
    """
    query = sa.select(ObjectTable.name, ObjectTable.digest)
    found = session.execute(query.where(ObjectTable.run_digest == digest))
    files = {name: object_digest for name, object_digest in found}
    manifest, episodes = None, list[EpisodeRecord]()
    try:
        if MANIFEST in files:
            text = objects.get(files[MANIFEST], _LIMITS[MANIFEST])
            manifest = Manifest.model_validate(parsed(text, MANIFEST, indent=2))
        if EPISODES in files:
            text = objects.get(files[EPISODES], _LIMITS[EPISODES])
            episodes = [
                EpisodeRecord.model_validate(parsed(line, EPISODES))
                for _, line in lines(text, MAX_LINE_BYTES, EPISODES)
            ]
    except (BundleError, ValidationError) as error:
        raise StoreError(
            f"The files of run {digest[:12]} asked for, but what the store names as such is none: "
            f"{error!s:.200} Restore the database from a backup."
        ) from error
    return KeptBundle(digest, objects, files, manifest, episodes)


def keep_bundle(objects: Objects, bundle: Bundle) -> dict[str, str]:
    """Return name -> digest of the bundle's own files, which are among the objects from now on.

    What is kept is what was read and replayed: a file that has changed since is refused.

    Raises:
        BundleError: a file has changed since it was read.
        StoreError: the folder cannot be written.
    """
    texts = {name: content(bundle.path / name, limit) for name, limit in _LIMITS.items()
             if (bundle.path / name).exists()}  # fmt: skip
    leaves = [leaf_hash(line) for _, line in lines(texts[EPISODES], MAX_LINE_BYTES, EPISODES)]
    manifest = Manifest.model_validate(parsed(texts[MANIFEST], MANIFEST, indent=2))
    if manifest != bundle.manifest or root_of(leaves) != manifest.root:
        raise BundleError(
            f"The bundle '{bundle.path}' changed while it was replayed. Leave it alone, and add "
            "it again."
        )
    for episode in bundle.episodes:
        if episode.chain is not None:
            data = content(bundle.path / file_name(episode.chain), MAX_PACKED_BYTES)
            if objects.put(data) != episode.trajectory:
                raise BundleError(
                    f"{file_name(episode.chain)} of the bundle '{bundle.path}' changed while it "
                    "was replayed. Leave it alone, and add it again."
                )
    return {name: objects.put(text) for name, text in texts.items()}


def write_back(kept: KeptBundle, out: Path) -> Path:
    """Write a run's bundle as the folder that it was; it appears whole and checked, or not.

    Raises:
        StoreError: the store has no bundle of it, `out` exists, or it cannot be written.
    """
    if MANIFEST not in kept.files or EPISODES not in kept.files:
        raise NotInStore(
            f"The bundle of run {kept.digest[:12]} asked for, but the store has only its numbers. "
            "Ask whoever evaluated it."
        )
    if out.exists() or out.is_symlink():
        raise StoreError(
            f"The bundle of run {kept.digest[:12]} asked for at '{out}', but that path exists. "
            "Give another path."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            _write_files(kept, part)
            assert read_bundle(part).digest == kept.digest, "each object has its digest"
            part.chmod(0o755)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(out.parent)
    except OSError as error:
        raise StoreError(
            f"The bundle of run {kept.digest[:12]} asked for at '{out}', but it cannot be "
            f"written: {error.strerror}. Give a path with space and write permission."
        ) from error
    return out


def object_limit(name: str) -> int:
    """Return how many bytes a bundle's own file may have."""
    return _LIMITS[name]


def _write_files(kept: KeptBundle, folder: Path) -> None:
    (folder / FOLDER).mkdir()
    for name, limit in _LIMITS.items():
        if name in kept.files:
            write_file(folder / name, kept.objects.get(kept.files[name], limit))
    for episode in kept.episodes:
        if episode.chain is not None and episode.trajectory is not None:
            data = kept.objects.get(episode.trajectory, MAX_PACKED_BYTES)
            write_file(folder / file_name(episode.chain), data)
