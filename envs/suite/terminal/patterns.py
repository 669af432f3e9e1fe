"""Patterns of grep, sed and file names with a bounded cost.

Regular expressions are translated to Python's. How long its matcher may take is bounded before
it runs, by the pattern and the length of each line; what may take too long is refused. A
repeated group and a back-reference in the pattern are refused always.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import comb

from treegrpo.envs.suite.terminal.disk import CommandError

Spend = Callable[[int], None]
"""Counts work, and raises a CommandError when it comes to too much."""
MAX_PATTERN, MAX_CHOICES, MAX_REPEAT = 200, 8, 32
SEARCH_WORK = 200
"""Of a pattern's use on a line, however short."""
_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z",
            "lower": "a-z", "space": r"\s", "punct": r"!-/:-@\[-`{-~"}  # fmt: skip


@dataclass
class Pattern:
    """A compiled pattern that counts what its uses may cost."""

    regex: re.Pattern[str]
    choices: int
    spend: Spend

    def pay(self, line: str) -> None:
        """Count the worst case of a search in a line.

        Raises:
            CommandError: it may take too long.
        """
        self.spend(comb(len(line) + self.choices + 1, self.choices + 1) + SEARCH_WORK)

    def search(self, line: str) -> re.Match[str] | None:
        """Return the first match in a line."""
        self.pay(line)
        return self.regex.search(line)


def regex(
    pattern: str, spend: Spend, *, is_extended: bool, ignore_case: bool, is_fixed: bool = False
) -> Pattern:
    """Return a basic, extended or fixed pattern, ready for use.

    Raises:
        CommandError: it is not valid, too long, or its cost cannot be bounded.
    """
    if len(pattern) > MAX_PATTERN:
        raise CommandError(f"pattern is longer than {MAX_PATTERN} characters", 2)
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    if is_fixed:
        return Pattern(re.compile(re.escape(pattern), flags), 0, spend)
    text, choices = _Translation(pattern, is_extended).run()
    if choices > MAX_CHOICES:
        raise CommandError(f"pattern has more than {MAX_CHOICES} repeats and choices", 2)
    try:
        return Pattern(re.compile(text, flags), choices, spend)
    except (re.error, OverflowError) as error:
        raise CommandError(f"invalid pattern: {error}", 2) from None


