"""What binds a bundle together: seeds, chains of events, and the root over all episodes.

    seed   = H("eval", environment, split, index, trial, seed)       nobody picks it
    h_0    = H("treegrpo episode 2", environment, its source digest, split, index, seed)
    h_i    = H(h_{i-1}, event_i)                                     (envs/recorder.py)
    leaf   = sha256(00, "treegrpo episode 2", episode's line)
    root   = Merkle root over the leaves by (index, trial): sha256(01, left, right); the odd
             one out goes up unchanged

A log that is moved to another task, seed or version of the environment breaks its chain. All
of it can be recomputed by whoever rewrites everything; what nobody can forge is the replay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from treegrpo.envs.digest import digest, stable_seed

TAG = "treegrpo episode 2"


def episode_seed(env_id: str, split: str, index: int, trial: int, seed: int) -> int:
    """Return the reset seed of one episode; nobody picks it, and everybody can recompute it."""
    return stable_seed("eval", env_id, split, index, trial, seed)


def chain_start(env_id: str, env_digest: str | None, split: str, index: int, seed: int) -> str:
    """Return h_0, the hash that an episode's first event follows."""
    return digest([TAG, env_id, env_digest, split, index, seed])


def spelled(value: Any, *, indent: int | None = None) -> bytes:
    """Return the one spelling of JSON data in a bundle: sorted keys, ASCII, one line's end.

    Raises:
        ValueError: a number that is not finite.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, sort_keys=True, separators=separators, indent=indent, allow_nan=False)
    return text.encode("ascii") + b"\n"


def merkle_root(episodes: Sequence[BaseModel]) -> str:
    """Return the root over episodes in their order, as 64 hex digits.

    Raises:
        ValueError: no episode at all.
    """
    return root_of([leaf_hash(spelled(e.model_dump(mode="json"))) for e in episodes])


def leaf_hash(line: bytes) -> bytes:
    """Return the leaf of one line of episodes.jsonl."""
    return hashlib.sha256(b"\x00" + TAG.encode("ascii") + line).digest()


def root_of(leaves: Sequence[bytes]) -> str:
    """Return the Merkle root over leaves, as 64 hex digits.

    Raises:
        ValueError: no leaf at all.
    """
    if not leaves:
        raise ValueError("a Merkle root needs at least one episode")
    level = list(leaves)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs]
        level = above + level[len(level) - len(level) % 2 :]
    return level[0].hex()
