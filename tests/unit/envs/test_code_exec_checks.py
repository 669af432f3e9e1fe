"""Asserts become checks whose answers stay outside; values come out of a sandbox as data."""

import ast
from collections import Counter, OrderedDict
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest

from treegrpo.envs.suite.code_exec import wire
from treegrpo.envs.suite.code_exec.asserts import (
    convert_assert,
    exam_of_asserts,
    exam_of_function,
    names_used,
)
from treegrpo.envs.suite.code_exec.checks import Inside, Outside, agrees


def convert(text: str, known: set[str] | None = None) -> Outside | None:
    statement = ast.parse(text).body[0]
    assert isinstance(statement, ast.Assert)
    return convert_assert(statement, candidates={"f"}, known=known or set())


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("assert f(2) == [1, 2]", Outside("f(2)", [1, 2])),
        ("assert [1, 2] == f(2), 'said'", Outside("f(2)", [1, 2])),
        ("assert f(-1) == -1", Outside("f(-1)", -1)),
        ("assert f('a') != {'a': 1}", Outside("f('a')", {"a": 1}, "unequal")),
        ("assert f(1) is None", Outside("f(1)", None, "same")),
        ("assert sorted(f(3)) == [1]", Outside("sorted(f(3))", [1])),
        ("assert [f(v) for v in (1, 2)] == [3, 4]", Outside("[f(v) for v in (1, 2)]", [3, 4])),
        ("assert f(2)", Outside("bool(f(2))", True, "same")),
        ("assert not f(2)", Outside("bool(f(2))", False, "same")),
        ("assert abs(f(1) - 2.5) < 1e-6", Outside("f(1)", 2.5, "close", 1e-6)),
        ("assert 0.1 >= math.fabs(2 - f(1))", Outside("f(1)", 2, "close", 0.1)),
        ("assert math.isclose(f(1), 2.0)", Outside("f(1)", 2.0, "close", 0.0, 1e-9)),
        ("assert isclose(3, f(1), abs_tol=1)", Outside("f(1)", 3, "close", 1.0, 1e-9)),
        ("assert f(2) == 10 ** 20", Outside("f(2)", None, reference="10 ** 20")),
        ("assert f(2) == 1 + 2j", Outside("f(2)", None, reference="1 + 2j")),
        ("assert f(2) == math.pi", Outside("f(2)", None, reference="math.pi")),
    ],
)
def test_an_assert_is_turned_inside_out(text: str, check: Outside) -> None:
    assert convert(text, known={"math", "isclose"}) == check


@pytest.mark.parametrize(
    "text",
    [
        "assert f(1) == f(2)",
        "assert f(x) == 1",
        "assert f(1) == x",
        "assert f(1) < 3",
        "assert not f(1) == 2",
        "assert f(1) == 2 == f(3)",
        "assert f(1) == 2 and f(2) == 3",
        "assert g(1) == 2",
        "assert f(1) in (1, 2)",
        "assert math.isclose(f(1), 2.0, rel_tol=limit)",
        "assert abs(f(1) - 2) < limit",
    ],
)
def test_what_has_no_outside_form_is_left_alone(text: str) -> None:
    assert convert(text, known={"math"}) is None


def test_names_bound_in_an_expression_are_its_own() -> None:
    node = ast.parse("[f(v) + w for v in x if (lambda q: q)(v)]", mode="eval")
    assert names_used(node) == {"f", "w", "x"}


def test_a_function_with_a_loop_is_run_inside_as_well() -> None:
    test = ast.parse(
        "def twice(v):\n    return v * 2\n"
        "def check(candidate):\n"
        "    assert candidate(2) == 4\n"
        "    assert candidate(3) == twice(3)\n"
        "    for v in range(3):\n        assert candidate(v) == twice(v)\n"
    )
    exam = exam_of_function(test, "double", before="")
    assert exam is not None
    assert exam.checks[:2] == (
        Outside("double(2)", 4),
        Outside("double(3)", None, reference="twice(3)"),
    )
    assert isinstance(exam.checks[2], Inside) and exam.num_inside == 1
    assert exam.checks[2].code.endswith("check(double)")
    assert exam.after.startswith("def twice(v):") and "check" not in exam.after


