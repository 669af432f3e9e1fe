"""Action logs in a bundle: one gzip file per episode, named by the last hash of its chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field, ValidationError

from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import LogError
from treegrpo.envs.recorder import MAX_EVENTS, Event, ResetEvent, verify_chain
from treegrpo.leaderboards.chain import chain_start, spelled
from treegrpo.leaderboards.errors import BundleError, first_fault
from treegrpo.leaderboards.files import content, lines, packed, parsed, unpacked, write_file
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest

FOLDER = "trajectories"
MAX_PACKED_BYTES = 16 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_LINE_BYTES = 4 * 2**20
EVENT: pydantic.TypeAdapter[Event] = pydantic.TypeAdapter(
    Annotated[Event, Field(discriminator="kind")]
)
"""Reads one event; its kind says which model it is."""


def file_name(chain: str) -> str:
    """Return the path of a log within its bundle."""
    return f"{FOLDER}/{chain}.jsonl.gz"


def write_trajectory(bundle: Path, events: Sequence[Event]) -> str | None:
    """Write a log below `bundle` and return the digest of the file; None for an empty log."""
    if not events:
        return None
    data = packed(b"".join(spelled(event.model_dump(mode="json")) for event in events))
    write_file(bundle / file_name(events[-1].chain), data)
    return digest_bytes(data)


def read_trajectory(bundle: Path, manifest: Manifest, episode: EpisodeRecord) -> list[Event]:
    """Return the log of an episode: unaltered, whole, and of this very episode.

    Raises:
        BundleError: names the file, the line and the field.
    """
    if episode.chain is None or episode.trajectory is None:
        return []
    where = file_name(episode.chain)
    data = content(bundle / where, MAX_PACKED_BYTES)
    found = digest_bytes(data)
    if found != episode.trajectory:
        raise BundleError(
            f"{where} was altered after it was written: its episode records the digest "
            f"{episode.trajectory}, the file has {found}. Get the bundle again."
        )
    events = list(_events(unpacked(data, MAX_UNPACKED_BYTES, where), where))
    start = chain_start(
        manifest.env_id, manifest.env_digest, manifest.split, episode.index, episode.seed
    )
    try:
        last = verify_chain(events, start=start)
    except LogError as error:
        raise BundleError(
            f"{where}, {error} The log was altered, or is of another episode: "
            "get the bundle again, or evaluate again."
        ) from error
    if last != episode.chain:
        raise BundleError(
            f"{where}, line {len(events)}, field chain: the log ends in {last}, its episode "
            f"records {episode.chain}. Get the bundle again, or evaluate again."
        )
    _check_reset(events[0], manifest, episode, where)
    return events


def _events(data: bytes, where: str) -> list[Event]:
    events: list[Event] = []
    for number, line in lines(data, MAX_LINE_BYTES, where):
        place = f"{where}, line {number}"
        if number > MAX_EVENTS:
            raise BundleError(f"{place}: a log has at most {MAX_EVENTS} events. Evaluate again.")
        try:
            events.append(EVENT.validate_python(parsed(line, place)))
        except ValidationError as error:
            raise BundleError(
                f"{place}, {first_fault(error)}. Get the bundle again, or evaluate again."
            ) from None
    return events


def _check_reset(event: Event, manifest: Manifest, episode: EpisodeRecord, where: str) -> None:
    """Refuse a log that began with another episode than the one it is filed under."""
    assert isinstance(event, ResetEvent)  # verify_chain saw to it
    wanted = {
        "env_id": manifest.env_id.rpartition(":")[2],
        "seed": episode.seed,
        "options": {"split": manifest.split, "index": episode.index},
    }
    for name, value in wanted.items():
        found = getattr(event, name)
        if found != value:
            raise BundleError(
                f"{where}, line 1, field {name}: {ascii(found)[:100]} is logged, {value} belongs "
                "to this episode. A log cannot serve another episode: evaluate again."
            )
