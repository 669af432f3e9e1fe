"""Canonical JSON and digests: the only place that turns values into hashes.

Equal data have equal digests in every process: key order, set order and PYTHONHASHSEED do
not matter. 1, 1.0, "1" and True all differ; a list and a tuple of the same items do not.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from treegrpo.envs.errors import SnapshotUnsupported


def canonical_json(value: object) -> str:
    """Return the one ASCII spelling of `value` (sorted keys, exact floats).

    Knows None, bool, int, float, str, bytes, list, tuple, deque, set, mappings, enums,
    dataclasses, NumPy arrays and scalars, and any object with `state_facts()`.

    Raises:
        SnapshotUnsupported: anything else, with the path to it; a value that cannot be
            spelled cannot be compared, so it cannot be captured either.
    """
    try:
        return json.dumps(_plain(value, "state"), sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise SnapshotUnsupported(["state is nested too deeply, or holds itself"]) from None


def digest(value: object) -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of raw bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, the same in every process."""
    return int(digest(list(parts))[:16], 16) >> 1


def _plain(value: object, path: str) -> Any:
    """Return JSON-ready data in which values of different types never collide."""
    if type(value) is str or value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return {"e": f"{type(value).__qualname__}.{value.name}"}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        # Python refuses to spell very large integers in decimal.
        return int(value) if abs(value) < 2**64 else {"i": hex(value)}
    if isinstance(value, float):
        return {"f": float(value).hex()}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, (list, tuple, deque)):
        items = cast("list[object]", value)
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(items)]
    return _plain_object(value, path)


def _plain_object(value: object, path: str) -> Any:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        if all(isinstance(key, str) for key in mapping):
            return {"m": {str(k): _plain(v, f"{path}.{k}") for k, v in mapping.items()}}
        pairs = [[_plain(k, path), _plain(v, f"{path}[{k!r}]")] for k, v in mapping.items()]
        return {"p": sorted(pairs, key=_sort_key)}
    if isinstance(value, (set, frozenset)):
        members = cast("set[object]", value)
        return {"s": sorted((_plain(item, path) for item in members), key=_sort_key)}
    return _plain_instance(value, path)


def _plain_instance(value: Any, path: str) -> Any:
    kind = cast("type[object]", type(value))
    if issubclass(kind, (np.generic, np.ndarray)):
        if value.dtype.hasobject:
            return {"n": "object", "d": list(value.shape), "v": _plain(value.tolist(), path)}
        return {"n": str(value.dtype), "d": list(value.shape), "v": value.tobytes().hex()}
    if callable(getattr(kind, "state_facts", None)):
        return {"o": kind.__qualname__, "v": _plain(value.state_facts(), path)}
    if dataclasses.is_dataclass(kind):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(kind)}
        return {
            "o": kind.__qualname__,
            "v": {name: _plain(item, f"{path}.{name}") for name, item in fields.items()},
        }
    raise SnapshotUnsupported([f"{path} is a {kind.__module__}.{kind.__qualname__}"])


def _sort_key(plain: object) -> str:
    return json.dumps(plain, sort_keys=True)
