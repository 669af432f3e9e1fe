"""A forged value keeps the host busy no longer than its caps allow; beyond them, it is wrong."""

import json
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs.suite.code_exec import wire
from treegrpo.envs.suite.code_exec.checks import Check, Exam, Outside, agrees
from treegrpo.envs.suite.code_exec.grading import BrokenExam, Grade, grade
from treegrpo.sandboxes import SandboxSpec

PRIME = 2**61 - 1
"""Python's hash of a number is its remainder on division by this one."""


def spelled(kind: str, content: object) -> str:
    return json.dumps({"t": kind, "v": content}, separators=(",", ":"))


def nested(kind: str, depth: int) -> str:
    value: object = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"t": kind, "v": [value]}
    return json.dumps(value)


def colliding(count: int) -> list[object]:
    return [{"t": "int", "v": hex(PRIME * number)} for number in range(count)]


# What makes a spelling of a size, and the largest size that is read.
CAPS: dict[str, tuple[Callable[[int], str], int]] = {
    "characters": (lambda n: '"' + "x" * (n - 2) + '"', wire.MAX_VALUE_BYTES),
    "elements": (lambda n: json.dumps([0] * (n - 1)), wire.MAX_ELEMENTS),
    "elements of tuples": (lambda n: spelled("tuple", [[]] * (n - 1)), wire.MAX_ELEMENTS),
    "keys of a set": (lambda n: spelled("set", list(range(n))), wire.MAX_KEYS),
    "keys of a frozenset": (lambda n: spelled("frozenset", list(range(n))), wire.MAX_KEYS),
    "keys of a dict": (lambda n: spelled("dict", [[k, 0] for k in range(n)]), wire.MAX_KEYS),
    "alike in a set": (lambda n: spelled("set", colliding(n)), wire.MAX_ALIKE),
    "alike in a dict": (
        lambda n: spelled("dict", [[key, 0] for key in colliding(n)]),
        wire.MAX_ALIKE,
    ),
    "digits": (lambda n: "9" * n, wire.MAX_DIGITS),
    "digits of a float": (lambda n: "0." + "1" * (n - 2), wire.MAX_DIGITS),
    "digits of an int": (lambda n: spelled("int", "f" * n), wire.MAX_DIGITS),
    "digits of a named float": (lambda n: spelled("float", "1" * n), wire.MAX_DIGITS),
    "digits of a numerator": (lambda n: spelled("fraction", ["f" * n, "1"]), wire.MAX_DIGITS),
    "digits of a denominator": (lambda n: spelled("fraction", ["1", "f" * n]), wire.MAX_DIGITS),
    "digits of a real part": (lambda n: spelled("complex", ["0" * n, "1"]), wire.MAX_DIGITS),
    "digits of an imaginary part": (lambda n: spelled("complex", ["1", "0" * n]), wire.MAX_DIGITS),
    "depth of lists": (lambda n: nested("list", n), wire.MAX_DEPTH),
    "depth of tuples": (lambda n: nested("tuple", n), wire.MAX_DEPTH),
    "depth of sets": (lambda n: nested("frozenset", n), wire.MAX_DEPTH),
}


@pytest.mark.parametrize("cap", CAPS)
def test_what_reaches_a_cap_is_read_and_what_is_one_beyond_it_is_not(cap: str) -> None:
    spell, most = CAPS[cap]
    wire.read_value(spell(most))
    with pytest.raises(wire.Unreadable):
        wire.read_value(spell(most + 1))


