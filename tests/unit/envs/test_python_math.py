"""PythonMathEnv: problems by hand and by other ways, number spellings, GSM8K files."""

import json
import math
import re
from datetime import date, timedelta
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import sandboxed
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.code_exec import math_families, math_tasks
from treegrpo.envs.suite.code_exec.math_env import PythonMathEnv
from treegrpo.envs.suite.code_exec.math_tasks import load_gsm8k, make_task, read_number, run_cells
from treegrpo.envs.tasks import Task

GSM8K = Path(__file__).parents[2] / "fixtures" / "code" / "gsm8k.jsonl"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: fake)
    return fake


def problems(family: str, count: int = 8) -> list[tuple[list[int], Fraction, str]]:
    """Return the numbers in each question, the answer, and the question."""
    makers = [maker for makers in math_families.FAMILIES.values() for maker in makers]
    found: list[tuple[list[int], Fraction, str]] = []
    for maker in makers:
        drawn = [maker(np.random.default_rng(seed)) for seed in range(count)]
        if drawn[0].family == family:
            for one in drawn:
                numbers = [int(n) for n in re.findall(r"-?\d+", one.question)]
                found.append((numbers, run_cells(one.cells), one.question))
    assert found, family
    return found


def test_sums_of_multiples() -> None:
    for (_, top, a, b), answer, _ in problems("divisible-sum"):

        def multiples(k: int, top: int = top) -> int:
            return k * (top // k) * (top // k + 1) // 2

        assert answer == multiples(a) + multiples(b) - multiples(math.lcm(a, b))


def test_digit_sums_powers_and_primes() -> None:
    for (low, high, k), answer, _ in problems("digit-sums", 3):
        assert answer == len([n for n in range(low, high + 1) if sum(map(int, str(n))) % k == 0])
    for (base, exponent, modulus), answer, _ in problems("power"):
        assert answer == base**exponent % modulus
    for (low, high), answer, _ in problems("prime-sum", 3):
        sieve = [True] * (high + 1)
        for n in range(2, high + 1):
            if sieve[n]:
                sieve[2 * n :: n] = [False] * len(sieve[2 * n :: n])
        assert answer == sum(n for n in range(max(2, low), high + 1) if sieve[n])


def test_dates() -> None:
    months = {name: i for i, name in enumerate(math_families._MONTHS)}
    for _, answer, question in problems("days-between"):
        days = [
            date(int(year), months[month], int(day))
            for day, month, year in re.findall(r"(\d+) (\w+) (\d+)", question)
        ]
        assert days[0] + timedelta(days=int(answer)) == days[1]
    for (_, first, _, last, day), answer, question in problems("weekday-count", 3):
        name = re.findall(r"of a month a (\w+)", question)[0]
        every = (date(first, 1, 1) + timedelta(days=n) for n in range((last - first + 1) * 366))
        hits = [d for d in every if d.year <= last and d.day == day and d.strftime("%A") == name]
        assert answer == len(hits)
    for (first, last, k), answer, question in problems("last-days", 3):
        name = re.findall(r"its last (\w+)", question)[0]
        total = 0
        for year, month in product(range(first, last + 1), range(1, 13)):
            day = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
            while day.strftime("%A") != name:
                day -= timedelta(days=1)
            total += day.day if day.day % k else 0
        assert answer == total


def test_counts() -> None:
    for (_, top, k), answer, _ in problems("divisor-sum", 3):
        assert answer == sum(d * (top // d) for d in range(k, top + 1, k))
    for (women, men, size, least, _), answer, _ in problems("committees"):
        ways = [math.comb(women, w) * math.comb(men, size - w) for w in range(size + 1)]
        assert answer == sum(ways[least : size - least + 1])
    for (width_height), answer, _ in problems("paths", 4):
        _, _, width, height, *points = width_height
        closed = set(zip(points[::2], points[1::2], strict=True))
        row = [0] * (width + 1)
        for y in range(height + 1):
            for x in range(width + 1):
                row[x] = 1 if x == y == 0 else row[x] + (row[x - 1] if x else 0)
                row[x] = 0 if (x, y) in closed else row[x]
        assert answer == row[width]
    for (low, high, *_), answer, _ in problems("pairs", 1):
        assert low == 1 and high > 0 and answer > 0


def test_recurrences_and_coins() -> None:
    for (_, one, _, two, p, _, q, _, c, modulus, index), answer, _ in problems("recurrence"):
        values = [one, two]
        while len(values) < index:
            values.append((p * values[-1] + q * values[-2] + c) % modulus)
        assert answer == values[index - 1]
    for (amount, *coins), answer, _ in problems("coins", 3):

        def ways(left: int, kinds: tuple[int, ...]) -> int:
            if len(kinds) == 1:
                return int(left % kinds[0] == 0)
            return sum(ways(n, kinds[:-1]) for n in range(left, -1, -kinds[-1]))

        assert answer == ways(amount, tuple(coins))  # fmt: skip


def test_systems_and_remainders() -> None:
    for _, answer, question in problems("system", 4):
        lines, wanted = question.split("satisfy: ")[1].split(". What is ")
        rows = [[int(n) for n in re.findall(r"-?\d+", line.replace("- ", "-"))]
                for line in lines.split(";")]  # fmt: skip
        matrix = np.array([row[:3] for row in rows], dtype=float)
        solution = np.linalg.solve(matrix, np.array([row[3] for row in rows], dtype=float))
        weights = [int(n) for n in re.findall(r"\d+", wanted)]
        assert float(answer) == pytest.approx(float(np.dot(weights, solution)))
    for (low, *pairs), answer, _ in problems("remainders"):
        rules = list(zip(pairs[1::2], pairs[::2], strict=True))
        assert answer > low and all(answer % m == r for m, r in rules)
        assert answer - math.lcm(*(m for m, _ in rules)) <= low
    for (start, rate, take, years), answer, _ in problems("savings"):
        growth = Fraction(100 + rate, 100)
        wanted = start * growth**years - take * (growth**years - 1) / (growth - 1)
        assert answer == wanted


def test_walks_and_words() -> None:
    for (start, _, up, of, _, _, size), answer, _ in problems("walk"):
        p, ratio = Fraction(up, of), Fraction(of - up, up)
        if ratio == 1:
            assert answer == start * (size - start)
        else:
            win = (1 - ratio**start) / (1 - ratio**size)
            assert answer == (size * win - start) / (2 * p - 1)
    maker = next(m for m in math_families.FAMILIES[5] if m.__name__ == "_words")
    for seed in range(3):
        drawn = maker(np.random.default_rng(seed))
        length, k = (int(n) for n in re.findall(r"of (\d+) letters|divisible by (\d+)",
                     drawn.question) for n in n if n)  # fmt: skip
        run = int(re.findall(r"nowhere (\d)", drawn.question)[0])
        names = re.findall(r"from ([A-E, ]+) have", drawn.question)[0].split(", ")
        short = 5
        cells = (*drawn.cells[:-1], drawn.cells[-1].replace(f"count({length},", f"count({short},"))
        words = ["".join(word) for word in product(names, repeat=short)]
        fine = [w for w in words if w.count("A") % k == 0 and all(n * run not in w for n in names)]
        assert run_cells(cells) == len(fine)


@pytest.mark.parametrize("difficulty", math_tasks.DIFFICULTIES)
def test_answers_are_exact_large_and_split(difficulty: int) -> None:
    tasks: dict[str, list[Task]] = {
        split: [
            make_task(np.random.default_rng(seed), difficulty, split=split) for seed in range(40)
        ]
        for split in ("train", "test")
    }
    questions = [{task.question for task in found} for found in tasks.values()]
    assert not questions[0] & questions[1]
    for task in tasks["train"]:
        answer = read_number(task.answer)
        assert answer is not None and task.answer == str(answer)
        assert answer.denominator > 1 or abs(answer) >= math_tasks.MIN_SIZE
        assert task.answer not in task.question
    assert len({task.id.rpartition("-")[0] for task in tasks["train"]}) == 4


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        (" -42. ", -42),
        ("+7", 7),
        ("$1,250", 1250),
        ("1,250,000", 1250000),
        ("2.50", Fraction(5, 2)),
        ("12.", 12),
        (".5", Fraction(1, 2)),
        ("7/3", Fraction(7, 3)),
        ("-14 / 6", Fraction(-7, 3)),
        ("15%", 15),
        ("7/0", None),
        ("7/", None),
        ("", None),
        ("x", None),
        ("1 2", None),
        ("1,2", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("0x1f", None),
        ("1_000", None),
        ("9" * 5_000, Fraction("9" * 400)),
    ],
)
def test_numbers(text: str, number: object) -> None:
    assert read_number(text) == number


def step(env: PythonMathEnv, tool: str, **arguments: Any) -> tuple[str, float]:
    text, reward, *_ = env.step(env.encode_call(tool, **arguments))
    return text, reward


@pytest.mark.parametrize("difficulty", math_tasks.DIFFICULTIES)
def test_the_oracle_solves_and_random_agents_do_not(backend: FakeBackend, difficulty: int) -> None:
    env, rng = PythonMathEnv(), np.random.default_rng(0)
    for seed in range(10):
        env.reset(seed=seed, options={"difficulty": difficulty})
        shown = ""
        while not env.episode.ended:
            shown = env.episode.observation
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0
        assert shown.strip("'") == env.task.answer, "the last cell shows the answer"
        env.reset(seed=seed, options={"difficulty": difficulty})
        while not env.episode.ended:
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0


def test_the_oracle_begins_again_after_anything_else(backend: FakeBackend) -> None:
    env = PythonMathEnv()
    env.reset(seed=0, options={"difficulty": 3})
    first = env.oracle()
    env.step(first)
    step(env, "python", code="del a")
    assert env.oracle() == first
    while env.episode.turns < env.max_turns - 1:
        step(env, "python", code="a = 1")
    env.step(env.oracle())
    assert env.episode.episode_return == 1.0


@pytest.mark.parametrize(
    ("given", "reward"), [("75", 1.0), (75, 1.0), (75.0, 1.0), ("150/2", 1.0), ("76", 0.0)]
)
def test_gsm8k_files(backend: FakeBackend, given: Any, reward: float) -> None:
    env = PythonMathEnv(path=str(GSM8K))
    assert [task.answer for task in env.tasks("test")] == ["75", "35000", "-2"]
    env.reset(seed=0, options={"index": 0})
    assert "<<" not in env.messages[-1]["content"] and "75" not in env.messages[-1]["content"]
    twin = env.fork()
    twin.step(twin.oracle())
    assert twin.episode.episode_return == 1.0
    assert step(env, "python", code="x = 14 * 6\nx - 9") == ("75", 0.0)
    assert step(env, "answer", value=given) == ("Answer received.", reward)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question": "Q?", "answer": "42"}, "field 'answer' does not end with '####'"),
        ({"question": "Q?", "answer": "#### many"}, "field 'answer' does not end with '####'"),
        ({"question": " ", "answer": "#### 4"}, "field 'question' is blank"),
        ({"question": "Q?"}, "field 'answer' is missing; found an object with"),
        ({"question": 3, "answer": "#### 4"}, "field 'question' is wrong"),
    ],
)
def test_a_bad_gsm8k_file_is_told(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(f"{GSM8K.read_text().splitlines()[0]}\n{json.dumps(entry)}\n")
    with pytest.raises(DataFileError) as error:
        load_gsm8k(path)
    assert f"from '{path}', line 2: {message}" in str(error.value)
