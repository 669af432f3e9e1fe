"""The families of generated maths problems: a question, and the cells of code that answer it.

Every answer is exact (a whole number or a fraction) and painful to find by head. The cells are
what the expert runs, one call after another; the last one ends with the answer.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.code_exec.ops import between, pick

_MONTHS = list(calendar.month_name)
_DAYS = list(calendar.day_name)


@dataclass(frozen=True)
class Problem:
    """A question and the code that answers it, cell by cell; the last sets `answer`."""

    family: str
    question: str
    cells: tuple[str, ...]


def _divisible_sum(rng: np.random.Generator) -> Problem:
    a, b = pick(rng, (3, 4, 6, 7)), pick(rng, (5, 9, 11, 13))
    top = between(rng, 700, 9_000)
    return Problem(
        "divisible-sum",
        f"What is the sum of all whole numbers from 1 to {top} that are divisible by {a} or by "
        f"{b} (or by both)?",
        (f"answer = sum(n for n in range(1, {top} + 1) if n % {a} == 0 or n % {b} == 0)\nanswer",),
    )


def _digit_sums(rng: np.random.Generator) -> Problem:
    low, k = between(rng, 100, 4_000), between(rng, 3, 7)
    high = low + between(rng, 4_000, 9_000)
    return Problem(
        "digit-sums",
        f"How many whole numbers from {low} to {high}, both included, have decimal digits whose "
        f"sum is divisible by {k}?",
        (
            f"answer = sum(sum(map(int, str(n))) % {k} == 0 for n in range({low}, {high} + 1))\n"
            "answer",
        ),
    )


def _power(rng: np.random.Generator) -> Problem:
    base, exponent = between(rng, 11, 99), between(rng, 50, 500)
    modulus = between(rng, 20_000, 99_999)
    return Problem(
        "power",
        f"What is the remainder of {base} to the power of {exponent} on division by {modulus}?",
        (f"answer = pow({base}, {exponent}, {modulus})\nanswer",),
    )


_IS_PRIME = """\
def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))
"""


def _prime_sum(rng: np.random.Generator) -> Problem:
    low = between(rng, 50, 2_000)
    high = low + between(rng, 200, 2_000)
    return Problem(
        "prime-sum",
        f"What is the sum of all prime numbers from {low} to {high}, both included?",
        (_IS_PRIME, f"answer = sum(filter(is_prime, range({low}, {high} + 1)))\nanswer"),
    )


def _days_between(rng: np.random.Generator) -> Problem:
    one = (between(rng, 1850, 1960), between(rng, 1, 12), between(rng, 1, 28))
    two = (between(rng, 1965, 2090), between(rng, 1, 12), between(rng, 1, 28))
    said = [f"{day} {_MONTHS[month]} {year}" for year, month, day in (one, two)]
    return Problem(
        "days-between",
        f"How many days after {said[0]} is {said[1]} (Gregorian calendar)?",
        (
            "from datetime import date",
            f"answer = (date{two} - date{one}).days\nanswer",
        ),
    )


def _weekday_count(rng: np.random.Generator) -> Problem:
    day, weekday = between(rng, 1, 28), between(rng, 0, 6)
    first = between(rng, 1800, 1900)
    last = first + between(rng, 70, 180)
    return Problem(
        "weekday-count",
        f"From 1 January {first} to 31 December {last}, how many times is day {day} of a month a "
        f"{_DAYS[weekday]} (Gregorian calendar)?",
        (
            "from datetime import date",
            "answer = sum(\n"
            f"    date(year, month, {day}).weekday() == {weekday}\n"
            f"    for year in range({first}, {last} + 1)\n"
            "    for month in range(1, 13)\n"
            ")\nanswer",
        ),
    )


def _divisor_sum(rng: np.random.Generator) -> Problem:
    top, k = between(rng, 150, 900), between(rng, 2, 5)
    return Problem(
        "divisor-sum",
        f"For each whole number from 1 to {top}, add up those of its divisors that are divisible "
        f"by {k}. What is the total of all these sums?",
        (
            f"answer = sum(d for n in range(1, {top} + 1) for d in range({k}, n + 1, {k}) "
            "if n % d == 0)\nanswer",
        ),
    )


def _committees(rng: np.random.Generator) -> Problem:
    women, men = between(rng, 9, 30), between(rng, 9, 30)
    size, least = between(rng, 6, 9), between(rng, 2, 3)
    return Problem(
        "committees",
        f"From {women} women and {men} men a committee of {size} is chosen with at least {least} "
        f"women and at least {least} men. How many different committees are there?",
        (
            "from math import comb",
            f"answer = sum(comb({women}, w) * comb({men}, {size} - w) "
            f"for w in range({least}, {size} - {least} + 1))\nanswer",
        ),
    )


def _recurrence(rng: np.random.Generator) -> Problem:
    p, q, c = between(rng, 2, 9), between(rng, 2, 9), between(rng, 1, 9)
    one, two, modulus = between(rng, 1, 20), between(rng, 1, 20), between(rng, 10_000, 99_999)
    index = between(rng, 40, 400)
    return Problem(
        "recurrence",
        f"A sequence begins with a(1) = {one} and a(2) = {two}; after that a(n) is the remainder "
        f"of {p} * a(n - 1) + {q} * a(n - 2) + {c} on division by {modulus}. What is a({index})?",
        (
            f"a, b = {one}, {two}",
            f"for _ in range({index} - 2):\n    a, b = b, ({p} * b + {q} * a + {c}) % {modulus}\n"
            "answer = b\nanswer",
        ),
    )


def _coins(rng: np.random.Generator) -> Problem:
    coins = sorted({1, pick(rng, (2, 3)), pick(rng, (5, 7)), pick(rng, (10, 12)), 25})
    amount = between(rng, 140, 320)
    return Problem(
        "coins",
        f"In how many ways can {amount} cents be paid with coins of {_listed(coins)} cents, if "
        "any number of each may be used and their order does not matter?",
        (
            f"ways = [1] + [0] * {amount}",
            f"for coin in {coins}:\n    for n in range(coin, {amount} + 1):\n"
            "        ways[n] += ways[n - coin]\nanswer = ways[-1]\nanswer",
        ),
    )


def _paths(rng: np.random.Generator) -> Problem:
    width, height = between(rng, 8, 15), between(rng, 8, 15)
    closed = sorted({(between(rng, 1, width - 1), between(rng, 1, height - 1)) for _ in range(3)})
    return Problem(
        "paths",
        f"On a grid one may go one step to the right or one step up. How many ways lead from "
        f"(0, 0) to ({width}, {height}) that avoid the points {_listed(closed)}?",
        (
            "from functools import cache",
            f"@cache\ndef ways(x, y):\n    if x < 0 or y < 0 or (x, y) in {closed}:\n"
            "        return 0\n    return 1 if x == y == 0 else ways(x - 1, y) + ways(x, y - 1)",
            f"answer = ways({width}, {height})\nanswer",
        ),
    )


def _collatz(rng: np.random.Generator) -> Problem:
    low = between(rng, 20, 500)
    high = low + between(rng, 40, 300)
    return Problem(
        "collatz",
        "A step halves an even number and turns an odd number n into 3 * n + 1. How many steps "
        f"do all the numbers from {low} to {high} together take until each reaches 1?",
        (
            "def steps(n):\n    count = 0\n    while n != 1:\n"
            "        n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1\n    return count",
            f"answer = sum(map(steps, range({low}, {high} + 1)))\nanswer",
        ),
    )


_SOLVE = """\
from fractions import Fraction
def solve(rows):
    rows = [[Fraction(v) for v in row] for row in rows]
    for i in range(len(rows)):
        pivot = next(r for r in range(i, len(rows)) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for r in range(len(rows)):
            if r != i:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i])]
    return [row[-1] for row in rows]
