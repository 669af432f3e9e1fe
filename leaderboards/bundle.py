"""Bundles on disk: read as if a stranger had written them.

A bundle is a folder with run.json, episodes.jsonl and trajectories/ (schema.py), and nothing
else but a signature. run.json holds the root over all episodes and its own digest, an episode
the digest of its trajectory, and every text has one spelling only: a change of any single byte
is found. That proves nothing about who wrote it: whoever rewrites everything can recompute
everything. What a forger cannot recompute is the replay (verify.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from treegrpo.envs.digest import digest
from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.chain import episode_seed, merkle_root, spelled
from treegrpo.leaderboards.errors import BundleError, first_fault
from treegrpo.leaderboards.files import content, lines, parsed, write_file
from treegrpo.leaderboards.schema import FORMAT, FORMAT_VERSION, EpisodeRecord, Manifest
from treegrpo.leaderboards.signature import SIGNATURE, check_form
from treegrpo.leaderboards.trajectories import FOLDER, file_name, read_trajectory

MAX_MANIFEST_BYTES = 64 * 2**20
MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 256 * 2**20
MANIFEST = "run.json"
EPISODES = "episodes.jsonl"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: well-formed, complete and unaltered, but not replayed."""

    path: Path
    manifest: Manifest
    episodes: tuple[EpisodeRecord, ...]

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return self.manifest.digest

    def events(self, episode: EpisodeRecord) -> list[Event]:
        """Return an episode's action log, read and checked anew.

        Raises:
            BundleError: the file has changed since.
        """
        return read_trajectory(self.path, self.manifest, episode)


def write_bundle(folder: Path, head: dict[str, Any], episodes: Sequence[EpisodeRecord]) -> Manifest:
    """Write run.json and episodes.jsonl beside the trajectories and return the manifest.

    Args:
        folder: an existing folder that holds the trajectories.
        head: the manifest's fields without root and digest.
        episodes: in order of index, then trial.

    Raises:
        BundleError: a value that is out of bounds.
        OSError: no space, no permission.
    """
    try:
        manifest = sealed_manifest(head | {"root": merkle_root(episodes)})
        rows = [spelled(episode.model_dump(mode="json")) for episode in episodes]
        text = spelled(manifest.model_dump(mode="json"), indent=2)
    except (ValidationError, PydanticSerializationError, ValueError) as error:
        fault = str(error)
        if isinstance(error, (ValidationError, PydanticSerializationError)):
            fault = first_fault(error)
        raise BundleError(
            f"Writing a bundle asked for, but it would hold a value that cannot be written: "
            f"{fault}. Change the environment or the agent that gave it."
        ) from error
    write_file(folder / EPISODES, b"".join(rows))
    write_file(folder / MANIFEST, text)
    return manifest


def sealed_manifest(fields: dict[str, Any]) -> Manifest:
    """Return the manifest of these fields with its own digest filled in."""
    draft = Manifest.model_validate(fields | {"digest": "0" * 64})
    return draft.model_copy(update={"digest": _manifest_digest(draft)})


def read_bundle(path: Path) -> Bundle:
    """Return the bundle at `path`: sizes, spellings, schemas, hashes, completeness, seeds checked.

    Raises:
        BundleError: names the file, the line and the field that is wrong.
    """
    if path.is_symlink() or not path.is_dir():
        found = "a file or a link" if path.exists() or path.is_symlink() else "nothing"
        raise BundleError(
            f"A bundle at '{path}' asked for, found {found}. "
            "Give the folder that treegrpo eval --out wrote."
        )
    _refuse_other_formats(path)
    _refuse_suite(path)
    _check_names(path, {MANIFEST, EPISODES, FOLDER, SIGNATURE})
    manifest = _read_manifest(path)
    episodes = _read_episodes(path)
    if not episodes or merkle_root(episodes) != manifest.root:
        raise BundleError(
            f"{EPISODES} of the bundle '{path}' was altered after it was written: its lines do "
            f"not give the root that {MANIFEST} records. Get the bundle again, or evaluate again."
        )
    _check_completeness(manifest, episodes)
    _check_seeds(manifest, episodes)
    bundle = Bundle(path, manifest, tuple(episodes))
    _check_trajectories(bundle)
    if (path / SIGNATURE).exists() or (path / SIGNATURE).is_symlink():
        check_form(path)
    return bundle


def _refuse_other_formats(path: Path) -> None:
    if (path / "trajectories.jsonl").exists():
        raise BundleError(
            f"The bundle '{path}' is of format 1 (one trajectories.jsonl), found where format "
            f"{FORMAT_VERSION} is read. Evaluate again with this version."
        )


