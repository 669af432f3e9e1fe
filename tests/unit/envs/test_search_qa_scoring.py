"""Exact match: the public definition, and its corners."""

from __future__ import annotations

import pytest

from treegrpo.envs.suite.search_qa.scoring import exact_match, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Long\tDyke!", "long dyke"),
        ("an apple a day", "apple day"),
        ("Theatre of another", "theatre of another"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("CAF\u00c9\u00a0Orla", "caf\u00e9 orla"),
        ("\u00abQuen\u00bb", "\u00abquen\u00bb"),  # only ASCII punctuation goes, as in SQuAD
        ("the", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_exact_match_takes_any_of_the_answers() -> None:
    assert exact_match("the lake quen.", ["Quen", "Lake Quen"])
    assert not exact_match("lake", ["Quen", "Lake Quen"])
    assert exact_match("caf\u00e9", ["CAF\u00c9"])
    assert not exact_match("cafe", ["caf\u00e9"])
    assert not exact_match("anything", [])


@pytest.mark.parametrize("empty", ["", " ", "the", "!"])
def test_an_empty_prediction_earns_nothing(empty: str) -> None:
    for answers in (["Quen"], [""], ["A"], ["?"], []):
        assert not exact_match(empty, answers)


def test_an_answer_of_articles_can_still_be_met() -> None:
    assert exact_match(" the the", ["The The"])
    assert not exact_match("the", ["The The"])


def test_one_string_is_not_a_list_of_answers() -> None:
    with pytest.raises(TypeError, match=r"Pass \[answer\]"):
        exact_match("a", "abc")
