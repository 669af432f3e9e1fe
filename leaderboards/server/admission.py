"""What a server replays for strangers: environments it knows, with options that name nothing.

A bundle chooses its environment and that environment's options. An id with a colon imports a
module; an option may name a file that is read, or an address that is asked. So: registered ids
only, and numbers, flags and plain words only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import gymnasium
from pydantic import JsonValue

from treegrpo.envs.errors import suggest
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.schema import Manifest

_WORD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def check_admission(manifest: Manifest, environments: Sequence[str] = ()) -> None:
    """Refuse a bundle whose replay would reach beyond the environments of this server.

    Args:
        manifest: of a bundle that was read.
        environments: the ids that are accepted; empty for all that are registered here.

    Raises:
        BundleError: names the field of run.json and what is accepted.
    """
    known = sorted(environments or gymnasium.registry)
    if manifest.env_id not in known:
        raise BundleError(
            f"A run on '{manifest.env_id}' was submitted, which this server does not replay."
            f"{suggest(manifest.env_id, known)} See its environments at api/v1/environments."
        )
    for name, value in manifest.env_kwargs.items():
        if not _harmless(value):
            raise BundleError(
                f"run.json, field env_kwargs.{name}: {str(value)!r:.80} was submitted; this server "
                "takes numbers, flags and plain words, nothing that names a file or an address."
            )


def _harmless(value: JsonValue) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, list):
        return all(_harmless(one) for one in value)
    return not isinstance(value, dict)
