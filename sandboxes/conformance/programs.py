"""Random programs in random fork trees: a fork must equal a replay of the same actions.

A program is a tree of steps. Every step works on one prelude of names that exist everywhere:
plain data, a closure, an object, a running generator, files, a file left open, random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treegrpo.sandboxes.base import Result
from treegrpo.sandboxes.conformance.case import Bench, Checks, first_fork

if TYPE_CHECKING:
    from treegrpo.sandboxes import Sandbox

PRELUDE = """
import collections, hashlib, os, random, re
xs, d, s, text = [3, 1, 2], {'a': 1}, {1, 'b', 2.5}, 'seed'
def counter():
    n = 0
    def tick(step=1):
        nonlocal n
        n += step
        return n
    return tick
tick = counter()
class Account:
    made = 0
    def __init__(self, name): self.name, self.log = name, []; Account.made += 1
    def pay(self, n): self.log.append(n); return sum(self.log)
    def __repr__(self): return f'Account({self.name!r}, {self.log!r})'
account = Account('root')
def walk():
    n = 0
    while True:
        got = yield n
        n += 1 if got is None else got
walker = walk(); next(walker)
rng = random.Random(7)
deque = collections.deque(maxlen=5)
journal = open('journal.txt', 'w+', buffering=64)
os.makedirs('d/e', exist_ok=True)
def files():
    journal.flush()
    found = []
    for top, _, names in sorted(os.walk('.')):
        for name in sorted(names):
            path = os.path.join(top, name)
            with open(path, 'rb') as file: data = file.read()
            found.append((path, hashlib.sha1(data).hexdigest()))
    return found
def state():
    kept = (xs, sorted(d.items()), sorted(map(repr, s)), text, tick(0), account, Account.made,
            next(walker), rng.getstate(), list(deque), journal.tell(), os.path.isdir('d'), files())
    return hashlib.sha1(repr((kept, random.getstate())).encode()).hexdigest()
"""
NUMPY_PRELUDE = """
import numpy as np
array, normal = np.arange(12.0), np.random.default_rng(3)
np.random.seed(11)
def state(plain=state):
    kept = (array.tobytes(), normal.bit_generator.state, np.random.get_state()[1].tobytes())
    return hashlib.sha1(repr((plain(), kept)).encode()).hexdigest()
