from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from treegrpo.envs.digest import canonical_json, digest, stable_seed

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def turned(value: Any) -> Any:
    """Return equal data whose dictionaries were filled in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}  # type: ignore[misc]
    return [turned(item) for item in value] if isinstance(value, list) else value  # type: ignore[misc]


@given(values)
def test_key_order_does_not_matter(value: Any) -> None:
    assert digest(value) == digest(turned(value))


@given(values)
def test_the_spelling_is_ascii_json(value: Any) -> None:
    text = canonical_json(value)
    assert text.isascii()
    json.loads(text, parse_int=str)


@given(st.lists(scalars, min_size=2, max_size=2, unique_by=lambda v: (type(v), repr(v))))
def test_scalars_that_differ_are_spelled_differently(pair: list[Any]) -> None:
    one, other = (canonical_json(value) for value in pair)
    surrogates = any(isinstance(v, str) and not v.isascii() for v in pair)
    assert one != other or surrogates


@given(st.sets(st.text() | st.integers()))
def test_sets_have_one_spelling(members: set[Any]) -> None:
    assert canonical_json(members) == canonical_json(set(sorted(members, key=repr)))


@given(values)
def test_seeds_have_63_bits(value: Any) -> None:
    assert 0 <= stable_seed(value) < 2**63
    assert stable_seed(value) == stable_seed(turned(value))
