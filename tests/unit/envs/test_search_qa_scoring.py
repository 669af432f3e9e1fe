"""Exact match and F1: the public definitions, and their corners."""

from __future__ import annotations

import pytest

from treegrpo.envs.suite.search_qa.scoring import exact_match, f1, normalise


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
        assert f1(empty, answers) == 0.0


def test_an_answer_of_articles_can_still_be_met() -> None:
    assert exact_match(" the the", ["The The"])
    assert f1("The The", ["The The"]) == 1.0
    assert not exact_match("the", ["The The"])


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Lake Quen", "lake quen", 1.0),
        ("Lake Quen in Aldania", "Lake Quen", 2 / 3),  # P 2/4, R 2/2
        ("Quen", "Lake Quen", 2 / 3),  # P 1/1, R 1/2
        ("quen quen", "quen lake", 0.5),  # a repeated word counts once
        ("the river", "Lake Quen", 0.0),
        ("\u0394 delta", "\u03b4", 2 / 3),
    ],
)
def test_f1_by_hand(prediction: str, answer: str, expected: float) -> None:
    assert f1(prediction, [answer]) == pytest.approx(expected)


def test_f1_is_the_best_over_the_answers() -> None:
    assert f1("Quen", ["Lake of Quen", "Lake Quen", "river"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("word", ["yes", "no", "noanswer"])
def test_closed_answers_must_match_exactly(word: str) -> None:
    assert f1(f"{word.upper()}.", [word]) == 1.0
    assert f1(f"{word} indeed", [word]) == 0.0
    assert f1(word, [f"{word} indeed"]) == 0.0


def test_one_string_is_not_a_list_of_answers() -> None:
    with pytest.raises(TypeError, match=r"Pass \[answer\]"):
        exact_match("a", "abc")
    with pytest.raises(TypeError, match=r"Pass \[answer\]"):
        f1("a", "abc")
