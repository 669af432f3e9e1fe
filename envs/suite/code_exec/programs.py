"""Programs of several functions: the parts, and a last function that puts them together.

Every part is a chain of steps or a machine; the last function folds a list of items with them,
some of which are None. What each function does is said exactly, and the code is the one truth
from which references are built. Code and words call the functions by the names in `NAMES` until
a task gives them others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.code_exec.machines import Effect, Machine, random_machine
from treegrpo.envs.suite.code_exec.ops import (
    ANNOTATIONS,
    INPUT_KINDS,
    Kind,
    Op,
    between,
    pick,
    random_chain,
    random_input,
)
from treegrpo.envs.suite.code_exec.tasks import numbered, one_less

NAMES = ("f_one", "f_two", "f_three", "f_all")
_NONE_SHARE, _CLOSED_SHARE = 0.15, 0.85
_AGAIN, _ENOUGH = "again", "enough"
_Draw = Callable[[np.random.Generator], object]
_KEEP = Effect("keep a copy of list and total", ("kept = total, list(items)",))
_RECALL = Effect(
    "put list and total to the copy that was kept last (nothing happens if none was)",
    ("if kept:", "    total, items = kept[0], list(kept[1])"),
)


@dataclass(frozen=True)
class Function:
    """A function: `body` turns `x` into the result, `shorter` are bodies that lack something.

    `edges` are inputs that the hidden tests hold in any case, of `num_hidden` in all.
    """

    name: str
    takes: str
    gives: str
    rules: tuple[str, ...]
    body: str
    shorter: tuple[str, ...]
    draw: _Draw
    edges: tuple[object, ...]
    num_hidden: int

    def source(self) -> str:
        """Return the function as Python."""
        body = "\n".join(f"    {line}" for line in self.body.splitlines())
        return f"def {self.name}(x: {self.takes}) -> {self.gives}:\n{body}\n    return x\n"

    def says(self) -> str:
        """Return what the function does, for the agent."""
        head = f"{self.name}(x: {self.takes}) -> {self.gives} does the following with x:"
        return "\n".join((head, *self.rules, "and returns the result."))


@dataclass(frozen=True)
class Program:
    """Functions, each of which may call those before it; the last one is what is asked for."""

    functions: tuple[Function, ...]

    def source(self) -> str:
        """Return the program as Python."""
        return "\n\n".join(function.source() for function in self.functions)


def random_pipeline(rng: np.random.Generator) -> Program:
    """Return three functions: a value to numbers, numbers to one, and a fold with both."""
    kind = pick(rng, INPUT_KINDS)
    one = _chain_function(rng, "f_one", kind, "ints", 3)
    two = _chain_function(rng, "f_two", "ints", "int", between(rng, 2, 3))
    return Program((one, two, _fold(rng, one, two, one.draw)))


def random_interpreter(rng: np.random.Generator) -> Program:
    """Return four functions: unroll loops, follow commands, judge the result, fold."""
    base = random_machine(rng, 6, has_undo=True)
    words = ("stow", "fetch")
    machine = Machine((*base.commands, (words[0], _KEEP), (words[1], _RECALL)), base.undo)
    unroll = _unroll(machine)
    lead = (
        "0. unroll x with f_one, then begin with an empty list and a total of 0 and follow the "
        "commands one by one:",
        *machine.says(),
        "1. take the list with the total added at its end;",
    )
    before = "x = f_one(x)\nkept = None"
    run = Function(
        "f_two",
        ANNOTATIONS["words"],
        ANNOTATIONS["ints"],
        lead,
        f"{before}\n{machine.code()}",
        ("kept = None\n" + machine.code(), *(f"{before}\n{m.code()}" for m in machine.one_less())),
        lambda rng: _with_loops(rng, machine, 16),
        ([], [machine.undo or "", words[1]]),
        10,
    )
    judge = _chain_function(rng, "f_three", "ints", "int", 2)
    return Program((unroll, run, judge, _fold(rng, run, judge, unroll.draw)))


def _chain_function(
    rng: np.random.Generator, name: str, takes: Kind, gives: Kind, length: int
) -> Function:
    chain = _chain_to(rng, takes, gives, length)
    empty: object = {"text": "", "table": dict[str, int]()}.get(takes, list[object]())
    return Function(
        name,
        ANNOTATIONS[takes],
        ANNOTATIONS[gives],
        numbered(chain),
        "\n".join(op.code for op in chain),
        one_less([], chain),
        lambda rng: random_input(rng, takes),
        (empty,),
        6,
    )


def _chain_to(rng: np.random.Generator, takes: Kind, gives: Kind, length: int) -> list[Op]:
    while True:
        chain = random_chain(rng, takes, length)
        if chain[-1].gives == gives:
            return chain


def _with_loops(rng: np.random.Generator, machine: Machine, length: int) -> list[str]:
    """Return at least half of `length` commands, with up to three loops among them."""
    commands = [machine.random_command(rng) for _ in range(between(rng, length // 2, length))]
    for _ in range(between(rng, 0, 3)):
        at, inside = between(rng, 0, len(commands)), between(rng, 1, 5)
        commands.insert(at, f"{_AGAIN} {between(rng, -1, 3)}")
        if rng.random() < _CLOSED_SHARE:
            commands.insert(min(len(commands), at + 1 + inside), _ENOUGH)
    return commands


_UNROLL_RULES = (
    f'- "{_AGAIN} n" begins a block, which reaches to the "{_ENOUGH}" that closes it; blocks may '
    "lie in blocks. The texts of a block, itself unrolled, stand n times in place of it (not at "
    "all if n is 0 or less);",
    f'- an "{_ENOUGH}" that closes no block is left out;',
    "- a block that nothing closes ends with the list;",
    "- all other texts stay as they are, in their order;",
)
_UNROLL_BODY = f"""\
parts, counts = [[]], []
for text in [*x, None]:
    word = (text or "").partition(" ")[0]
    if word == "{_AGAIN}":
        parts.append([])
        counts.append(int(text.partition(" ")[2]))
    elif text == "{_ENOUGH}" or text is None:
        while counts:
            block = parts.pop() * max(0, counts.pop())
            parts[-1] += block
            if text is not None:
                break
    else:
        parts[-1].append(text)
