"""Frames and fields: what goes in comes out, and nothing grows by what a stranger sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.sandboxes.guest import wire

headers = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=300)), max_size=5), st.integers(1, 64))
def test_frames_survive_any_cut(
    frames: list[tuple[dict[str, int | str], bytes]], size: int
) -> None:
    data = b"".join(wire.pack(header, blob) for header, blob in frames)
    decoder = wire.Decoder()
    found = [f for i in range(0, len(data), size) for f in decoder.feed(data[i : i + size])]
    assert found == frames


def test_a_length_beyond_the_cap_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(wire.FrameTooLarge, match="4294967295"):
        list(wire.Decoder().feed(b"\xff" * 8))


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_fields_split_as_they_were_joined(parts: list[bytes]) -> None:
    assert wire.split(wire.fields(*parts)) == parts


@given(st.binary(min_size=1, max_size=40))
def test_split_takes_what_fields_made_and_nothing_else(data: bytes) -> None:
    try:
        parts = wire.split(data)
    except ValueError:
        return
    assert wire.fields(*parts) == data
