"""Commands that look for text: grep, sed, diff."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from treegrpo.envs.suite.terminal.disk import CommandError, File, name_of
from treegrpo.envs.suite.terminal.machine import (
    MAX_OUTPUT,
    Machine,
    Options,
    Output,
    Program,
    each,
    lines_of,
    need,
    options,
    text_of,
)
from treegrpo.envs.suite.terminal.patterns import SEARCH_WORK, Pattern, Spend, name_matches, regex
from treegrpo.envs.suite.terminal.text_commands import source

MAX_DIFF_LINES, MAX_SCRIPT = 400, 1_000

# ------------------------------------------------------------------------------------ grep


def _grep(machine: Machine, args: list[str], stdin: str) -> Output:
    include = [arg.partition("=")[2] for arg in args if arg.startswith("--include=")]
    given = options([a for a in args if not a.startswith("--include=")], "rRnilcvEFwohHqsx", "e")
    operands = given.operands
    if "e" in given.values:
        text = given.values["e"]
    else:
        text, operands = need(operands, 1)[0], operands[1:]
    pattern = _grep_pattern(text, given, machine.spend)
    is_deep = "r" in given or "R" in given
    names = operands or (["."] if is_deep else ["-"])
    has_name = ("H" in given or is_deep or len(names) > 1) and "h" not in given
    found = 0

    def search(shown: str) -> str:
        nonlocal found
        out, count = _grep_text(source(machine, shown, stdin), shown, pattern, given, has_name)
        found += count
        return out

    def search_all(name: str) -> str:
        if name == "-" or not machine.disk.is_folder(machine.path(name)):
            return search(name)
        if not is_deep:
            raise CommandError(f"{name}: Is a directory", 2)
        return "".join(search(shown) for shown in _files_below(machine, name, include))

    output = each("grep", names, search_all)
    err = "" if "s" in given else output.err
    code = 2 if output.code else int(found == 0)
    return Output("" if "q" in given else output.out, err, 0 if "q" in given and found else code)


def _grep_pattern(text: str, given: Options, spend: Spend) -> Pattern:
    pattern = regex(
        text, spend, is_extended="E" in given, ignore_case="i" in given, is_fixed="F" in given
    )
    if "w" in given or "x" in given:
        around = r"\b(?:{})\b" if "w" in given else r"\A(?:{})\Z"
        whole = around.format(pattern.regex.pattern)
        return Pattern(re.compile(whole, pattern.regex.flags), pattern.choices, spend)
    return pattern


def _files_below(machine: Machine, name: str, include: list[str]) -> list[str]:
    path = machine.path(name)
    shown: list[str] = []
    for inner in machine.disk.walk(path):
        entry = machine.disk.get(inner)
        fits = not include or any(
            name_matches(p[:240], name_of(inner), machine.spend) for p in include
        )
        if isinstance(entry, File) and entry.mode & 0o400 and fits:
            shown.append(name.rstrip("/") + inner[len(path.rstrip("/")) :])
    return shown


def _grep_text(
    text: str, shown: str, pattern: Pattern, given: Options, has_name: bool
) -> tuple[str, int]:
    """Return what is printed for one text, and how many of its lines were selected."""
    head = f"{shown}:" if has_name else ""
    out: list[str] = []
    count = 0
    for number, line in enumerate(lines_of(text), 1):
        match = pattern.search(line)
        if (match is None) != ("v" in given):
            continue
        count += 1
        place = f"{head}{number}:" if "n" in given else head
        if "o" in given and match:
            out += [f"{place}{m[0]}" for m in pattern.regex.finditer(line) if m[0]]
        else:
            out.append(place + line)
    if "l" in given:
        return (f"{shown}\n" if count else ""), count
    return (f"{head}{count}\n" if "c" in given else text_of(out)), count


# ------------------------------------------------------------------------------------- sed


@dataclass
class _Edit:
    """One sed command: where it works, and what it does (`s`, `p`, `d`, `q`)."""

    first: int | str | Pattern | None
    last: int | str | Pattern | None
    action: str
    pattern: Pattern | None = None
    template: str = ""
    flags: str = ""
    is_inside: bool = False

    def selects(self, number: int, is_last: bool, line: str) -> bool:
        """Return whether a line is addressed; a range remembers that it has begun."""
        if self.last is None:
            return self.first is None or _is_at(self.first, number, is_last, line)
        if self.is_inside:
            self.is_inside = not _is_at(self.last, number, is_last, line)
            return not (isinstance(self.last, int) and number > self.last)
        if self.first is not None and _is_at(self.first, number, is_last, line):
            self.is_inside = not (isinstance(self.last, int) and number >= self.last)
            return True
        return False


def _is_at(place: int | str | Pattern, number: int, is_last: bool, line: str) -> bool:
    if isinstance(place, Pattern):
        return place.search(line) is not None
    return is_last if isinstance(place, str) else number == place


def _sed(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "niEr", "e")
    operands = given.operands
    if "e" in given.values:
        script = given.values["e"]
    else:
        script, operands = need(operands, 1)[0], operands[1:]
    if len(script) > MAX_SCRIPT:
        raise CommandError(f"script is longer than {MAX_SCRIPT} characters")
    is_extended = "E" in given or "r" in given
    if "i" in given:

        def edit(name: str) -> str:
            before = machine.read(name)
            edits = _script(script, is_extended, machine.spend)
            machine.write(name, _edited(before, edits, "n" in given, machine.spend))
            return ""

        return each("sed", need(operands, 1), edit)
    read = each("sed", operands or ["-"], lambda name: source(machine, name, stdin))
    edits = _script(script, is_extended, machine.spend)
    out = _edited(read.out, edits, "n" in given, machine.spend)
    return Output(out, read.err, read.code)


def _edited(text: str, edits: list[_Edit], is_quiet: bool, spend: Spend) -> str:
    lines = lines_of(text)
    out: list[str] = []
    size = 0
    for number, line in enumerate(lines, 1):
        is_last = number == len(lines)
        spend(SEARCH_WORK * len(edits))
        printed, is_over = _edited_line(line, number, is_last, edits, is_quiet)
        out += printed
        size += sum(map(len, printed))
        if size > MAX_OUTPUT:
            raise CommandError("output too large")
        if is_over:
            break
    ends = text.endswith("\n") or not out
    return text_of(out) if ends else text_of(out)[:-1]


def _edited_line(
    line: str, number: int, is_last: bool, edits: list[_Edit], is_quiet: bool
) -> tuple[list[str], bool]:
    """Return what a line becomes, and whether the script ends here."""
    out: list[str] = []
    for edit in edits:
        if not edit.selects(number, is_last, line):
            continue
        if edit.action == "d":
            return out, False
        if edit.action == "q":
            return (out if is_quiet else [*out, line]), True
        if edit.action == "p":
            out.append(line)
        else:
            line, is_changed = _substituted(edit, line)
            if is_changed and "p" in edit.flags:
                out.append(line)
    return (out if is_quiet else [*out, line]), False


def _substituted(edit: _Edit, line: str) -> tuple[str, bool]:
    pattern = edit.pattern
    if pattern is None:
        return line, False
    pattern.pay(line)
    nth = re.search(r"[1-9]", edit.flags)
    wanted = int(nth[0]) if nth else 1
    out: list[str] = []
    at = seen = size = 0
    for match in pattern.regex.finditer(line):
        seen += 1
        if seen < wanted:
            continue
        new = _filled(edit.template, match)
        out += [line[at : match.start()], new]
        at, size = match.end(), size + len(new)
        if size > MAX_OUTPUT:
            raise CommandError("output too large")
        if "g" not in edit.flags:
            break
    return "".join([*out, line[at:]]), bool(out)


def _filled(template: str, match: re.Match[str]) -> str:
    def fill(found: re.Match[str]) -> str:
        text = found[0]
        if text == "&":
            return match[0]
        if text[1:].isdigit():
            return (match[int(text[1])] or "") if int(text[1]) <= match.re.groups else ""
        return {"n": "\n", "t": "\t"}.get(text[1:], text[1:])

    return re.sub(r"\\.|&", fill, template, flags=re.DOTALL)


class _Script:
    """A sed script on its way into edits."""

    def __init__(self, text: str, is_extended: bool, spend: Spend) -> None:
        self.text, self.is_extended, self.spend, self.at = text, is_extended, spend, 0

    def run(self) -> list[_Edit]:
        edits: list[_Edit] = []
        while self._skip(" \t\n;"):
            edits.append(self._edit())
        return edits

    def _skip(self, signs: str) -> bool:
        while self.text[self.at : self.at + 1] and self.text[self.at] in signs:
            self.at += 1
        return self.at < len(self.text)

    def _edit(self) -> _Edit:
        first, last = self._address(), None
        if first is not None and self.text[self.at : self.at + 1] == ",":
            self.at += 1
            last = self._address()
            if last is None:
                raise CommandError("unexpected ','")
        self._skip(" ")
        action = self.text[self.at : self.at + 1]
        self.at += 1
        if action in ("p", "d", "q"):
            edit = _Edit(first, last, action)
        elif action == "s":
            edit = self._substitution(first, last)
        else:
            raise CommandError(f"unknown or unsupported command: '{action}'; use s, p, d or q")
        self._skip(" \t")
        if self.at < len(self.text) and self.text[self.at] not in ";\n":
            raise CommandError("extra characters after command")
        return edit

    def _address(self) -> int | str | Pattern | None:
        number = re.match("[0-9]{1,9}", self.text[self.at :])
        if number:
            self.at += number.end()
            return int(number[0])
        if self.text.startswith("$", self.at):
            self.at += 1
            return "$"
        if self.text.startswith("/", self.at):
            self.at += 1
            return regex(
                self._until("/"), self.spend, is_extended=self.is_extended, ignore_case=False
            )
        return None

    def _substitution(
        self, first: int | str | Pattern | None, last: int | str | Pattern | None
    ) -> _Edit:
        sign = self.text[self.at : self.at + 1]
        if not sign or sign in "\\\n":
            raise CommandError("unterminated 's' command")
        self.at += 1
        old, new = self._until(sign), self._until(sign)
        flags = re.match("[gpiI1-9]*", self.text[self.at :])
        letters = flags[0] if flags else ""
        self.at += len(letters)
        pattern = regex(
            old, self.spend, is_extended=self.is_extended, ignore_case="i" in letters.lower()
        )
        return _Edit(first, last, "s", pattern, new, letters)

    def _until(self, sign: str) -> str:
        """Return the text up to a delimiter, which a backslash makes an ordinary sign."""
        out: list[str] = []
        while self.at < len(self.text) and self.text[self.at] != sign:
            if self.text[self.at] == "\\" and self.at + 1 < len(self.text):
                follows = self.text[self.at + 1]
                out.append(follows if follows == sign else "\\" + follows)
                self.at += 2
            else:
                out.append(self.text[self.at])
                self.at += 1
        if self.at >= len(self.text):
            raise CommandError(f"a '{sign}' is missing")
        self.at += 1
        return "".join(out)


def _script(text: str, is_extended: bool, spend: Spend) -> list[_Edit]:
    return _Script(text, is_extended, spend).run()


# ------------------------------------------------------------------------------------ diff


def differences(old: str, new: str, old_name: str, new_name: str, spend: Spend) -> str:
    """Return a unified diff of two texts; empty if they are equal.

    Raises:
        CommandError: more lines than a comparison may have.
    """
    left, right = lines_of(old), lines_of(new)
    if max(len(left), len(right)) > MAX_DIFF_LINES:
        raise CommandError(f"more than {MAX_DIFF_LINES} lines to compare", 2)
    spend(100 * len(left) * len(right))
    lines = list(difflib.unified_diff(left, right, old_name, new_name, lineterm=""))
    if not lines and old != new:
        return f"--- {old_name}\n+++ {new_name}\n\\ Only the end of the last line differs\n"
    return text_of(lines)


def _diff(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "uqr")
    left, right = need(given.operands, 2, 2)
    if "r" in given:
        return _diff_folders(machine, left, right, "q" in given)
    text = differences(
        source(machine, left, stdin), source(machine, right, stdin), left, right, machine.spend
    )
    if text and "q" in given:
        text = f"Files {left} and {right} differ\n"
    return Output(text, code=int(text != ""))


def _diff_folders(machine: Machine, left: str, right: str, is_brief: bool) -> Output:
    names: list[set[str]] = []
    for side in (left, right):
        path = machine.require_folder(side)
        paths = (inner[len(path) :] for inner in machine.disk.walk(path) if inner != path)
        names.append({p for p in paths if isinstance(machine.disk.get(path + p), File)})
    out: list[str] = []
    for name in sorted(names[0] | names[1]):
        if name not in names[0] or name not in names[1]:
            out.append(f"Only in {left if name in names[0] else right}: {name.lstrip('/')}\n")
            continue
        old, new = left.rstrip("/") + name, right.rstrip("/") + name
        text = differences(machine.read(old), machine.read(new), old, new, machine.spend)
        out.append(f"Files {old} and {new} differ\n" if text and is_brief else text)
    text = "".join(out)
    return Output(text, code=int(text != ""))


PROGRAMS: Mapping[str, Program] = {"grep": _grep, "sed": _sed, "diff": _diff}
"""These commands by their names."""
