"""The steps that generated programming tasks are composed of: words for the agent, code for us.

Each op turns `x` of one type into `x` of another. What it does is said exactly, empty input
included, so that a task is fair; its code is the one truth from which references are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

Kind = Literal["ints", "text", "words", "table", "int"]
T = TypeVar("T")

ANNOTATIONS: Mapping[Kind, str] = {
    "ints": "list[int]",
    "text": "str",
    "words": "list[str]",
    "table": "dict[str, int]",
    "int": "int",
}
_NUMBERS, _LETTERS = (-20, 40), "abcdeinorst"


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


_WORDS = listed("tea oak river Stone lamp ebb dune tea kayak Noon iris oboe level apple sun Ash")


@dataclass(frozen=True)
class Op:
    """One step: `says` and `code` share the parameters named in `draws` (low and high)."""

    takes: Kind
    gives: Kind
    says: str
    code: str
    draws: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def drawn(self, rng: np.random.Generator) -> Op:
        """Return the op with its parameters filled in."""
        values = {name: between(rng, *bounds) for name, bounds in self.draws.items()}
        says, code = self.says, self.code
        for name, value in values.items():
            says, code = (
                says.replace(f"<{name}>", str(value)),
                code.replace(f"<{name}>", str(value)),
            )
        return Op(self.takes, self.gives, says, code)


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[int(rng.integers(len(items)))]


def random_input(rng: np.random.Generator, kind: Kind) -> object:
    """Return a random value of a kind that functions take: ints, text, words or table."""
    size = between(rng, 0, 9)
    if kind == "ints":
        return [between(rng, *_NUMBERS) for _ in range(size)]
    if kind == "words":
        return [pick(rng, _WORDS) for _ in range(size)]
    if kind == "table":
        return {pick(rng, _WORDS): between(rng, *_NUMBERS) for _ in range(size)}
    signs = f"{_LETTERS}{_LETTERS}  AEz"
    runs = [pick(rng, signs) * pick(rng, (1, 1, 1, 2, 3)) for _ in range(2 * size)]
    return "".join(runs)


def _lines(*lines: str) -> str:
    return "\n".join(lines)


_INTS = (
    Op(
        "ints",
        "ints",
        "keep only the numbers that are divisible by <k>",
        "x = [v for v in x if v % <k> == 0]",
        {"k": (2, 5)},
    ),
    Op(
        "ints",
        "ints",
        "keep only the numbers greater than <k>",
        "x = [v for v in x if v > <k>]",
        {"k": (-6, 12)},
    ),
    Op(
        "ints",
        "ints",
        "replace each number v by <a> * v + <b>",
        "x = [<a> * v + <b> for v in x]",
        {"a": (2, 6), "b": (1, 9)},
    ),
    Op(
        "ints",
        "ints",
        "replace each number by its remainder on division by <k> (as Python's % gives it)",
        "x = [v % <k> for v in x]",
        {"k": (4, 13)},
    ),
    Op(
        "ints",
        "ints",
        "replace each number by the sum of all numbers up to and including it",
        "x = [sum(x[: i + 1]) for i in range(len(x))]",
    ),
    Op(
        "ints",
        "ints",
        "replace the list by the differences of neighbours, each number minus the one before it "
        "(the list gets one shorter; an empty one stays empty)",
        "x = [b - a for a, b in zip(x, x[1:])]",
    ),
    Op(
        "ints",
        "ints",
        "remove repeated numbers, keeping the first of each",
        "x = list(dict.fromkeys(x))",
    ),
    Op(
        "ints",
        "ints",
        "sort the numbers by their remainder on division by <k> (as Python's % gives it), and "
        "those with equal remainders from small to large",
        "x = sorted(x, key=lambda v: (v % <k>, v))",
        {"k": (3, 7)},
    ),
    Op(
        "ints",
        "ints",
        "move the first number to the end, <k> times over (an empty list stays empty)",
        "x = x[<k> % len(x) :] + x[: <k> % len(x)] if x else x",
        {"k": (1, 5)},
    ),
    Op(
        "ints",
        "ints",
        "keep only the numbers at positions 0, <k>, 2 * <k> and so on",
        "x = x[::<k>]",
        {"k": (2, 3)},
    ),
    Op(
        "ints",
        "ints",
        "swap the numbers at positions 0 and 1, 2 and 3, and so on (a last one without a "
        "partner stays)",
        "x = [v for i in range(0, len(x), 2) for v in x[i : i + 2][::-1]]",
    ),
    Op(
        "ints",
        "ints",
        "replace each number by the sum of its decimal digits, ignoring its sign",
        "x = [sum(map(int, str(abs(v)))) for v in x]",
    ),
    Op("ints", "ints", "sort the numbers from large to small", "x = sorted(x, reverse=True)"),
    Op(
        "ints",
        "ints",
        "replace the list by the largest of each <k> neighbouring numbers, from left to right "
        "(an empty list if there are fewer than <k>)",
        "x = [max(x[i : i + <k>]) for i in range(len(x) - <k> + 1)]",
        {"k": (2, 4)},
    ),
    Op(
        "ints",
        "ints",
        "split the list in the middle (of an odd number the first half gets one more) and take "
        "numbers from the halves in turn, beginning with the first half",
        _lines(
            "half = (len(x) + 1) // 2",
            "x = [x[i // 2 + half * (i % 2)] for i in range(len(x))]",
        ),
    ),
    Op(
        "ints",
        "ints",
        "replace each number by how often it has occurred in the list so far, itself included",
        "x = [x[: i + 1].count(v) for i, v in enumerate(x)]",
    ),
    Op(
        "ints",
        "words",
        "write each number in base 2, without its sign and without a prefix",
        'x = [format(abs(v), "b") for v in x]',
    ),
    Op("ints", "int", "add up the numbers (0 if there are none)", "x = sum(x)"),
    Op(
        "ints",
        "int",
        "add up the numbers at even positions and subtract those at odd positions (positions "
        "count from 0; 0 if there are none)",
        "x = sum(x[::2]) - sum(x[1::2])",
    ),
    Op(
        "ints",
        "int",
        "take the largest number minus the smallest (0 if there are none)",
        "x = max(x) - min(x) if x else 0",
    ),
    Op(
        "ints",
        "int",
        "count the pairs of positions i < j with a larger number at i than at j",
        "x = sum(a > b for i, a in enumerate(x) for b in x[i + 1 :])",
    ),
    Op(
        "ints",
        "int",
        "take the length of the longest stretch of neighbouring numbers in which none is smaller "
        "than the one before it (0 if there are no numbers)",
        _lines(
            "best = run = 0",
            "for i, v in enumerate(x):",
            "    run = run + 1 if i and v >= x[i - 1] else 1",
            "    best = max(best, run)",
            "x = best",
        ),
    ),
    Op(
        "ints",
        "int",
        "add up each number times its position, counting positions from <k>",
        "x = sum(i * v for i, v in enumerate(x, <k>))",
        {"k": (1, 3)},
    ),
    Op(
        "ints",
        "int",
        "start with 0 and, for each number from left to right, multiply by <a>, add the number "
        "and keep the remainder on division by <m> (as Python's % gives it)",
        _lines("y = 0", "for v in x:", "    y = (y * <a> + v) % <m>", "x = y"),
        {"a": (2, 9), "m": (50, 99)},
    ),
)

_TEXT = (
    Op("text", "text", "reverse the text", "x = x[::-1]"),
    Op(
        "text",
        "text",
        "turn small letters into capitals and capitals into small letters",
        "x = x.swapcase()",
    ),
    Op(
        "text",
        "text",
        "remove all vowels (a, e, i, o, u, small or capital)",
        'x = "".join(c for c in x if c not in "aeiouAEIOU")',
    ),
    Op(
        "text",
        "text",
        "shift each small letter a to z by <k> places in the alphabet, going on from z to a, and "
        "leave all other characters as they are",
        _lines(
            'x = "".join(',
            '    chr((ord(c) - 97 + <k>) % 26 + 97) if "a" <= c <= "z" else c for c in x',
            ")",
        ),
        {"k": (1, 25)},
    ),
    Op(
        "text",
        "text",
        "replace each stretch of equal characters by the character followed by how long the "
        "stretch is",
        _lines(
            'y, i = "", 0',
            "while i < len(x):",
            "    j = i",
            "    while j < len(x) and x[j] == x[i]:",
            "        j += 1",
            "    y, i = y + x[i] + str(j - i), j",
            "x = y",
        ),
    ),
    Op(
        "text",
        "text",
        "remove every <k>th character (the characters number <k>, 2 * <k> and so on, counting "
        "from 1)",
        'x = "".join(c for i, c in enumerate(x, 1) if i % <k>)',
        {"k": (3, 5)},
    ),
    Op("text", "text", "sort the characters by their code points", 'x = "".join(sorted(x))'),
    Op("text", "text", "append the text reversed to the text", "x = x + x[::-1]"),
    Op(
        "text",
        "text",
        "shorten each stretch of equal characters to one of them",
        'x = "".join(c for i, c in enumerate(x) if i == 0 or c != x[i - 1])',
    ),
    Op(
        "text",
        "text",
        "write each vowel (a, e, i, o, u, small or capital) twice",
        'x = "".join(c * 2 if c in "aeiouAEIOU" else c for c in x)',
    ),
    Op(
        "text", "words", "split the text into its words (stretches without spaces)", "x = x.split()"
    ),
    Op(
        "text",
        "words",
        "cut the text from the left into pieces of <k> characters (the last one may be shorter; "
        "no pieces if the text is empty)",
        "x = [x[i : i + <k>] for i in range(0, len(x), <k>)]",
        {"k": (2, 4)},
    ),
    Op(
        "text",
        "ints",
        "list the positions, counting from <k>, of all vowels (a, e, i, o, u, small or capital)",
        'x = [i for i, c in enumerate(x, <k>) if c in "aeiouAEIOU"]',
        {"k": (0, 1)},
    ),
    Op(
        "text",
        "ints",
        "list the place in the alphabet of each letter from left to right (a and A are 1, z and Z "
        "are 26) and leave out all other characters",
        'x = [ord(c) - 96 for c in x.lower() if "a" <= c <= "z"]',
    ),
    Op("text", "int", "count the different characters of the text", "x = len(set(x))"),
)

_WORD_LISTS = (
    Op(
        "words",
        "words",
        "sort the words by their length, those of equal length in the order of Python's sorted()",
        "x = sorted(x, key=lambda w: (len(w), w))",
    ),
    Op("words", "words", "reverse each word", "x = [w[::-1] for w in x]"),
    Op(
        "words",
        "words",
        "keep only the words of at least <k> characters",
        "x = [w for w in x if len(w) >= <k>]",
        {"k": (2, 5)},
    ),
    Op(
        "words",
        "words",
        "remove repeated words, keeping the last of each",
        "x = list(dict.fromkeys(x[::-1]))[::-1]",
    ),
    Op(
        "words",
        "words",
        "write the words at odd positions (counting from 0) in capitals",
        "x = [w.upper() if i % 2 else w for i, w in enumerate(x)]",
    ),
    Op(
        "words",
        "words",
        "move the first character of each word to the word's end",
        "x = [w[1:] + w[:1] for w in x]",
    ),
    Op(
        "words",
        "words",
        "replace each word by the word, a colon and its position, counting from <k>",
        'x = [f"{w}:{i}" for i, w in enumerate(x, <k>)]',
        {"k": (0, 3)},
    ),
    Op("words", "text", "join the words with a hyphen between them", 'x = "-".join(x)'),
    Op(
        "words",
        "text",
        "join the last characters of the words into one text",
        'x = "".join(w[-1:] for w in x)',
    ),
    Op("words", "ints", "replace each word by its length", "x = [len(w) for w in x]"),
    Op(
        "words",
        "table",
        "make a dict from each word to how often it occurs",
        "x = {w: x.count(w) for w in x}",
    ),
    Op(
        "words",
        "table",
        "make a dict from each word to the position of its last occurrence, counting from <k>",
        "x = {w: i for i, w in enumerate(x, <k>)}",
        {"k": (0, 2)},
    ),
)

_TABLES = (
    Op(
        "table",
        "table",
        "keep only the entries whose value is at least <k>",
        "x = {key: v for key, v in x.items() if v >= <k>}",
        {"k": (-5, 10)},
    ),
    Op(
        "table",
        "table",
        "add <k> to each value whose key has an odd number of characters",
        "x = {key: v + <k> * (len(key) % 2) for key, v in x.items()}",
        {"k": (2, 9)},
    ),
    Op(
        "table",
        "words",
        "list the keys by their values from large to small, those with equal values in the order "
        "of Python's sorted()",
        "x = sorted(x, key=lambda key: (-x[key], key))",
    ),
    Op(
        "table",
        "ints",
        "list the values in the order of their sorted keys (Python's sorted())",
        "x = [x[key] for key in sorted(x)]",
    ),
    Op("table", "int", "add up the values (0 if there are none)", "x = sum(x.values())"),
)

OPS: tuple[Op, ...] = (*_INTS, *_TEXT, *_WORD_LISTS, *_TABLES)
INPUT_KINDS: tuple[Kind, ...] = ("ints", "text", "words", "table")


def random_chain(rng: np.random.Generator, start: Kind, length: int) -> list[Op]:
    """Return `length` ops with their parameters, each taking what the one before it gives."""
    chain: list[Op] = []
    kind = start
    for position in range(length):
        is_last = position == length - 1
        fitting = [op for op in OPS if op.takes == kind and (is_last or op.gives != "int")]
        # By what it gives first: there are many more ops on numbers than on dicts.
        goal = pick(rng, sorted({op.gives for op in fitting}))
        chain.append(pick(rng, [op for op in fitting if op.gives == goal]).drawn(rng))
        kind = chain[-1].gives
    return chain
