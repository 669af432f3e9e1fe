"""Maths problems in stages: each number leads to the next, and the answer needs all of them.

A problem begins with a list of numbers, L. Four stages follow, drawn without repetition: each
makes one number (A, B, C, D) from the one before it, by a search, a count or a recurrence, and
some use L again. Every stage is a cell of code that needs the variables of the cells before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.code_exec.math_families import Problem
from treegrpo.envs.suite.code_exec.ops import between, pick

STAGES = 4
_LETTERS = "ABCD"


@dataclass(frozen=True)
class Stage:
    """What the next number, `<new>`, is, given `<old>`, and the cell that sets it."""

    says: str
    code: str


def _pairs(rng: np.random.Generator) -> Stage:
    k = between(rng, 5, 17)
    return Stage(
        f"<new> is the number of pairs of places i < j in L for which L(i) + L(j) + <old> is "
        f"divisible by {k}",
        "<new> = sum(\n    (a + b + <old>) % "
        f"{k} == 0 for i, a in enumerate(L) for b in L[i + 1 :]\n)",
    )


def _search(rng: np.random.Generator) -> Stage:
    low, k, q = between(rng, 300, 3_000), between(rng, 5, 9), pick(rng, (11, 13, 17, 19))
    rest = between(rng, 1, q - 1)
    return Stage(
        f"<new> is the smallest whole number above <old> mod {low} whose decimal digits have a sum "
        f"divisible by {k} and that leaves a remainder of {rest} on division by {q}",
        f"<new> = <old> % {low} + 1\n"
        f"while sum(map(int, str(<new>))) % {k} or <new> % {q} != {rest}:\n    <new> += 1",
    )


def _primes(rng: np.random.Generator) -> Stage:
    low, count = between(rng, 200, 2_000), between(rng, 5, 20)
    return Stage(
        f"<new> is the sum of the {count} smallest prime numbers above <old> mod {low}",
        f"found, n = [], <old> % {low} + 1\nwhile len(found) < {count}:\n"
        "    if n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)):\n        found.append(n)\n"
        "    n += 1\n<new> = sum(found)",
    )


def _recurrence(rng: np.random.Generator) -> Stage:
    p, q, modulus = between(rng, 2, 9), between(rng, 2, 9), between(rng, 2_000, 9_999)
    index = between(rng, 30, 200)
    return Stage(
        f"<new> is x({index}), where x(1) = <old> mod {modulus}, x(2) = 1, and after that x(n) is "
        f"the remainder of {p} x(n - 1) + {q} x(n - 2) + n on division by {modulus}",
        f"x, y = <old> % {modulus}, 1\nfor n in range(3, {index} + 1):\n"
        f"    x, y = y, ({p} * y + {q} * x + n) % {modulus}\n<new> = y",
    )


def _coins(rng: np.random.Generator) -> Stage:
    coins = [1, pick(rng, (3, 4)), pick(rng, (6, 7)), pick(rng, (10, 11))]
    span = between(rng, 60, 120)
    return Stage(
        f"<new> is the number of ways to pay <old> mod {span} plus 40 coins with pieces of "
        f"{coins[0]}, {coins[1]}, {coins[2]} and {coins[3]}, in any number and without regard to "
        "order",
        f"ways = [1] + [0] * (<old> % {span} + 40)\nfor coin in {coins}:\n"
        "    for n in range(coin, len(ways)):\n        ways[n] += ways[n - coin]\n"
        "<new> = ways[-1]",
    )


def _halving(rng: np.random.Generator) -> Stage:
    low, length = between(rng, 100, 900), between(rng, 10, 60)
    return Stage(
        "<new> is the number of steps that all whole numbers from "
        f"<old> mod {low} + 1 to <old> mod {low} + {length} together take to 1, if a step halves "
        "an even number and turns an odd number n into 3 n + 1",
        f"<new> = 0\nfor n in range(<old> % {low} + 1, <old> % {low} + {length} + 1):\n"
        "    while n != 1:\n"
        "        n, <new> = (n // 2 if n % 2 == 0 else 3 * n + 1), <new> + 1",
    )


def _divisors(rng: np.random.Generator) -> Stage:
    low, d = between(rng, 300, 900), pick(rng, (4, 6, 8))
    return Stage(
        f"<new> is the sum of all whole numbers from 1 to <old> mod {low} plus 100 that have "
        f"exactly {d} divisors (1 and the number itself included)",
        f"<new> = sum(\n    n\n    for n in range(1, <old> % {low} + 101)\n"
        f"    if sum(n % d == 0 for d in range(1, n + 1)) == {d}\n)",
    )


def _window(rng: np.random.Generator) -> Stage:
    size, modulus = between(rng, 3, 7), between(rng, 50, 99)
    return Stage(
        f"<new> is the largest sum of {size} neighbouring numbers of the list that L becomes when "
        f"each number v of it is replaced by the remainder of v times <old> on division by "
        f"{modulus}",
        f"M = [v * <old> % {modulus} for v in L]\n"
        f"<new> = max(sum(M[i : i + {size}]) for i in range(len(M) - {size} + 1))",
    )


_STAGES = (_pairs, _search, _primes, _recurrence, _coins, _halving, _divisors, _window)


def chained(rng: np.random.Generator) -> Problem:
    """Return a problem of a list, four stages and an answer made of all their numbers."""
    first, p, q = between(rng, 1, 90), between(rng, 12, 60), between(rng, 1, 99)
    modulus, size = pick(rng, (499, 503, 509, 521)), between(rng, 30, 80)
    said = [
        f"L is a list of {size} numbers: L(1) = {first}, and each next one is the remainder of "
        f"{p} times the one before plus {q} on division by {modulus}",
        "S is the sum of L",
    ]
    cells = [
        f"L = [{first}]\nwhile len(L) < {size}:\n"
        f"    L.append(({p} * L[-1] + {q}) % {modulus})\nS = sum(L)"
    ]
    old = "S"
    for new, number in zip(_LETTERS, rng.permutation(len(_STAGES))[:STAGES], strict=True):
        stage = _STAGES[int(number)](rng)
        said.append(stage.says.replace("<new>", new).replace("<old>", old))
        cells.append(f"{stage.code}\n<new>".replace("<new>", new).replace("<old>", old))
        old = new
    weights = [between(rng, 2, 9) for _ in _LETTERS]
    terms = list(zip(weights, _LETTERS, strict=True))
    total = " + ".join(f"{weight} {letter}" for weight, letter in terms)
    cells.append(f"answer = {' + '.join(f'{w} * {letter}' for w, letter in terms)}\nanswer")
    lines = ";\n".join(f"{n}. {one}" for n, one in enumerate(said, 1))
    return Problem(
        "chain",
        f"Let x mod y be the remainder of x on division by y. Given that\n{lines};\n"
        f"what is {total}?",
        tuple(cells),
    )


CHAINS: tuple[Callable[[np.random.Generator], Problem], ...] = (chained,)
