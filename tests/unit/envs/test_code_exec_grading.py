"""Grading: what passes, what fails, and that no expected value ever enters a sandbox."""

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs.suite.code_exec.checks import Exam, Inside, Outside, Stdin
from treegrpo.envs.suite.code_exec.grading import BrokenExam, Grade, grade
from treegrpo.sandboxes import Sandbox, SandboxError, SandboxSpec

DOUBLE = Exam(tuple(Outside(f"double({n})", 2 * n, "same") for n in (3, 40, 500)))
RIGHT = "def double(n):\n    return n + n\n"


def result(exam: Exam, source: str, *, stop_early: bool = False) -> Grade:
    backend = FakeBackend()
    found = grade(lambda: backend.create(SandboxSpec()), exam, source, stop_early=stop_early)
    assert backend.open == 0, "a sandbox was left open"
    return found


def test_the_right_program_passes() -> None:
    assert result(DOUBLE, RIGHT) == Grade(3, 3)
    assert Grade(3, 3).is_perfect and not Grade(2, 3).is_perfect and not Grade(0, 0).is_perfect


@pytest.mark.parametrize(
    ("source", "passed"),
    [
        ("def double(n):\n    return float(n + n)", 0),
        ("def double(n):\n    return str(n + n)", 0),
        ("def double(n):\n    return 6", 1),
        ("def double(n):\n    return n + n if n > 3 else crash()", 2),
        ("def double(n):\n    return n + n if n > 3 else 1 / 0", 2),
        ("def double(n):\n    return n + n if n > 3 else object()", 2),
        ("def double(n):\n    print(n + n)", 0),
        ("def triple(n):\n    return n", 0),
        ("def double(n:", 0),
        (RIGHT + "1 / 0", 0),
        (RIGHT + "raise SystemExit(0)", 0),
        (RIGHT + "hang()", 0),
        (RIGHT + "left_thread = True", 0),
        (RIGHT + "_treegrpo_show = lambda compute: 6", 1),
        (RIGHT + "_treegrpo_show = lambda compute: None", 0),
        (RIGHT + "del _treegrpo_show", 0),
        (RIGHT + "list = dict = str = isinstance = None", 3),
        ("def double(n, seen=[]):\n    seen.append(n)\n    return n + n * len(seen)", 3),
    ],
)
def test_what_is_wrong_fails_its_checks(source: str, passed: int) -> None:
    assert result(DOUBLE, source) == Grade(passed, 3)


def test_grading_stops_at_the_first_failure_if_only_all_counts() -> None:
    late = "def double(n):\n    return n + n if n != 3 else 0"
    assert result(DOUBLE, late) == Grade(2, 3)
    assert result(DOUBLE, late, stop_early=True) == Grade(0, 3)


def test_a_timeout_ends_grading() -> None:
    late = "def double(n):\n    return n + n if n != 40 else hang()"
    assert result(DOUBLE, late) == Grade(1, 3)


def test_expected_values_stay_outside() -> None:
    exam = Exam((Outside("f(3)", 987_654, "same"), Outside("f(4)", "secret", "equal")))
    backend = FakeBackend()
    source = "def f(n):\n    return {3: 12 * 82304 + 6, 4: 'sec' + 'ret'}[n]"
    found = grade(lambda: backend.create(SandboxSpec()), exam, source, stop_early=False)
    assert found == Grade(2, 2)
    seen = "\n".join(backend.seen)
    assert "f(3)" in seen and "987654" not in seen and "secret" not in seen


def test_a_reference_is_computed_where_the_submission_never_was() -> None:
    exam = Exam(
        (Outside("f(3)", reference="limit * 2"),),
        before="import math\nlimit = 7",
        after="limit = limit + 1",
    )
    assert result(exam, "def f(n):\n    return 16") == Grade(1, 1)
    # Changing what the reference is made of does not change what is right.
    assert result(exam, "limit = 0\ndef f(n):\n    return 2") == Grade(0, 1)
    assert result(exam, "math = None\ndef f(n):\n    return 16") == Grade(1, 1)


def test_checks_inside_run_to_their_end_or_fail() -> None:
    exam = Exam((Inside("for n in range(3):\n    assert double(n) == 2 * n"),))
    assert result(exam, RIGHT) == Grade(1, 1)
    assert result(exam, "def double(n):\n    return n") == Grade(0, 1)
    assert result(exam, "def double(n):\n    raise SystemExit(0)") == Grade(0, 1)


def test_an_exam_that_fails_by_itself_is_nobodys_score() -> None:
    for exam in (
        Exam(DOUBLE.checks, before="1 / 0"),
        Exam(DOUBLE.checks, after="1 / 0"),
        Exam((Outside("double(3)", reference="nowhere"),)),
    ):
        with pytest.raises(BrokenExam):
            result(exam, RIGHT)


def test_a_setup_that_needs_the_submission_is_run_behind_it() -> None:
    exam = Exam((Outside("double(n)", 8),), after="n = double(2)", stands_alone=False)
    assert result(exam, RIGHT) == Grade(1, 1)


@pytest.mark.parametrize(
    ("source", "passed"),
    [
        ("print(int(input()) * 2)", 2),
        ("print(int(input()) * 2, '\\n\\n')", 2),
        ("print()\nprint(int(input()) * 2)", 0),
        ("print(6)", 1),
        ("print(int(input()) * 2)\n1 / 0", 0),
        ("", 0),
    ],
)
def test_programs_are_judged_by_their_lines(source: str, passed: int) -> None:
    exam = Exam((Stdin("3\n", "6\n"), Stdin("21", "42")))
    assert result(exam, source) == Grade(passed, 2)


def test_a_large_value_comes_by_file() -> None:
    exam = Exam((Outside("f(2)", ["x" * 9_000] * 2, "same"),))
    assert result(exam, "def f(n):\n    return ['x' * 9_000] * n") == Grade(1, 1)
    forged = (
        "_treegrpo_show = lambda f: type('Q', (), {'__repr__': lambda s: '{\"t\":\"file\"}'})()"
    )
    assert result(exam, f"def f(n):\n    return 1\n{forged}") == Grade(0, 1)


def test_a_lost_sandbox_is_raised() -> None:
    backend = FakeBackend()

    def lose() -> Sandbox:
        sandbox = backend.create(SandboxSpec())
        backend.lost = True
        return sandbox

    with pytest.raises(SandboxError):
        grade(lose, DOUBLE, RIGHT, stop_early=True)
    assert backend.open == 0