class _Translation:
    """One pattern on its way into Python's syntax."""

    def __init__(self, pattern: str, is_extended: bool) -> None:
        self.pattern, self.is_extended = pattern, is_extended
        self.out: list[str] = []
        self.choices = self.at = 0
        self.can_repeat = self.is_after_group = False

    def run(self) -> tuple[str, int]:
        while self.at < len(self.pattern):
            self._one()
        return "".join(self.out), self.choices

    def _one(self) -> None:
        sign = self.pattern[self.at]
        if sign == "\\":
            follows = self.pattern[self.at + 1 : self.at + 2]
            if not follows:
                raise CommandError("pattern ends with a backslash", 2)
            self.at += 2
            if not self.is_extended and follows in "(){}|+?":
                self._special(follows)
            else:
                self._escaped(follows)
        elif sign == "[":
            self._bracket()
        elif sign in ".^$*" or (self.is_extended and sign in "(){}|+?"):
            self.at += 1
            self._special(sign)
        else:
            self.at += 1
            self._atom(re.escape(sign))

    def _atom(self, text: str) -> None:
        self.out.append(text)
        self.can_repeat, self.is_after_group = True, False

    def _escaped(self, sign: str) -> None:
        if sign.isdigit():
            raise CommandError("back-references in a pattern are not supported", 2)
        if sign in "bB<>":
            self.out.append(r"\B" if sign == "B" else r"\b")
            self.can_repeat = False
        else:
            self._atom("\\" + sign if sign in "wWsS" else re.escape(sign))

    def _special(self, sign: str) -> None:
        if sign == ".":
            self._atom(".")
        elif sign in "*+?{":
            self._repeat(sign)
        elif sign in "(|^":
            self.choices += sign == "|"
            self.out.append(sign)
            self.can_repeat = self.is_after_group = False
        elif sign == "}":
            self._atom(r"\}")
        else:  # ")" and "$"
            self.out.append(sign if sign == ")" or self._is_at_end() else r"\$")
            self.can_repeat, self.is_after_group = True, sign == ")"

    def _is_at_end(self) -> bool:
        rest = self.pattern[self.at :]
        return rest == "" or rest.startswith((")", "|", "\\)", "\\|"))

    def _repeat(self, sign: str) -> None:
        if not self.can_repeat:
            self._atom(re.escape(sign))
            return
        if self.is_after_group:
            raise CommandError("a repeated group is not supported", 2)
        if sign == "{":
            closing = "}" if self.is_extended else r"\}"
            end = self.pattern.find(closing, self.at)
            counts = re.fullmatch(r"(\d{1,3})(,(\d{1,3})?)?", self.pattern[self.at : max(end, 0)])
            if not counts or max(int(counts[1]), int(counts[3] or 0)) > MAX_REPEAT:
                raise CommandError(f"invalid repeat; counts go up to {MAX_REPEAT}", 2)
            self.out.append(f"{{{counts[0]}}}")
            self.at = end + len(closing)
        else:
            self.out.append(sign)
        self.choices += 1
        self.can_repeat = False

    def _bracket(self) -> None:
        end = self.at + 1
        is_negated = self.pattern.startswith("^", end)
        end += is_negated
        parts: list[str] = []
        first = end
        while end < len(self.pattern) and (self.pattern[end] != "]" or end == first):
            named = re.match(r"\[:([a-z]+):\]", self.pattern[end:])
            if named:
                if named[1] not in _CLASSES:
                    raise CommandError(f"invalid character class '{named[1]}'", 2)
                parts.append(_CLASSES[named[1]])
                end += named.end()
                continue
            sign = self.pattern[end]
            parts.append("\\" + sign if sign in r"\[]^&~|" else sign)
            end += 1
        if end >= len(self.pattern):
            raise CommandError("unmatched [ in pattern", 2)
        self.at = end + 1
        self._atom(f"[{'^' if is_negated else ''}{''.join(parts)}]")


def name_matches(pattern: str, name: str, spend: Spend) -> bool:
    """Return whether a file's name fits a pattern of `*`, `?`, `[...]` and backslashes.

    Takes at most len(pattern) * len(name) steps, each as dear as 20 of the other matcher.

    Raises:
        CommandError: that is too much.
    """
    spend(20 * len(pattern) * len(name))
    atoms = _atoms(pattern)
    reached = {0}
    for sign in name:
        reached = _closed(reached, atoms)
        after: set[int] = set()
        for at in reached:
            if at < len(atoms):
                atom = atoms[at]
                if atom == "*":
                    after.add(at)
                elif _fits(atom, sign):
                    after.add(at + 1)
        reached = after
    return len(atoms) in _closed(reached, atoms)


def has_wildcard(pattern: str) -> bool:
    """Return whether a pattern stands for more than itself."""
    return any(len(atom) > 2 or atom in ("*", "?") for atom in _atoms(pattern))


def literal(pattern: str) -> str:
    """Return the text that a pattern without wildcards stands for."""
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def _closed(reached: set[int], atoms: list[str]) -> set[int]:
    closed = set(reached)
    for at in range(len(atoms)):
        if at in closed and atoms[at] == "*":
            closed.add(at + 1)
    return closed


def _atoms(pattern: str) -> list[str]:
    """Return the signs of a pattern: `*`, `?`, `[...]`, or a backslash with a plain sign."""
    atoms: list[str] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        end = pattern.find("]", at + 2) if sign == "[" else -1
        if end > 0:
            atoms.append(pattern[at : end + 1])
            at = end + 1
        elif sign in "*?":
            atoms.append(sign)
            at += 1
        else:
            at += sign == "\\" and at + 1 < len(pattern)
            atoms.append("\\" + pattern[at])
            at += 1
    return atoms


def _fits(atom: str, sign: str) -> bool:
    if atom == "?":
        return True
    if len(atom) == 2:
        return atom[1] == sign
    body = atom[1:-1]
    is_negated = body[:1] in ("!", "^")
    body = body[is_negated:]
    found = False
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            found = found or body[at] <= sign <= body[at + 2]
            at += 3
        else:
            found = found or body[at] == sign
            at += 1
    return found != is_negated