def test_a_test_that_checks_nothing_is_no_exam() -> None:
    for body in ("pass", "assert True", "'words'"):
        assert exam_of_function(ast.parse(f"def check(c):\n    {body}"), "f", before="") is None
    assert exam_of_function(ast.parse("def verify(c):\n    assert c(1)"), "f", before="") is None


def test_what_a_setup_made_with_the_submission_is_no_answer() -> None:
    code, setup = ast.parse("class Box: pass\ndef f(b): return 1"), ast.parse("box = Box()")
    tests = [ast.parse("assert f(box) == 1"), ast.parse("assert f(1) == box")]
    exam = exam_of_asserts(tests, code, setup)
    assert exam.checks == (Outside("f(box)", 1), Inside("assert f(1) == box"))
    assert (exam.before, exam.after, exam.stands_alone) == ("", "box = Box()", False)


class Shade(IntEnum):
    RED = 3


VALUES: list[Any] = [
    None,
    True,
    0,
    -7,
    2**53,
    -(10**400),
    1.5,
    float("inf"),
    1e300,
    "text \u00e9 \ud800 \n",
    b"\x00\xff",
    [1, [2, (3,)]],
    (1, 2),
    {1, 2},
    frozenset({"a"}),
    {},
    {1: "a", (2, 3): [None]},
    2 + 3j,
    Fraction(7, 3),
    [],
    "x" * 50_000,
]


def show(value: object, files: dict[str, str] | None = None) -> str:
    """Return how a sandbox spells a value."""
    namespace: dict[str, Any] = {"value": value, "list": 3, "json": 4}
    exec(wire.SETUP, namespace)
    return repr(eval(wire.asking("value"), namespace))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_value_comes_out_as_it_is(
    value: object, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spelling = show(value)
    if wire.is_in_file(spelling):
        spelling = (tmp_path / wire.VALUE_FILE).read_text()
    else:
        assert len(spelling) <= wire.MAX_INLINE
    found = wire.read_value(spelling)
    assert agrees(Outside("", value, "same"), found, value), found


def test_subclasses_come_out_as_what_they_are_equal_to() -> None:
    for value in (Counter("noon"), OrderedDict(a=1), Shade.RED):
        assert wire.read_value(show(value)) == value


def test_a_value_of_a_foreign_type_equals_nothing() -> None:
    found = wire.read_value(show([object()]))
    assert isinstance(found[0], wire.Other) and found[0].kind == "object"
    assert not agrees(Outside("", found, "equal"), found, found[0])
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    assert not agrees(Outside("", deep), wire.read_value(show(deep)), deep)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[" * 100_000,
        '{"t":"dict","v":[[[],1]]}',
        '{"t":"dict","v":[[1]]}',
        '{"t":"fraction","v":["0x1","0x0"]}',
        '{"t":"fraction","v":["0x1"]}',
        '{"t":"bytes","v":"zz"}',
        '{"t":"object","v":[]}',
        '{"t":"set","v":[[]]}',
        '{"v":1}',
        '{"t":"tuple"}',
        "1" * 5_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_no_value_spells_is_unreadable(text: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read_value(text)


@pytest.mark.parametrize(
    ("rule", "value", "expected", "right"),
    [
        ("same", 1, 1, True),
        ("same", True, 1, False),
        ("same", 1.0, 1, False),
        ("same", [(1,)], [[1]], False),
        ("same", {"a": [1]}, {"a": [1]}, True),
        ("same", {"a": 1.0}, {"a": 1}, False),
        ("same", {"a": 1}, {"b": 1}, False),
        ("same", [1], [1, 2], False),
        ("equal", 1.0, 1, True),
        ("equal", (1,), [1], False),
        ("unequal", 1, 2, True),
        ("unequal", 2, 2, False),
        ("close", 1.05, 1, True),
        ("close", 1.2, 1, False),
        ("close", "1", 1, False),
        ("apps", (1, (2,)), [1, [2]], True),
        ("apps", [0, 2], [[0, 2]], True),
        ("apps", 3, [3], True),
        ("apps", 3, [4], False),
    ],
)
def test_rules(rule: Any, value: object, expected: object, right: bool) -> None:
    assert agrees(Outside("", expected, rule, 0.1), value, expected) is right
