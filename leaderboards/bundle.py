"""Bundles on disk: written whole or not at all, read as if a stranger had written them.

A bundle is a folder with run.json, episodes.jsonl and trajectories.jsonl (schema.py). run.json
holds the digests of the other two and of itself, and has one spelling only, so a change of any
single byte is found. That proves nothing about who wrote it: whoever rewrites everything can
recompute everything. What a forger cannot recompute is the replay (verify.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from treegrpo.envs.digest import digest, digest_bytes, stable_seed
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest, Trajectory

MAX_MANIFEST_BYTES = 64 * 2**20
MAX_LINE_BYTES = 16 * 2**20
MAX_FILE_BYTES = 2**30
MANIFEST = "run.json"
EPISODES: Literal["episodes.jsonl"] = "episodes.jsonl"
TRAJECTORIES: Literal["trajectories.jsonl"] = "trajectories.jsonl"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: well-formed, complete and unaltered, but not replayed."""

    path: Path
    manifest: Manifest
    episodes: tuple[EpisodeRecord, ...]
    trajectories: tuple[Trajectory, ...]

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return self.manifest.digest


def episode_seed(env_id: str, split: str, index: int, trial: int, seed: int) -> int:
    """Return the reset seed of one episode; nobody picks it, and everybody can recompute it."""
    return stable_seed("eval", env_id, split, index, trial, seed)


def check_place(out: Path) -> None:
    """Refuse a place that no bundle can be written to, before any work is done.

    Raises:
        BundleError: `out` exists, or its place cannot be written.
    """
    _make_part(out).rmdir()


@contextlib.contextmanager
def staging(out: Path) -> Generator[Path]:
    """Yield a folder beside `out` that becomes `out` at the end, or vanishes on any error.

    Raises:
        BundleError: `out` exists, or its place cannot be written.
    """
    folder = _make_part(out)
    try:
        yield folder
        _sync_folder(folder)
        folder.rename(out)
        _sync_folder(out.parent)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_part(out: Path) -> Path:
    """Return a new, empty `.NAME.part`; one that a killed process left behind goes first."""
    if out.exists() or out.is_symlink():
        raise BundleError(
            f"A bundle at '{out}' asked for, but that path exists already. "
            "Give another path, or move the old bundle away; bundles are never overwritten."
        )
    try:
        folder = out.with_name(f".{out.name}.part")
        out.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder
    except OSError as error:
        raise _unwritable(out, error) from error


def write_bundle(
    folder: Path,
    head: dict[str, Any],
    episodes: Sequence[EpisodeRecord],
    trajectories: Sequence[Trajectory],
) -> Manifest:
    """Write the three files into `folder` (from `staging`) and return the manifest.

    Args:
        folder: an existing folder.
        head: the manifest's fields without files and digest.
        episodes: in order of index, then trial.
        trajectories: in the same order.

    Raises:
        BundleError: a text that cannot be spelled in UTF-8, or a value that is out of bounds.
        OSError: no space, no permission.
    """
    try:
        files = {
            EPISODES: _write_lines(folder / EPISODES, episodes),
            TRAJECTORIES: _write_lines(folder / TRAJECTORIES, trajectories),
        }
        manifest = sealed_manifest(head | {"files": files})
        _write_bytes(folder / MANIFEST, _spell(manifest))
    except (ValidationError, PydanticSerializationError) as error:
        raise BundleError(
            f"Writing a bundle asked for, but it would hold a value that cannot be written: "
            f"{first_fault(error)}. Change the environment or the agent that gave it."
        ) from error
    return manifest


def sealed_manifest(fields: dict[str, Any]) -> Manifest:
    """Return the manifest of these fields with its own digest filled in."""
    draft = Manifest.model_validate(fields | {"digest": "0" * 64})
    return draft.model_copy(update={"digest": _manifest_digest(draft)})


