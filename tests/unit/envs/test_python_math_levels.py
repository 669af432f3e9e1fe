"""PythonMath-v1's tables and chains: each family solved another way; splits; the agents."""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import sandboxed
from treegrpo.envs.suite.code_exec import math_chains, math_levels, math_tables
from treegrpo.envs.suite.code_exec.level_env import MathLevelsEnv
from treegrpo.envs.suite.code_exec.math_families import Problem
from treegrpo.envs.suite.code_exec.math_tasks import MIN_SIZE, read_number, run_cells, split_of
from treegrpo.envs.suite.code_exec.splits import SPLITS, split_of_content
from treegrpo.envs.tasks import Task

Family = Callable[[np.random.Generator], Problem]


@functools.cache
def sample(difficulty: int, split: str = "train", count: int = 12) -> list[Task]:
    rngs = map(np.random.default_rng, range(count))
    return [math_levels.make_task(rng, difficulty, split=split) for rng in rngs]


def drawn(family: Family, count: int = 6) -> list[tuple[str, list[int], Fraction]]:
    """Return questions, the numbers in each, and what the cells answer."""
    problems = [family(np.random.default_rng(seed)) for seed in range(count)]
    return [
        (p.question, [int(n) for n in re.findall(r"\d+", p.question)], run_cells(p.cells))
        for p in problems
    ]


def test_sales() -> None:
    for question, _, answer in drawn(math_tables._sales):
        found = re.findall(r"^(\w+), (\w+): (\d+) at (\d+)$", question, re.M)
        bonus = int(re.findall(r"bonus of (\d+) coins", question)[0])
        assert 16 <= len(found) <= 20
        monthly: dict[str, Counter[str]] = {}
        totals = Counter(dict.fromkeys(math_tables._SHOPS, 0))
        for month, shop, units, price in found:
            monthly.setdefault(month, Counter())[shop] += int(units) * int(price)
            totals[shop] += int(units) * int(price)
        for counts in monthly.values():
            (shop, best), *rest = counts.most_common(2)
            if not rest or rest[0][1] < best:
                totals[shop] += bonus
        # By rank, an equal one by name: the sum of all that are at least as high counts each.
        ranks = {
            shop: sum(v > totals[shop] or (v == totals[shop] and s <= shop)
                      for s, v in totals.items())
            for shop in totals
        }  # fmt: skip
        assert answer == sum(ranks[shop] * totals[shop] for shop in totals)


def test_a_league() -> None:
    for question, _, answer in drawn(math_tables._league):
        games = re.findall(r"^(\w+) - (\w+) (\d):(\d)$", question, re.M)
        factor = int(re.findall(r"\((\d+) times points", question)[0])
        assert len({frozenset(game[:2]) for game in games}) == len(games) == 15
        keys: list[tuple[int, int, int, str]] = []
        for team in math_tables._TEAMS:
            own = [(int(x), int(y)) for a, _, x, y in games if a == team]
            own += [(int(y), int(x)) for _, b, x, y in games if b == team]
            points = sum(3 if x > y else 1 if x == y else 0 for x, y in own)
            keys.append((-points, sum(y - x for x, y in own), -sum(x for x, _ in own), team))
        table = sorted(keys)
        assert answer == sum(
            place * (-points * factor - scored)
            for place, (points, _, scored, _) in enumerate(table, 1)
        )


