"""Several environments stepped together: Gymnasium's vectors with the settings that suit texts.

    vector = make_vec("treegrpo/SQL-v0", 8)                        # in this process
    vector = make_vec("treegrpo/SQL-v0", 8, parallel=True)         # a process each

An episode that has ended stays ended until reset(options={"reset_mask": ...}): an environment
that began anew by itself could not be forked where it ended. gymnasium.make_vec does the same
with vector_kwargs=VECTOR_KWARGS, and for processes also PROCESS_KWARGS.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from treegrpo.envs.registry import find_spec
from treegrpo.envs.spaces import UnicodeText

VECTOR_KWARGS: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}
PROCESS_KWARGS: dict[str, Any] = {**VECTOR_KWARGS, "shared_memory": False}
"""Gymnasium's shared memory is for arrays: a text read from it never changes."""

Vector = VectorEnv[tuple[str, ...], tuple[str, ...], Any]


def make_vec(id: str, num_envs: int, *, parallel: bool = False, **kwargs: Any) -> Vector:
    """Return a vector of environments that never reset by themselves.

    Args:
        id: of the environment, as for make().
        num_envs: how many.
        parallel: a process for each, instead of one after the other in this one.
        kwargs: the environment's own options.

    Raises:
        UnknownEnv: no such id, with the closest one.
    """
    made = gymnasium.make_vec(
        find_spec(id),
        num_envs=num_envs,
        vectorization_mode="async" if parallel else "sync",
        vector_kwargs=PROCESS_KWARGS if parallel else VECTOR_KWARGS,
        **kwargs,
    )
    return cast("Vector", made)


def _without_sampler(space: UnicodeText) -> tuple[type[UnicodeText], tuple[int]]:
    return UnicodeText, (space.max_length,)


# Gymnasium sends a vector's spaces to its processes to be compared there. A sampler belongs to
# an environment of this process, and is no part of what makes two spaces equal.
ForkingPickler.register(UnicodeText, _without_sampler)
