"""A failing sequence becomes as short as it can, and stays a failing one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from treegrpo.envs.checks.shrink import shortest

Sequence = tuple[str, ...]


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (lambda tried: True, ()),
        (lambda tried: "7" in tried, ("7",)),
        (lambda tried: {"3", "90"} <= set(tried), ("3", "90")),
        (lambda tried: len(tried) >= 3, ("0", "1", "2")),
        (lambda tried: tried[-1:] == ("99",), ("99",)),
        (lambda tried: tried == tuple(map(str, range(100))), tuple(map(str, range(100)))),
    ],
)
def test_what_remains_is_what_is_needed(
    fails: Callable[[Sequence], bool], expected: Sequence
) -> None:
    assert shortest([str(n) for n in range(100)], fails, seconds=30) == (expected, True)


def test_nothing_more_can_be_left_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        needed = set(rng.choice(40, size=5, replace=False).tolist())

        def fails(tried: Sequence, needed: set[int] = needed) -> bool:
            found = [int(action) for action in tried if int(action) in needed]
            return len(found) >= 3 and found[0] < found[-1]

        kept, minimal = shortest([str(n) for n in range(40)], fails, seconds=30)
        assert minimal and fails(kept)
        assert not any(fails(kept[:n] + kept[n + 1 :]) for n in range(len(kept)))


def test_without_time_the_sequence_stays() -> None:
    asked: list[Sequence] = []
    kept = shortest(["a", "b"], lambda tried: bool(asked.append(tried)), seconds=0)
    assert kept == (("a", "b"), False) and asked == []