def test_groups() -> None:
    for _, (size, first, p, q, modulus, groups, _, _, cut), answer in drawn(math_tables._groups):
        numbers, total = [first], 0
        for _ in range(size - 1):
            numbers.append((p * numbers[-1] + q) % modulus)
        for rest in range(groups):
            members = [n for n in numbers if n % groups == rest]
            if members:
                middle = int(
                    np.partition(members, (len(members) - 1) // 2)[(len(members) - 1) // 2]
                )
                total += (-middle if middle > cut else middle) * len(members)
        assert answer == total


def test_roads() -> None:
    for question, _, answer in drawn(math_tables._roads):
        found = re.findall(r"^(\w+) - (\w+): (\d+)$", question, re.M)
        above = int(re.findall(r"distance above (\d+)", question)[0])
        towns = {town for a, b, _ in found for town in (a, b)}
        assert len(towns) == 8 and len(found) == 12
        total = largest = 0
        for start in towns:  # one town at a time, by relaxing every road until nothing changes
            far = {town: 0 if town == start else 10**6 for town in towns}
            for _ in towns:
                for a, b, length in found:
                    far[b] = min(far[b], far[a] + int(length))
                    far[a] = min(far[a], far[b] + int(length))
            total += sum(2 * v if v > above else v for town, v in far.items() if town > start)
            largest = max(largest, *far.values())
        assert answer == total + largest**2


def ways(amount: int, coins: tuple[int, ...]) -> int:
    if len(coins) == 1:
        return int(amount % coins[0] == 0)
    return sum(ways(left, coins[:-1]) for left in range(amount, -1, -coins[-1]))


def sieve(top: int) -> list[int]:
    marks = bytearray([1]) * top
    for n in range(2, math.isqrt(top) + 1):
        marks[n * n :: n] = bytes(len(marks[n * n :: n]))
    return [n for n in range(2, top) if marks[n]]


def collatz(n: int) -> int:
    return 0 if n == 1 else 1 + collatz(n // 2 if n % 2 == 0 else 3 * n + 1)


def recurrence(old: int, index: int, modulus: int, p: int, q: int) -> int:
    values = [0, old % modulus, 1]
    for n in range(3, index + 1):
        values.append((p * values[-1] + q * values[-2] + n) % modulus)
    return values[index]


def stage_by_hand(says: str, old: int, numbers: list[int]) -> int:
    """Return what a stage of a chain gives, by its words alone."""
    given = [int(n) for n in re.findall(r"\d+", says)]
    if "pairs of places" in says:
        return sum((a + b + old) % given[0] == 0 for a, b in combinations(numbers, 2))
    if "smallest whole number" in says:
        low, k, rest, q = given
        fits = (n for n in range(old % low + 1, 10**6) if n % q == rest)
        return next(n for n in fits if sum(int(c) for c in str(n)) % k == 0)
    if "prime numbers" in says:
        count, low = given
        return sum([n for n in sieve(6_000) if n > old % low][:count])
    if "x(1) =" in says:
        index, _, modulus, _, _, p, _, q, *_ = given
        return recurrence(old, index, modulus, p, q)
    if "ways to pay" in says:
        return ways(old % given[0] + 40, tuple(given[2:]))
    if "steps" in says:
        low, _, _, length, *_ = given
        return sum(map(collatz, range(old % low + 1, old % low + length + 1)))
    if "divisors" in says:
        _, low, _, wanted, _ = given
        counts = Counter(n for d in range(1, 1_000) for n in range(d, 1_000, d))
        return sum(n for n in range(1, old % low + 101) if counts[n] == wanted)
    size, modulus = given
    values = [v * old % modulus for v in numbers]
    totals = np.convolve(values, np.ones(size, dtype=int), "valid")
    return int(totals.max())


def test_chains_by_their_words_alone() -> None:
    seen: set[str] = set()
    for question, (_, size, _, first, p, q, modulus, *_), answer in drawn(math_chains.chained, 24):
        numbers = [first]
        for _ in range(size - 1):
            numbers.append((numbers[-1] * p + q) % modulus)
        old, found = sum(numbers), dict[str, int]()
        lines = re.findall(r"^\d\. ([A-D]) is (.*);$", question, re.M)
        assert [letter for letter, _ in lines] == list("ABCD")
        for letter, says in lines:
            seen.add(" ".join(says.split()[:4]))
            old = found[letter] = stage_by_hand(says, old, numbers)
        weights = re.findall(r"(\d) ([A-D])", question.rpartition("what is ")[2])
        assert answer == sum(int(weight) * found[letter] for weight, letter in weights)
    assert len(seen) >= len(math_chains._STAGES) - 1, "nearly every kind of stage was met"


@pytest.mark.parametrize("difficulty", [4, 5])
def test_each_cell_needs_those_before(difficulty: int) -> None:
    for task in sample(difficulty):
        cells: tuple[str, ...] = task.data["cells"]
        assert len(cells) == {4: 4, 5: 6}[difficulty]
        for left_out in range(len(cells) - 1):
            # Without the shortest ways, some towns stay infinitely far.
            with pytest.raises((NameError, KeyError, OverflowError)):
                run_cells((*cells[:left_out], *cells[left_out + 1 :]))


@pytest.mark.parametrize("difficulty", math_levels.LEVELS)
def test_answers_are_exact_large_and_in_one_split(difficulty: int) -> None:
    questions = {split: {task.question for task in sample(difficulty, split)} for split in SPLITS}
    assert all(len(found) == 12 for found in questions.values())
    assert len(set().union(*questions.values())) == 36
    for task in sample(difficulty):
        answer = read_number(task.answer)
        assert answer is not None and task.answer == str(answer)
        assert answer.denominator > 1 or abs(answer) >= MIN_SIZE
        assert task.answer not in task.question
    assert len({task.answer for task in sample(difficulty)}) > 8


def test_a_test_problem_of_one_version_is_one_of_the_other() -> None:
    found: set[bool] = set()
    for family in math_levels.LEVELS[2]:
        for seed in range(5):
            problem = family(np.random.default_rng(seed))
            is_test = split_of_content(problem.question) == "test"
            assert is_test == (split_of(problem) == "test")
            found.add(is_test)
    assert found == {True, False}


@pytest.mark.parametrize(
    ("difficulty", "least", "most"), [(1, 2, 3), (2, 2, 4), (3, 3, 4), (4, 5, 5), (5, 7, 7)]
)
def test_the_oracle_solves_and_random_agents_do_not(
    monkeypatch: pytest.MonkeyPatch, difficulty: int, least: int, most: int
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    env, rng = MathLevelsEnv(), np.random.default_rng(0)
    for seed, split in enumerate(SPLITS * 2):
        options = {"difficulty": difficulty, "split": split}
        env.reset(seed=seed, options=options)
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0
        assert least <= env.episode.turns <= most
        env.reset(seed=seed, options=options)
        while not env.episode.ended:
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0