def read_bundle(path: Path) -> Bundle:
    """Return the bundle at `path`: schemas, sizes, digests, completeness and seeds checked.

    Raises:
        BundleError: names the file, the line and the field that is wrong.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise BundleError(
            f"A bundle at '{path}' asked for, found {found}. "
            "Give the folder that treegrpo eval --out wrote."
        )
    manifest = _read_manifest(path / MANIFEST)
    episodes = _read_lines(path / EPISODES, EpisodeRecord, manifest.files.get(EPISODES))
    trajectories = _read_lines(path / TRAJECTORIES, Trajectory, manifest.files.get(TRAJECTORIES))
    bundle = Bundle(path, manifest, tuple(episodes), tuple(trajectories))
    _check_completeness(bundle)
    return bundle


def _read_manifest(path: Path) -> Manifest:
    with _opened(path, MAX_MANIFEST_BYTES) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    manifest = _parsed(Manifest, data, path.name)
    if _spell(manifest) != data or _manifest_digest(manifest) != manifest.digest:
        raise _altered(path, "its content does not give the digest that it states")
    return manifest


def _read_lines(path: Path, model: type[M], recorded: str | None) -> list[M]:
    """Return the models of a JSONL file, checked against its recorded digest."""
    items: list[M] = []
    pieces: list[bytes] = []
    with _opened(path, MAX_FILE_BYTES) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            where = f"{path.name}, line {len(items) + 1}"
            if len(line) > MAX_LINE_BYTES:
                raise BundleError(
                    f"{where} is longer than {MAX_LINE_BYTES} bytes in the bundle "
                    f"'{path.parent}'. No evaluation writes such a line: get the bundle again."
                )
            items.append(_parsed(model, line, where))
            pieces.append(line)
    found = digest_bytes(b"".join(pieces))
    if found != recorded:
        raise _altered(path, f"run.json records the digest {recorded}, the file has {found}")
    return items


def _parsed(model: type[M], data: bytes, where: str) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(
            f"{where}, {first_fault(error)}. The bundle is damaged or of another format: "
            "get it again, or evaluate again."
        ) from None


def first_fault(error: ValidationError | PydanticSerializationError) -> str:
    """Return the first fault: its field and what is wrong with it."""
    if isinstance(error, PydanticSerializationError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, fault["loc"])) or "(whole)"
    more = f" ({error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
    # Names of unknown fields come from the file: cut, and free of control characters.
    return f"field {ascii(field)[1:-1][:200]}: {ascii(fault['msg'])[1:-1][:300]}{more}"


def _check_completeness(bundle: Bundle) -> None:
    """Every task has every trial, once, in order, under the seed that it must have."""
    manifest = bundle.manifest
    indices = range(manifest.first_index, manifest.first_index + manifest.num_tasks)
    if [task.index for task in manifest.tasks] != list(indices):
        raise BundleError(
            f"run.json, field tasks: {manifest.num_tasks} tasks from index "
            f"{manifest.first_index} were asked for, others are listed. Evaluate again."
        )
    wanted = [(index, trial) for index in indices for trial in range(manifest.trials)]
    for name, items in ((EPISODES, bundle.episodes), (TRAJECTORIES, bundle.trajectories)):
        found = [(item.index, item.trial) for item in items]
        if found != wanted:
            line = next((i for i, pair in enumerate(wanted) if found[i : i + 1] != [pair]), -1)
            what = f"{wanted[line]} was expected" if line >= 0 else "too many lines"
            raise BundleError(
                f"{name}, line {line + 1 if line >= 0 else len(wanted) + 1}, field index/trial: "
                f"{what}. Every task needs every trial, in order: evaluate again."
            )
    for line, episode in enumerate(bundle.episodes, start=1):
        pair = episode.index, episode.trial
        seed = episode_seed(manifest.env_id, manifest.split, *pair, manifest.seed)
        if episode.seed != seed:
            raise BundleError(
                f"{EPISODES}, line {line}, field seed: {episode.seed} is recorded, but seed "
                f"{manifest.seed} of run.json gives {seed}. Seeds cannot be picked: evaluate again."
            )


@contextlib.contextmanager
def _opened(path: Path, limit: int) -> Generator[Any]:
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"'{path.name}' asked for in the bundle '{path.parent}', found no such regular file. "
            "A bundle has run.json, episodes.jsonl and trajectories.jsonl: get it again."
        )
    if path.stat().st_size > limit:
        raise BundleError(
            f"'{path}' has {path.stat().st_size} bytes; at most {limit} are read. "
            "Evaluate fewer tasks per bundle."
        )
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise BundleError(
            f"'{path}' cannot be read: {error.strerror}. Check its permissions."
        ) from error


def _altered(path: Path, why: str) -> BundleError:
    return BundleError(
        f"{path.name} of the bundle '{path.parent}' was altered after it was written: {why}. "
        "Get the bundle again from its author, or evaluate again."
    )


def _unwritable(out: Path, error: OSError) -> BundleError:
    return BundleError(
        f"A bundle at '{out}' asked for, but it cannot be written: {error.strerror or error}. "
        "Nothing was left behind; give a path with space and write permission."
    )


def _manifest_digest(manifest: Manifest) -> str:
    return digest(manifest.model_dump(mode="json", exclude={"digest"}))


def _spell(model: BaseModel) -> bytes:
    return (model.model_dump_json(indent=2) + "\n").encode()


def _write_lines(path: Path, items: Sequence[BaseModel]) -> str:
    data = b"".join(item.model_dump_json().encode() + b"\n" for item in items)
    _write_bytes(path, data)
    return digest_bytes(data)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
