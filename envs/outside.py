"""What an environment object holds outside its episode, and whether that has changed.

A snapshot covers the episode alone. State that an author keeps in `self.x` would be left
behind by every restore, so a changed attribute is a reason to refuse. Worlds that are built
once and never change may come late (functools.cached_property); the class names them:

    shared = ("index",)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def outside(env: object, own: Collection[str]) -> dict[str, object]:
    """Return the attributes of `env` but those named in `own`; values are borrowed."""
    return {name: value for name, value in vars(env).items() if name not in own}


def changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return the names that were set, replaced or deleted, sorted."""
    missing = object()
    names = {*before, *now}
    return sorted(n for n in names if before.get(n, missing) is not now.get(n, missing))