"""


def _system(rng: np.random.Generator) -> Problem:
    # Diagonally dominant, so there is exactly one solution.
    rows = [[between(rng, -6, 6) or 1 for _ in range(3)] for _ in range(3)]
    for i, row in enumerate(rows):
        row[i] = between(rng, 13, 19)
    rows = [[*row, between(rng, -60, 60)] for row in rows]
    lines = "; ".join(f"{a} x + {b} y + {c} z = {d}".replace("+ -", "- ") for a, b, c, d in rows)
    weights = [between(rng, 2, 9) for _ in range(3)]
    wanted = "{} x + {} y + {} z".format(*weights)
    return Problem(
        "system",
        f"Three numbers satisfy: {lines}. What is {wanted}? Give an exact fraction.",
        (
            _SOLVE,
            f"x, y, z = solve({rows})",
            f"answer = {weights[0]} * x + {weights[1]} * y + {weights[2]} * z\nstr(answer)",
        ),
    )


def _remainders(rng: np.random.Generator) -> Problem:
    moduli = [pick(rng, (7, 8, 9)), pick(rng, (11, 13)), pick(rng, (17, 19)), 23]
    rests = [between(rng, 1, m - 1) for m in moduli]
    low = between(rng, 1_000, 9_999)
    said = "; ".join(f"{r} on division by {m}" for r, m in zip(rests, moduli, strict=True))
    return Problem(
        "remainders",
        f"What is the smallest whole number above {low} that leaves these remainders: {said}?",
        (
            f"rules = {list(zip(moduli, rests, strict=True))}",
            f"answer = {low} + 1\nwhile any(answer % m != r for m, r in rules):\n    answer += 1\n"
            "answer",
        ),
    )


def _pairs(rng: np.random.Generator) -> Problem:
    a, b, k = between(rng, 2, 9), between(rng, 2, 9), between(rng, 5, 13)
    n, m = between(rng, 60, 200), between(rng, 60, 200)
    return Problem(
        "pairs",
        f"How many pairs of whole numbers x from 1 to {n} and y from 1 to {m} have no common "
        f"divisor above 1 and make {a} * x + {b} * y leave a remainder of 1 on division by {k}?",
        (
            "from math import gcd",
            f"answer = sum(gcd(x, y) == 1 and ({a} * x + {b} * y) % {k} == 1 "
            f"for x in range(1, {n} + 1) for y in range(1, {m} + 1))\nanswer",
        ),
    )


def _savings(rng: np.random.Generator) -> Problem:
    start, rate = between(rng, 2_000, 9_000), between(rng, 2, 9)
    take, years = between(rng, 50, 150), between(rng, 4, 7)
    return Problem(
        "savings",
        f"An account holds {start} coins. Each year it first grows by exactly {rate} percent, "
        f"then {take} coins are taken out; nothing is rounded. How many coins does it hold after "
        f"{years} years? Give an exact fraction.",
        (
            "from fractions import Fraction",
            f"answer = Fraction({start})",
            f"for _ in range({years}):\n    answer = answer * Fraction({100 + rate}, 100) - {take}"
            "\nstr(answer)",
        ),
    )


def _walk(rng: np.random.Generator) -> Problem:
    size, up, of = between(rng, 9, 14), between(rng, 2, 4), between(rng, 5, 7)
    start = between(rng, 3, size - 3)
    return Problem(
        "walk",
        f"A walker stands at {start}. Each step leads up by 1 with probability {up}/{of}, else "
        f"down by 1. The walk ends at 0 or at {size}. What is the expected number of steps? Give "
        "an exact fraction.",
        (
            _SOLVE,
            f"size, p = {size}, Fraction({up}, {of})\nrows = []\nfor i in range(1, size):\n"
            "    row = [Fraction(0)] * (size - 1) + [Fraction(1)]\n    row[i - 1] += 1\n"
            "    if i > 1:\n        row[i - 2] -= 1 - p\n"
            "    if i < size - 1:\n        row[i] -= p\n    rows.append(row)",
            f"answer = solve(rows)[{start} - 1]\nstr(answer)",
        ),
    )


def _words(rng: np.random.Generator) -> Problem:
    letters, length = between(rng, 3, 5), between(rng, 9, 18)
    run, k = between(rng, 2, 3), between(rng, 2, 4)
    names = "ABCDE"[:letters]
    return Problem(
        "words",
        f"How many words of {length} letters from {', '.join(names)} have nowhere {run + 1} equal "
        f"letters in a row, and a number of A's that is divisible by {k} (0 counts, too)?",
        (
            "from functools import cache",
            "@cache\ndef count(left, last, run, rest):\n    if left == 0:\n"
            f"        return int(rest % {k} == 0)\n    total = 0\n"
            f"    for letter in '{names}':\n"
            "        streak = run + 1 if letter == last else 1\n"
            f"        if streak <= {run}:\n"
            "            a = rest + (letter == 'A')\n"
            f"            total += count(left - 1, letter, streak, a % {k})\n    return total",
            f"answer = count({length}, '', 0, 0)\nanswer",
        ),
    )


def _coupled(rng: np.random.Generator) -> Problem:
    a, b, c, d = (between(rng, 2, 9) for _ in range(4))
    m, n = between(rng, 2_000, 9_999), between(rng, 2_000, 9_999)
    rounds, one, two = between(rng, 200, 900), between(rng, 1, 50), between(rng, 1, 50)
    return Problem(
        "coupled",
        f"Two counters show x = {one} and y = {two}. In each round both change at once: x becomes "
        f"the remainder of {a} * x + {b} * y on division by {m}, and y that of {c} * x + {d} * y + "
        f"the number of the round on division by {n}. What is the sum of x * y after each of the "
        f"rounds 1 to {rounds}?",
        (
            f"x, y, answer = {one}, {two}, 0",
            f"for i in range(1, {rounds} + 1):\n"
            f"    x, y = ({a} * x + {b} * y) % {m}, ({c} * x + {d} * y + i) % {n}\n"
            "    answer += x * y\nanswer",
        ),
    )


def _last_days(rng: np.random.Generator) -> Problem:
    weekday, first = between(rng, 0, 6), between(rng, 1800, 1950)
    last, k = first + between(rng, 40, 120), between(rng, 3, 7)
    return Problem(
        "last-days",
        f"For every month from January {first} to December {last} take the day of the month of "
        f"its last {_DAYS[weekday]} (Gregorian calendar). What is the sum of those of these "
        f"numbers that are not divisible by {k}?",
        (
            "import calendar",
            f"days = []\nfor year in range({first}, {last} + 1):\n    for month in range(1, 13):\n"
            "        weeks = calendar.monthcalendar(year, month)\n"
            f"        days.append(max(week[{weekday}] for week in weeks))",
            f"answer = sum(day for day in days if day % {k})\nanswer",
        ),
    )


def _listed(items: list[int] | list[tuple[int, int]]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


FAMILIES: Mapping[int, tuple[Callable[[np.random.Generator], Problem], ...]] = {
    1: (_divisible_sum, _digit_sums, _power, _prime_sum),
    2: (_days_between, _weekday_count, _divisor_sum, _committees),
    3: (_recurrence, _coins, _paths, _collatz),
    4: (_system, _remainders, _pairs, _savings),
    5: (_walk, _words, _coupled, _last_days),
}