def test_every_value_is_counted_wherever_it_stands() -> None:
    pairs = [[k, [0] * 100] for k in range(wire.MAX_ELEMENTS // 102)]
    assert len(wire.read_value(spelled("dict", pairs))) == len(pairs)
    with pytest.raises(wire.Unreadable, match="made of more than"):
        wire.read_value(spelled("dict", [[k, [0] * 101] for k, _ in pairs] + [[-1, [0] * 200]]))


def test_keys_that_collide_are_refused_before_they_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []

    def equal(one: Fraction, other: object) -> bool:
        compared.append(1)
        return one is other

    monkeypatch.setattr(Fraction, "__eq__", equal)
    keys = [{"t": "fraction", "v": [hex(PRIME * n), "1"]} for n in range(1, 5_000)]
    with pytest.raises(wire.Unreadable, match="the same hash"):
        wire.read_value(spelled("set", keys))
    assert compared == []
    assert len(wire.read_value(spelled("set", keys[: wire.MAX_ALIKE]))) == wire.MAX_ALIKE
    assert 0 < len(compared) <= wire.MAX_ALIKE**2


def test_values_of_foreign_types_are_not_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []

    def equal(one: wire.Other, other: object) -> bool:
        compared.append(1)
        return False

    monkeypatch.setattr(wire.Other, "__eq__", equal)
    found = wire.read_value(spelled("set", [{"t": "other", "v": "Odd"}] * wire.MAX_KEYS))
    assert len(found) == wire.MAX_KEYS
    assert len(compared) < wire.MAX_KEYS


def test_fractions_too_long_are_not_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(wire, "Fraction", lambda *parts: made.append(parts))
    with pytest.raises(wire.Unreadable):
        wire.read_value(spelled("fraction", ["f" * 400_000, "e" * 400_000]))
    assert made == []


def test_the_worst_that_the_caps_let_through_is_read_in_seconds() -> None:
    """The bound is generous: what it keeps out takes minutes."""
    longest = "f" * wire.MAX_DIGITS
    fraction = {"t": "fraction", "v": [longest, longest[:-1] + "e"]}
    many = [spelled("set", colliding(wire.MAX_ALIKE)) for _ in range(200)]
    worst = [
        json.dumps([fraction] * (wire.MAX_VALUE_BYTES // 8_200)),
        f"[{','.join(many)}]",
        spelled("set", [{"t": "int", "v": hex(PRIME * n)} for n in range(1, 25_000)]),
        spelled("set", [{"t": "int", "v": hex(n << 50)} for n in range(wire.MAX_KEYS)]),
    ]
    started = time.process_time()
    for text in worst:
        assert len(text) <= wire.MAX_VALUE_BYTES
        try:
            value = wire.read_value(text)
        except wire.Unreadable:
            continue
        assert not agrees(Outside("", 3), value, 3)
    assert time.process_time() - started < 30


FORGED = """\
class Forged(str):
    __repr__ = str.__str__
_treegrpo_show = lambda compute: Forged(SPELLED)
def f(n):
    return n
"""


def result(source: str, *checks: Check) -> Grade:
    backend = FakeBackend()
    exam = Exam(checks)
    return grade(lambda: backend.create(SandboxSpec()), exam, source, stop_early=False)


def forged(text: str) -> str:
    return FORGED.replace("SPELLED", repr(text))


@pytest.mark.parametrize("cap", CAPS)
def test_beyond_a_cap_the_check_fails(cap: str) -> None:
    spell, most = CAPS[cap]
    check: Any = Outside("f(1)", 3, "unequal")
    assert result(forged(spell(most)), check) == Grade(1, 1)
    assert result(forged(spell(most + 1)), check) == Grade(0, 1)


def test_an_honest_value_beyond_a_cap_fails_its_check_alone() -> None:
    source = "def f(n):\n    return 'x' * n"
    checks = [Outside(f"len(f({n}))", n) for n in (1, 2)]
    large = Outside("f(3_000_000)", "x" * 3_000_000)
    assert result(source, checks[0], large, checks[1]) == Grade(2, 3)


def test_a_reference_beyond_a_cap_is_a_broken_exam() -> None:
    with pytest.raises(BrokenExam, match=r"1 << 10 \*\* 6.* more than 4000 characters"):
        result("f = abs", Outside("f(1)", reference="1 << 10 ** 6"))