"""


def _number(draw: random.Random) -> int:
    return draw.randrange(1, 50)


# Each makes one line of code out of random numbers; the lines work in any order.
LINES: tuple[Callable[[random.Random], str], ...] = (
    lambda r: f"xs.append({_number(r)}); xs.sort(key=lambda v: v % {_number(r)})",
    lambda r: f"xs = [v * {_number(r)} % 97 for v in xs][-20:]; print(xs)",
    lambda r: f"d['k{r.randrange(6)}'] = {_number(r)}; print(len(d), sum(d.values()))",
    lambda r: f"d.pop('k{r.randrange(6)}')",  # a KeyError more often than not
    lambda r: f"s ^= {{{_number(r)}, 'w{r.randrange(4)}'}}; print(s)",
    lambda r: f"text = (text + '{_number(r)}')[-40:]; print(re.sub('[0-4]', '#', text))",
    lambda r: f"print(tick({_number(r)}))",
    lambda r: f"print(account.pay({_number(r)})); account.log = account.log[-9:]",
    lambda r: f"account = Account('n{_number(r)}'); Account.made",
    lambda r: f"print(walker.send({_number(r)}), next(walker))",
    lambda r: f"print([random.randrange({_number(r)}) for _ in range(3)], random.gauss(0, 1))",
    lambda r: "random.shuffle(xs); print(rng.random(), rng.sample(range(99), 3))",
    lambda r: f"random.seed({_number(r)}); print(random.getrandbits(70))",
    lambda r: f"deque.extend(range({r.randrange(7)})); print(sum(deque))",
    lambda r: f"n = journal.write('{'j' * r.randrange(1, 90)}\\n')",
    lambda r: "n = journal.seek(0); print(len(journal.read()))",
    lambda r: f"n = open('f{r.randrange(4)}', 'a').write(text)",
    lambda r: f"n = open('d/e/g{r.randrange(3)}', 'wb').write(bytes({_number(r)}))",
    lambda r: f"os.rename('f{r.randrange(4)}', 'd/h{r.randrange(3)}')",  # often missing
    lambda r: f"os.remove('d/e/g{r.randrange(3)}')",
    lambda r: f"os.makedirs('m/{r.randrange(3)}', exist_ok=True); print(sorted(os.listdir('.')))",
    lambda r: "os.chdir('d' if os.path.isdir('d') else '..'); print(sorted(os.listdir('.')))",
    lambda r: f"def twice(n, k={_number(r)}): return tick(n) * k\nprint(twice(2))",
    lambda r: f"class Special(Account):\n    bonus = {_number(r)}\naccount = Special('s')",
    lambda r: f"print(1 // {r.randrange(3)})",
    lambda r: f"print(hash('t{_number(r)}') % 1000)",  # one hash seed for all
)
NUMPY_LINES: tuple[Callable[[random.Random], str], ...] = (
    lambda r: f"array = np.sort(array * {_number(r)} % 31); print(array.sum())",
    lambda r: "array[0] = normal.normal(); print(float(np.random.rand()))",
    lambda r: "m = array.reshape(3, 4); print(float(np.linalg.norm(m @ m.T)))",
)


TREE_SIZE = 20


@dataclass(frozen=True)
class Programs:
    """A fork tree of steps; step i follows step `parents[i]`, or the root if that is -1.

    The steps from the root to any one of them are a program.
    """

    steps: tuple[str, ...]
    parents: tuple[int, ...]

    def path(self, step: int) -> tuple[int, ...]:
        """Return the steps from the root to `step`, itself included."""
        found: list[int] = []
        while step >= 0:
            found.append(step)
            step = self.parents[step]
        return tuple(reversed(found))


def random_programs(seed: int, *, numpy: bool = False) -> Programs:
    """Return the twenty programs that belong to a seed."""
    draw = random.Random(seed)
    lines = LINES + NUMPY_LINES * 3 if numpy else LINES
    steps: list[str] = []
    for _ in range(TREE_SIZE):
        body = "\n".join(draw.choice(lines)(draw) for _ in range(draw.randrange(1, 6)))
        if draw.random() < 0.8:  # the others may end in an exception, and tell no state
            indented = body.replace("\n", "\n    ")
            body = f"try:\n    {indented}\nexcept Exception as e: print(type(e), e)\nstate()"
        steps.append(body)
    parents = tuple(max(-1, number - draw.randrange(1, 7)) for number in range(TREE_SIZE))
    return Programs(tuple(steps), parents)


def essence(result: Result) -> tuple[object, ...]:
    """Return what of a result must be equal in a fork and in a replay."""
    trace = (result.traceback or "").strip().splitlines()
    return (result.kind, result.stdout, result.stderr, result.value, result.exception, trace[-1:])


def check_tree(root: Sandbox, programs: Programs, check: Checks, where: str, count: int) -> None:
    """Check that `count` programs of a tree end in their forks as in a replay from the root.

    The state that a step tells at its end covers variables, files and random numbers.
    """
    nodes: list[Sandbox] = []
    seen: list[tuple[object, ...]] = []
    for code, parent in zip(programs.steps, programs.parents, strict=True):
        node, result = (nodes[parent] if parent >= 0 else root).step(code)
        nodes.append(node)
        seen.append(essence(result))
    for end in range(TREE_SIZE - count, TREE_SIZE):
        replay = root.snapshot()
        for number in programs.path(end):
            again = essence(replay.exec(programs.steps[number]))
            check.same(seen[number], again, f"{where}, step {number}: {programs.steps[number]!r}")
        check.same(replay.state_hash, nodes[end].state_hash, f"{where}, hash at step {end}")
        if end % 5 == 0:  # after all that others have done since
            pair = [check.runs(box, "print(files()); state()") for box in (nodes[end], replay)]
            check.same(essence(pair[0]), essence(pair[1]), f"{where}, state {end} at the end")
        replay.close()
    for box in nodes:
        box.close()


def check_programs(bench: Bench, check: Checks, count: int, *, numpy: bool = False) -> None:
    """Check `count` programs, in trees of sandboxes that are renewed now and then."""
    prelude = PRELUDE + (NUMPY_PRELUDE if numpy else "")
    changes: dict[str, Any] = {"zygote": "numpy" if numpy else "bare", "timeout_s": 30}
    starts = range(0, count, TREE_SIZE)
    for first in range(0, len(starts), 5):
        with bench.sandbox(**changes) as root, bench.sandbox(**changes) as fresh:
            check.runs(root, prelude)
            before = check.runs(first_fork(root), "state()").value
            for start in starts[first : first + 5]:
                programs = random_programs(start, numpy=numpy)
                check_tree(root, programs, check, f"tree {start}", min(TREE_SIZE, count - start))
            check.value(before, first_fork(root), "state()")
            programs = random_programs(starts[first], numpy=numpy)
            branch = root.snapshot()
            check.runs(fresh, prelude)
            check.value(before, first_fork(fresh), "state()")
            for number in programs.path(TREE_SIZE - 1):
                pair = [essence(box.exec(programs.steps[number])) for box in (branch, fresh)]
                check.same(pair[0], pair[1], f"tree {starts[first]} and another, step {number}")
