"""The tasks of SQL-v1: five levels, three splits, one kind of episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from treegrpo.envs.suite.sql.harder import make_harder
from treegrpo.envs.suite.sql.jobs import STEPS, make_long
from treegrpo.envs.suite.sql.plan import Draft, between
from treegrpo.envs.suite.sql.questions import make_short
from treegrpo.envs.suite.sql.tasks import build, content_of
from treegrpo.envs.tasks import Task


def _make_chain(rng: np.random.Generator) -> Draft | None:
    """Return a chain of jobs of any length from 10 to 20 steps."""
    return make_long(rng, between(rng, min(STEPS), max(STEPS)))


LEVELS: Mapping[int, Callable[[np.random.Generator], Draft | None]] = {
    1: partial(make_short, difficulty=1),
    2: partial(make_short, difficulty=2),
    3: partial(make_short, difficulty=3),
    4: make_harder,
    5: _make_chain,
}
SPLITS = ("train", "validation", "test")
# Of four tasks the first goes to "test", as in version 0: no test task of one version is a
# training task of the other.
_QUARTERS = ("test", "validation", "train", "train")


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split; its content decides which split it can be in."""
    while True:
        draft = LEVELS[difficulty](rng)
        if draft is None or split_of(draft) != split:
            continue
        task = build(draft, difficulty)
        if task is not None:
            return task


def split_of(draft: Draft) -> str:
    """Return the only split a task of this content can be in."""
    return _QUARTERS[int(content_of(draft)[:8], 16) % len(_QUARTERS)]