x = parts[0]"""


def _unroll(machine: Machine) -> Function:
    """Return the function that writes loops out; its inputs are commands of the machine."""
    body = _UNROLL_BODY
    shorter = (
        body.replace("[*x, None]", "x"),  # an open block is lost
        body.replace("            if text is not None:\n                break\n", ""),
        body.replace("max(0, counts.pop())", "min(1, counts.pop())"),
    )
    return Function(
        "f_one",
        ANNOTATIONS["words"],
        ANNOTATIONS["words"],
        _UNROLL_RULES,
        body,
        shorter,
        lambda rng: _with_loops(rng, machine, 8),
        ([], [_ENOUGH, f"{_AGAIN} 2", "a", f"{_AGAIN} 3", "b", _ENOUGH, "c"]),
        5,
    )


@dataclass(frozen=True)
class _Fold:
    """How the last function goes through its items."""

    make: str
    judge: str
    change: Op
    k: int
    cut: int
    a: int
    modulus: int

    def says(self) -> tuple[str, ...]:
        """Return the rules for the agent."""
        return (
            "- begin with an empty list and a memory of 0, and take the items of x one by one;",
            "- an item that is None changes nothing;",
            f"- of any other item, v is {self.make}(item) and s is {self.judge}(v);",
            f"- if s plus the memory is divisible by {self.k}: do this with v: {self.change.says}; "
            "then put its numbers at the end of the list;",
            "- otherwise, if s is greater than the memory: put s at the end of the list;",
            f"- otherwise: remove the last {self.cut} of the list (all of it if there are not so "
            "many);",
            f"- after any of the three, the memory becomes the remainder of {self.a} times the "
            f"memory plus s on division by {self.modulus} (as Python's % gives it).",
            "With the list that is left in the end:",
        )

    def body(self, lacks: str = "") -> str:
        """Return the code, without the part that `lacks` names."""
        change = [] if lacks == "change" else self.change.code.splitlines()
        greater = "False" if lacks == "greater" else "score > memory"
        memory = "score" if lacks == "memory" else f"{self.a} * memory + score"
        lines = (
            "kept, memory = [], 0",
            "for item in x:",
            "    if item is None:",
            "        continue",
            f"    numbers = {self.make}(item)",
            f"    score = {self.judge}(numbers)",
            f"    if (score + memory) % {self.k} == 0:",
            "        x = numbers",
            *(f"        {line}" for line in change),
            "        kept += x",
            f"    elif {greater}:",
            "        kept.append(score)",
            "    else:",
            "        pass" if lacks == "cut" else f"        kept = kept[:-{self.cut}]",
            f"    memory = ({memory}) % {self.modulus}",
            "x = kept",
        )
        return "\n".join(lines)


def _fold(rng: np.random.Generator, make: Function, judge: Function, draw_item: _Draw) -> Function:
    """Return the function that goes through items with a memory, made of two others."""
    k, cut = between(rng, 2, 4), between(rng, 1, 2)
    a, modulus = between(rng, 2, 5), between(rng, 11, 29)
    change = _chain_to(rng, "ints", "ints", 1)[0]
    fold = _Fold(make.name, judge.name, change, k, cut, a, modulus)
    chain = _chain_to(rng, "ints", pick(rng, ("ints", "words")), 2)
    codes = [op.code for op in chain]
    lacking = [fold.body(part) for part in ("change", "greater", "cut", "memory")]

    def draw(rng: np.random.Generator) -> object:
        size = between(rng, 3, 8)
        return [None if rng.random() < _NONE_SHARE else draw_item(rng) for _ in range(size)]

    return Function(
        "f_all",
        f"list[{make.takes} | None]",
        ANNOTATIONS[chain[-1].gives],
        (*fold.says(), *numbered(chain)),
        "\n".join([fold.body(), *codes]),
        (*one_less([fold.body()], chain), *("\n".join([one, *codes]) for one in lacking)),
        draw,
        ([], [None, make.edges[0]]),
        10,
    )


def renamed(text: str, names: Sequence[str]) -> str:
    """Return code or words with the functions' names replaced, in the order of `NAMES`."""
    for old, new in zip(NAMES, names, strict=True):
        text = text.replace(old, new)
    return text
