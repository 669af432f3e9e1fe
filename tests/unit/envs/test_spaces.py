from __future__ import annotations

import numpy as np

from treegrpo.envs.spaces import UnicodeText, random_words


def test_it_holds_every_text_up_to_its_length() -> None:
    space = UnicodeText(5)
    assert all(text in space for text in ("", "\u00e9\U0001f600 ?", "12345"))
    assert all(text not in space for text in ("123456", b"1", 1, None))


def test_samples_are_seeded_and_within_the_space() -> None:
    one, other = UnicodeText(9, seed=3), UnicodeText(9, seed=3)
    samples = [one.sample() for _ in range(50)]
    assert samples == [other.sample() for _ in range(50)]
    assert all(text in one for text in samples) and len(set(samples)) > 10


def test_a_sampler_is_used_and_cut() -> None:
    space = UnicodeText(3, sampler=lambda rng: f"{rng.integers(10)}abcdef", seed=0)
    assert space.sample()[1:] == "ab"


def test_equality_is_that_of_the_texts() -> None:
    assert UnicodeText(3) == UnicodeText(3) != UnicodeText(4)
    assert hash(UnicodeText(3)) == hash(UnicodeText(3))
    assert UnicodeText(3) != "UnicodeText(3)" and repr(UnicodeText(3)) == "UnicodeText(3)"
    assert not UnicodeText(3).is_np_flattenable


def test_random_words_are_at_most_eight() -> None:
    texts = [random_words(np.random.default_rng(seed)) for seed in range(50)]
    assert max(len(text.split()) for text in texts) == 8
    assert "" in texts
