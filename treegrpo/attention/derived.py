"""What a backend works out from a layout, once for all layers of a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

import torch

from treegrpo.attention.layout import TreeLayout

T = TypeVar("T")


def once_per_layout(build: Callable[[TreeLayout], T]) -> Callable[[TreeLayout], T]:
    """Return the function with a memory: the result is kept in the layout, and goes with it.

    A compiled model calls it as it stands: it is not traced.
    """
    plain = cast(Callable[[TreeLayout], T], torch.compiler.disable(build))
    name = f"_{build.__module__.rpartition('.')[2]}_{build.__name__}"

    @wraps(build)
    def remembered(layout: TreeLayout) -> T:
        if not hasattr(layout, name):
            # As cached_property does: the fields are frozen, and this is none of them.
            layout.__dict__[name] = plain(layout)
        return getattr(layout, name)

    return remembered
