"""The maths problems of PythonMath-v1: five levels, three splits.

level   families
1       sums and powers, in one or two cells
2       dates, divisors, choices, recurrences, ways to pay, paths, steps to 1
3       systems, remainders, pairs, savings, walks, words, counters, last days of months
4       tables and long lists: sales, a league, groups of numbers, roads; four cells
5       four numbers, each made from the one before, and all of them in the answer; six cells
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from treegrpo.envs.suite.code_exec.math_chains import CHAINS
from treegrpo.envs.suite.code_exec.math_families import FAMILIES, Problem
from treegrpo.envs.suite.code_exec.math_tables import TABLES
from treegrpo.envs.suite.code_exec.math_tasks import draw_task
from treegrpo.envs.suite.code_exec.splits import split_of_content
from treegrpo.envs.tasks import Task

LEVELS: Mapping[int, tuple[Callable[[np.random.Generator], Problem], ...]] = {
    1: FAMILIES[1],
    2: (*FAMILIES[2], *FAMILIES[3]),
    3: (*FAMILIES[4], *FAMILIES[5]),
    4: TABLES,
    5: CHAINS,
}


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split; its question decides which split it can be in."""

    def is_wanted(problem: Problem) -> bool:
        return split_of_content(problem.question) == split

    return draw_task(rng, LEVELS[difficulty], difficulty, is_wanted)
