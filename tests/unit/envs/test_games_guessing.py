"""Mastermind and WordGuess: replies, limits, and players who only eliminate."""

import itertools

import pytest

from treegrpo.envs.suite.games import mastermind, word_guess
from treegrpo.envs.suite.games.mastermind import MastermindEnv, reply_to
from treegrpo.envs.suite.games.word_guess import WordGuessEnv, marks
from treegrpo.envs.suite.games.words import WORDS


def step(env: MastermindEnv | WordGuessEnv, **arguments: object) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call("guess", **arguments))
    return text, reward, info["errors"]


@pytest.mark.parametrize(
    ("secret", "guess", "reply"),
    [
        ("ABC", "ABC", (3, 0)),
        ("ABC", "CAB", (0, 3)),
        ("AAB", "ABA", (1, 2)),
        ("AABB", "BBAA", (0, 4)),
        ("AABC", "AAAA", (2, 0)),
        ("ABCD", "EFGH", (0, 0)),
        ("ABBA", "BACA", (1, 2)),
    ],
)
def test_replies_count_each_letter_once(secret: str, guess: str, reply: tuple[int, int]) -> None:
    assert reply_to(secret, guess) == reply


def test_a_code_s_guess_agrees_with_every_reply_and_every_code_is_found() -> None:
    for secret in map("".join, itertools.product("XYZ", repeat=3)):
        played: list[str] = []
        while secret not in played:
            code = mastermind.next_guess(secret, "XYZ", played)
            assert all(reply_to(code, old) == reply_to(secret, old) for old in played)
            played.append(code)
        assert len(played) <= 6


def test_the_choice_hangs_on_the_replies_alone() -> None:
    assert mastermind.next_guess("AAA", "ABC", []) == mastermind.next_guess("CCB", "ABC", [])
    for one, other in itertools.combinations(WORDS[3][::20], 2):
        if marks(one, "sea") == marks(other, "sea"):
            choice = word_guess.next_guess(one, ["sea"])
            assert choice == word_guess.next_guess(other, ["sea"])


def test_codes_are_read_with_and_without_spaces() -> None:
    env = MastermindEnv()
    env.reset(seed=0, options={"split": "test", "index": 40})
    texts = {"J Q C": "J Q C:", "jqc": "J Q C:", "j, q, c": "J Q C:", "J-Q|C": "J Q C:"}
    for number, (code, begin) in enumerate(texts.items(), start=1):
        text, _, errors = step(env, code=code)
        assert text.startswith(begin) and errors == []
        assert text.endswith(f"Guesses left: {6 - number}")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "J Q",
        "J Q C I",
        "X Y Z",
        "J" * 5000,
        "J Q C" + " " * 200 + "I",
        "\x00\x01\x02",
        "\u00c0JQ",
    ],
)
def test_a_bad_code_costs_no_guess(code: str) -> None:
    env = MastermindEnv()
    env.reset(seed=0, options={"split": "test", "index": 40})
    text, reward, errors = step(env, code=code)
    assert "a code of 3 letters was asked for" in text and "Use the letters C I J L O Q" in text
    assert (errors, reward, env.state.moves_left) == (["tool_error"], 0.0, 6)
    assert len(text) < 300


def test_the_last_wrong_code_ends_the_game() -> None:
    env = MastermindEnv()
    env.reset(seed=0, options={"split": "test", "index": 40})
    wrong = "C C C" if env.task.answer != "CCC" else "I I I"
    results = [step(env, code=wrong) for _ in range(6)]
    assert (env.episode.end_reason, env.episode.terminated) == ("no_moves_left", True)
    assert sum(reward for _, reward, _ in results) == 0.0


@pytest.mark.parametrize(
    ("secret", "guess", "found"),
    [
        ("crane", "crane", "====="),
        ("crane", "nacre", "++++="),
        ("abbey", "bobby", "+-=-="),
        ("apple", "paper", "++=+-"),
        ("sweet", "geese", "-+=+-"),
        ("dog", "cat", "---"),
    ],
)
def test_marks_count_each_letter_once(secret: str, guess: str, found: str) -> None:
    assert marks(secret, guess) == found


def test_words_are_plain_and_listed_once() -> None:
    for length, words in WORDS.items():
        assert len(set(words)) == len(words) > 200
        assert all(word.isascii() and word.islower() for word in words)
        assert {len(word) for word in words} == {length}


def test_the_given_tries_stand_in_the_question() -> None:
    for task in WordGuessEnv().tasks("test")[:5]:
        level = word_guess.LEVELS[task.difficulty]
        assert len(task.data["openings"]) == level.openings
        for word in task.data["openings"]:
            assert f"{' '.join(word)}\n{' '.join(marks(task.answer, word))}" in task.question


def test_a_word_is_marked_and_counted() -> None:
    env = WordGuessEnv()
    env.reset(seed=0, options={"split": "test", "index": 5})
    assert step(env, word=" EGO ") == ("e g o\n- + -\nGuesses left: 5", 0.0, [])
    text, reward, _ = step(env, word=env.task.answer)
    assert text.endswith("= = =\nYou won.") and reward == 1.0


@pytest.mark.parametrize("word", ["", "egos", "xqz", "e g o", "\x00go", "e" * 5000, "\u00e9go"])
def test_a_bad_word_costs_no_guess(word: str) -> None:
    env = WordGuessEnv()
    env.reset(seed=0, options={"split": "test", "index": 5})
    text, reward, errors = step(env, word=word)
    assert "a word of 3 letters was asked for" in text or "not in the list" in text
    assert (errors, reward, env.state.moves_left) == (["tool_error"], 0.0, 6)
    assert len(text) < 300


def test_the_oracle_goes_on_from_anybody_s_guesses() -> None:
    env = WordGuessEnv()
    env.reset(seed=0, options={"split": "train", "index": 1})
    env.step(env.encode_call("guess", word="yell"))
    env.step(env.encode_call("guess", word="yell"))
    env.step(env.oracle())
    assert env.state.tried[-1] not in env.state.tried[:-1]
