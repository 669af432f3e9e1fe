from __future__ import annotations

import enum
import subprocess
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.digest import canonical_json, digest, digest_bytes, stable_seed
from treegrpo.envs.errors import SnapshotUnsupported


class Shade(enum.Enum):
    DARK = 1


class Word(enum.StrEnum):
    DARK = "dark"


@dataclass
class Point:
    x: int
    y: float


@dataclass
class Place:
    x: int
    y: float


class Known:
    def state_facts(self) -> list[int]:
        return [1, 2]


DIFFERENT: list[object] = [
    None,
    True,
    1,
    1.0,
    "1",
    b"1",
    "true",
    [],
    [1],
    [[1]],
    {},
    {"1": 1},
    {1: 1},
    {"f": "0x1p+0"},
    set[int](),
    {1},
    {"1"},
    Shade.DARK,
    Word.DARK,
    "dark",
    Point(1, 1.0),
    Place(1, 1.0),
    Known(),
    np.int64(1),
    np.int32(1),
    np.array([1]),
    np.array([[1]]),
    np.array([1], dtype=object),
    10**400,
    -(10**400),
    0.0,
    -0.0,
    float("nan"),
    float("inf"),
    "\ud800",
]


def test_values_that_differ_never_share_a_digest() -> None:
    texts = [canonical_json(value) for value in DIFFERENT]
    assert len(set(texts)) == len(DIFFERENT)
    assert all(text.isascii() for text in texts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, OrderedDict([("b", 2), ("a", 1)])),
        ({"a": 1}, MappingProxyType({"a": 1})),
        ({3, 1, 2}, frozenset([2, 3, 1])),
        ([1, "x"], (1, "x")),
        ([1, 2], deque([1, 2])),
        ({1: "a", (2, 3): "b"}, {(2, 3): "b", 1: "a"}),
        (np.array([[1, 2], [3, 4]]).T, np.array([[1, 3], [2, 4]])),
        (np.float64(0.5), 0.5),
    ],
)
def test_equal_data_have_equal_digests(one: object, other: object) -> None:
    assert digest(one) == digest(other)


def test_golden_values() -> None:
    assert canonical_json({"b": [1, 0.5], "a": None}) == (
        '{"m":{"a":null,"b":[1,{"f":"0x1.0000000000000p-1"}]}}'
    )
    assert digest("") == "12ae32cb1ec02d01eda3581b127c1fee3b0dc53572ed6baf239721a03d82e126"
    assert digest_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert stable_seed("a", 1) == 697930202312019326


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, object()]}, "state.a[1] is a builtins.object"),
        ([lambda: 1], "state[0] is a builtins.function"),
        (Known, "state is a builtins.type"),
        (Point, "state is a builtins.type"),
        (iter([1]), "state is a builtins.list_iterator"),
        (Point(1, np.random.default_rng(0)), "state.y is a numpy.random"),  # type: ignore[arg-type]
    ],
)
def test_what_has_no_spelling_is_refused_by_its_path(value: object, path: str) -> None:
    with pytest.raises(SnapshotUnsupported) as caught:
        canonical_json(value)
    assert caught.value.reasons[0].startswith(path)


def test_data_that_hold_themselves_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SnapshotUnsupported, match="holds itself"):
        digest(loop)


def test_digests_and_seeds_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from treegrpo.envs.digest import *;"
        "print(digest({'b': {f'w{i}' for i in range(40)}, 'a': {2: 1, 'x': 3}}), stable_seed('a'))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert all(0 <= stable_seed(n) < 2**63 for n in range(200))
    assert len({stable_seed("a", n) for n in range(200)}) == 200