def _refuse_suite(path: Path) -> None:
    """Tell a folder of bundles, as an evaluation of a suite leaves it, from a broken bundle."""
    if (path / MANIFEST).exists():
        return
    count = sum(1 for _ in path.glob(f"*/{MANIFEST}"))
    if count:
        raise BundleError(
            f"A bundle at '{path}' asked for, found a folder of {count} bundles, as eval writes "
            f"it for a suite. Give them one by one: {path}/*"
        )


def _read_manifest(path: Path) -> Manifest:
    value = parsed(content(path / MANIFEST, MAX_MANIFEST_BYTES), MANIFEST, indent=2)
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    version = fields.get("format_version")
    if fields.get("format") == FORMAT and version != FORMAT_VERSION:
        raise BundleError(
            f"{MANIFEST}, field format_version: format {version!r:.20} found, format "
            f"{FORMAT_VERSION} is read. Evaluate again with this version."
        )
    manifest = _model(Manifest, value, MANIFEST)
    if _manifest_digest(manifest) != manifest.digest:
        raise BundleError(
            f"{MANIFEST} of the bundle '{path}' was altered after it was written: its content "
            "does not give the digest that it states. Get the bundle again, or evaluate again."
        )
    return manifest


def _read_episodes(path: Path) -> list[EpisodeRecord]:
    episodes: list[EpisodeRecord] = []
    for number, line in lines(content(path / EPISODES, MAX_FILE_BYTES), MAX_LINE_BYTES, EPISODES):
        where = f"{EPISODES}, line {number}"
        episodes.append(_model(EpisodeRecord, parsed(line, where), where))
    return episodes


def _model(model: type[M], value: Any, where: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BundleError(
            f"{where}, {first_fault(error)}. The bundle is damaged or of another format: "
            "get it again, or evaluate again."
        ) from None


def _check_completeness(manifest: Manifest, episodes: Sequence[EpisodeRecord]) -> None:
    """Every task has every trial, once, in order."""
    indices = range(manifest.first_index, manifest.first_index + manifest.num_tasks)
    if [task.index for task in manifest.tasks] != list(indices):
        raise BundleError(
            f"{MANIFEST}, field tasks: {manifest.num_tasks} tasks from index "
            f"{manifest.first_index} were asked for, others are listed. Evaluate again."
        )
    pairs = [(index, trial) for index in indices for trial in range(manifest.trials)]
    found = [(episode.index, episode.trial) for episode in episodes]
    for line, (have, want) in enumerate(zip_longest(found, pairs), start=1):
        if have != want:
            expected = "no further line" if want is None else f"{want}"
            raise BundleError(
                f"{EPISODES}, line {line}, field index/trial: {expected} was expected, found "
                f"{have}. Every task needs every trial, once, in order: evaluate again."
            )


def _check_seeds(manifest: Manifest, episodes: Sequence[EpisodeRecord]) -> None:
    tasks = {task.index: task for task in manifest.tasks}
    for line, episode in enumerate(episodes, start=1):
        pair = episode.index, episode.trial
        seed = episode_seed(manifest.env_id, manifest.split, *pair, manifest.seed)
        if episode.seed != seed:
            raise BundleError(
                f"{EPISODES}, line {line}, field seed: {episode.seed} is recorded, but seed "
                f"{manifest.seed} of run.json gives {seed}. Seeds cannot be picked: evaluate again."
            )
        task = tasks[episode.index]
        if episode.failure is None and (episode.task_id, episode.difficulty) != (
            task.id,
            task.difficulty,
        ):
            raise BundleError(
                f"{EPISODES}, line {line}, field task_id/difficulty: other than {MANIFEST} lists "
                f"for task {episode.index}. Evaluate again."
            )
        if (episode.chain is None) != (episode.trajectory is None):
            raise BundleError(
                f"{EPISODES}, line {line}, field trajectory: a chain and its file come together. "
                "Evaluate again."
            )


def _check_trajectories(bundle: Bundle) -> None:
    """Every log is there and right, and there is no other."""
    chains = [episode.chain for episode in bundle.episodes if episode.chain is not None]
    folder = bundle.path / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(
            f"'{FOLDER}' asked for in the bundle '{bundle.path}', found no such folder. "
            "Get the bundle again."
        )
    for episode in bundle.episodes:
        bundle.events(episode)
    _check_names(folder, {Path(file_name(chain)).name for chain in chains})


def _check_names(folder: Path, known: set[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in known:
                raise BundleError(
                    f"{ascii(entry.name)[:100]} found in '{folder}', which no bundle has there. "
                    "Take it out, or get the bundle again."
                )


def _manifest_digest(manifest: Manifest) -> str:
    return digest(manifest.model_dump(mode="json", exclude={"digest"}))
