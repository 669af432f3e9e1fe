"""Maths problems about a table or a long sequence: read, group, rank, then one exact number.

Each takes three or four cells of code, every one of which uses what those before it made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treegrpo.envs.suite.code_exec.math_families import Problem
from treegrpo.envs.suite.code_exec.ops import between, listed, pick

_SHOPS = listed("Alder Birch Cedar Elder")
_MONTHS = listed("January February March April")
_TEAMS = listed("Foxes Geese Hares Otters Ravens Wolves")
_TOWNS = listed("Arvel Brone Calder Dunmor Eskby Farley Glenn Holt")


def _sales(rng: np.random.Generator) -> Problem:
    bonus, rows = between(rng, 20, 90), list[tuple[str, str, int, int]]()
    for month in _MONTHS:
        for _ in range(between(rng, 4, 5)):
            rows.append((month, pick(rng, _SHOPS), between(rng, 3, 40), between(rng, 4, 29)))
    lines = "\n".join(f"{month}, {shop}: {units} at {price}" for month, shop, units, price in rows)
    return Problem(
        "sales",
        f"Sales of four shops ({', '.join(_SHOPS)}), each line a month, a shop, the number of "
        f"pieces and the price of one in coins:\n{lines}\n"
        "A shop's revenue of a month is the sum of pieces times price over its lines of that "
        f"month (0 without a line). A shop gets a bonus of {bonus} coins for each month in which "
        "its revenue is above that of every other shop. Rank the shops by all their revenue and "
        "bonuses together, from large to small (equal ones by name). What is the sum over the "
        "shops of rank (1 for the first) times revenue and bonuses together?",
        (
            f"rows = {rows}\nshops = {list(_SHOPS)}\nmonths = {list(_MONTHS)}",
            "revenue = {(m, s): 0 for m in months for s in shops}\n"
            "for m, s, units, price in rows:\n    revenue[m, s] += units * price",
            "total = {s: sum(revenue[m, s] for m in months) for s in shops}\nfor m in months:\n"
            "    best = max(revenue[m, s] for s in shops)\n"
            "    first = [s for s in shops if revenue[m, s] == best]\n"
            f"    if len(first) == 1:\n        total[first[0]] += {bonus}",
            "ranked = sorted(shops, key=lambda s: (-total[s], s))\n"
            "answer = sum(rank * total[s] for rank, s in enumerate(ranked, 1))\nanswer",
        ),
    )


def _league(rng: np.random.Generator) -> Problem:
    pairs = [(a, b) for i, a in enumerate(_TEAMS) for b in _TEAMS[i + 1 :]]
    games = [(*pairs[int(i)], between(rng, 0, 4), between(rng, 0, 4)) for i in rng.permutation(15)]
    factor = between(rng, 11, 99)
    lines = "\n".join(f"{a} - {b} {goals}:{against}" for a, b, goals, against in games)
    return Problem(
        "league",
        f"Results of a league:\n{lines}\n"
        "A win gives 3 points, a draw 1 to both. The table is ordered by points, then by goals "
        "scored minus goals received, then by goals scored, all from large to small, then by "
        f"name. What is the sum over the places of place (1 for the first) times ({factor} times "
        "points plus goals scored)?",
        (
            f"games = {games}",
            "points, scored, received = {}, {}, {}\nfor a, b, x, y in games:\n"
            "    for team, goals, other in ((a, x, y), (b, y, x)):\n"
            "        won = 3 * (goals > other) + (goals == other)\n"
            "        points[team] = points.get(team, 0) + won\n"
            "        scored[team] = scored.get(team, 0) + goals\n"
            "        received[team] = received.get(team, 0) + other",
            "table = sorted(\n    points,\n    key=lambda t: (-points[t], received[t] - scored[t], "
            "-scored[t], t),\n)\ntable",
            f"answer = sum(place * ({factor} * points[t] + scored[t]) "
            "for place, t in enumerate(table, 1))\nanswer",
        ),
    )


def _groups(rng: np.random.Generator) -> Problem:
    first, p, q = between(rng, 1, 90), between(rng, 12, 60), between(rng, 1, 99)
    modulus, size = pick(rng, (1009, 1013, 1019, 1021)), between(rng, 120, 400)
    groups, cut = between(rng, 5, 9), between(rng, 200, 700)
    return Problem(
        "groups",
        f"A list of {size} numbers begins with {first}; each next one is the remainder of {p} "
        f"times the one before plus {q} on division by {modulus}. Put the numbers into groups by "
        f"their remainder on division by {groups}. The middle of a group is its number at place "
        "(n + 1) / 2, rounded down, when its n numbers are sorted from small to large, equal "
        "ones counted each. Leave out the groups that have no number, and of the others those "
        f"whose middle is above {cut} count with a minus. What is the sum over the groups of "
        "middle times n?",
        (
            f"numbers = [{first}]\nwhile len(numbers) < {size}:\n"
            f"    numbers.append(({p} * numbers[-1] + {q}) % {modulus})",
            f"groups = {{}}\nfor n in numbers:\n    groups.setdefault(n % {groups}, []).append(n)",
            "middles = {g: sorted(v)[(len(v) + 1) // 2 - 1] for g, v in groups.items()}\nmiddles",
            "answer = sum(\n    (-1 if middles[g] > "
            f"{cut} else 1) * middles[g] * len(groups[g])\n    for g in groups\n)\nanswer",
        ),
    )


def _roads(rng: np.random.Generator) -> Problem:
    size = len(_TOWNS)
    ring = [int(i) for i in rng.permutation(size)]
    pairs = {tuple(sorted((ring[i], ring[i - 1]))) for i in range(size)}
    while len(pairs) < size + 4:
        a, b = between(rng, 0, size - 1), between(rng, 0, size - 1)
        if a != b:
            pairs.add((min(a, b), max(a, b)))
    roads = [(_TOWNS[a], _TOWNS[b], between(rng, 5, 60)) for a, b in sorted(pairs)]
    lines = "\n".join(f"{a} - {b}: {length}" for a, b, length in roads)
    far = between(rng, 60, 90)
    return Problem(
        "roads",
        f"Roads between towns, in both directions, with their lengths:\n{lines}\n"
        "The distance of two towns is the length of the shortest way between them. What is the "
        f"sum of the distances of all pairs of towns, if a distance above {far} counts double, "
        "plus the square of the largest distance?",
        (
            f"roads = {roads}\ntowns = sorted({{t for a, b, _ in roads for t in (a, b)}})",
            "far = float('inf')\nd = {(a, b): 0 if a == b else far for a in towns for b in towns}\n"
            "for a, b, length in roads:\n    d[a, b] = d[b, a] = length",
            "for via in towns:\n    for a in towns:\n        for b in towns:\n"
            "            d[a, b] = min(d[a, b], d[a, via] + d[via, b])",
            "pairs = [d[a, b] for a in towns for b in towns if a < b]\n"
            f"answer = sum(v * (2 if v > {far} else 1) for v in pairs) + max(pairs) ** 2\nanswer",
        ),
    )


TABLES: tuple[Callable[[np.random.Generator], Problem], ...] = (_sales, _league, _groups, _roads)
