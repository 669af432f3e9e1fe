"""What a server makes for strangers: environments it knows, with options that name nothing.

A bundle or a registration chooses its environment and that environment's options. An id with a
colon imports a module; an option may name a file that is read, or an address that is asked. So:
registered ids only, and numbers, flags and plain words only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import gymnasium
from pydantic import JsonValue

from treegrpo.envs.errors import suggest
from treegrpo.leaderboards.errors import BundleError

_WORD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def check_admission(
    env_id: str, env_kwargs: Mapping[str, JsonValue], environments: Sequence[str] = ()
) -> None:
    """Refuse what would reach beyond the environments of this server.

    Args:
        env_id: the environment that a bundle or a registration names.
        env_kwargs: its options there.
        environments: the ids that are accepted; empty for all that are registered here.

    Raises:
        BundleError: names the field and what is accepted.
    """
    known = sorted(environments or gymnasium.registry)
    if env_id not in known:
        raise BundleError(
            f"A run on '{env_id}' asked for, which this server does not replay."
            f"{suggest(env_id, known)} See its environments at api/v1/environments."
        )
    for name, value in env_kwargs.items():
        if not _harmless(value):
            raise BundleError(
                f"Field env_kwargs.{name}: {str(value)!r:.80} asked for; this server "
                "takes numbers, flags and plain words, nothing that names a file or an address."
            )


def _harmless(value: JsonValue) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, list):
        return all(_harmless(one) for one in value)
    return not isinstance(value, dict)
