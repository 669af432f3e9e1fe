"""Commands on text: echo, printf, cat, head, tail, wc, sort, uniq, cut, tr, tee."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from treegrpo.envs.suite.terminal.disk import CommandError
from treegrpo.envs.suite.terminal.machine import (
    MAX_OUTPUT,
    READ_WORK,
    Machine,
    Options,
    Output,
    Program,
    each,
    lines_of,
    need,
    options,
    text_of,
    to_number,
)

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "r": "\r", "0": "\0"}


def unescaped(text: str) -> str:
    r"""Return a text with `\n`, `\t`, `\r`, `\0` and `\\` replaced by what they stand for."""
    return re.sub(r"\\([nt\\r0])", lambda found: _ESCAPES[found[1]], text)


def source(machine: Machine, name: str, stdin: str) -> str:
    """Return the text of a file; `-` is what comes through the pipe."""
    if name != "-":
        return machine.read(name)
    machine.spend(READ_WORK * len(stdin))
    return stdin


def _echo(machine: Machine, args: list[str], stdin: str) -> Output:
    flags = ""
    while args and re.fullmatch("-[ne]+", args[0]):
        flags += args[0]
        args = args[1:]
    text = " ".join(args)
    if "e" in flags:
        text = unescaped(text)
    return Output(text if "n" in flags else f"{text}\n")


def _printf(machine: Machine, args: list[str], stdin: str) -> Output:
    form, *values = need(args, 1)
    parts = re.split(r"(%[sd%])", unescaped(form))
    slots = sum(part in ("%s", "%d") for part in parts)
    if "%" in "".join(part for part in parts if part not in ("%s", "%d", "%%")):
        raise CommandError("only %s, %d and %% are supported")
    out: list[str] = []
    left = list(reversed(values))
    while True:
        for part in parts:
            if part in ("%s", "%d"):
                value = left.pop() if left else ("" if part == "%s" else "0")
                if part == "%d" and not re.fullmatch(r"-?[0-9]{1,18}", value):
                    raise CommandError(f"{value[:40]}: expected numeric value")
                out.append(value)
            else:
                out.append("%" if part == "%%" else part)
        if not left or not slots:
            return Output("".join(out))


def _cat(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "n")
    output = each("cat", given.operands or ["-"], lambda name: source(machine, name, stdin))
    if "n" not in given:
        return output
    numbered = (f"{number:6d}\t{line}" for number, line in enumerate(lines_of(output.out), 1))
    return Output(text_of(numbered), output.err, output.code)


def _head(machine: Machine, args: list[str], stdin: str) -> Output:
    def cut(text: str, given: Options, count: str) -> str:
        if "c" in given.values:
            return text[: given.number("c", 0)]
        if count.startswith("-"):
            return text_of(lines_of(text)[: -to_number(count[1:]) or None])
        return text_of(lines_of(text)[: to_number(count)])

    return _ends("head", machine, args, stdin, cut)


def _tail(machine: Machine, args: list[str], stdin: str) -> Output:
    def cut(text: str, given: Options, count: str) -> str:
        if "c" in given.values:
            return text[max(0, len(text) - given.number("c", 0)) :]
        lines = lines_of(text)
        if count.startswith("+"):
            return text_of(lines[max(0, to_number(count[1:]) - 1) :])
        return text_of(lines[max(0, len(lines) - to_number(count.removeprefix("-"))) :])

    return _ends("tail", machine, args, stdin, cut)


def _ends(
    name: str,
    machine: Machine,
    args: list[str],
    stdin: str,
    cut: Callable[[str, Options, str], str],
) -> Output:
    """Return the part of each file that `cut` keeps, under the file's name if there are more."""
    if args and re.fullmatch(r"-[0-9]+", args[0]):
        args = [f"-n{args[0][1:]}", *args[1:]]
    given = options(args, "q", "nc")
    names = given.operands or ["-"]

    def show(operand: str) -> str:
        text = cut(source(machine, operand, stdin), given, given.values.get("n", "10"))
        return f"==> {operand} <==\n{text}\n" if has_title else text

    has_title = len(names) > 1 and "q" not in given
    output = each(name, names, show)
    return Output(output.out[: -1 if has_title else None], output.err, output.code)


def _wc(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "lwcm")
    shown = [letter for letter in "lwmc" if letter in given] or ["l", "w", "c"]
    total = dict.fromkeys(shown, 0)

    def row(counts: Mapping[str, int], name: str) -> str:
        return f"{' '.join(str(counts[letter]) for letter in shown)} {name}".rstrip() + "\n"

    def count(operand: str) -> str:
        text = source(machine, operand, stdin)
        counts = {"l": text.count("\n"), "w": len(text.split()), "m": len(text)}
        counts["c"] = len(text.encode("utf-8", "replace"))
        for letter in shown:
            total[letter] += counts[letter]
        return row(counts, "" if operand == "-" else operand)

    output = each("wc", given.operands or ["-"], count)
    if len(given.operands) > 1:
        return Output(output.out + row(total, "total"), output.err, output.code)
    return output


def _sort(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "nruf", "kt")
    output = each("sort", given.operands or ["-"], lambda name: source(machine, name, stdin))
    column = re.fullmatch(r"([0-9]{1,4})(,[0-9]{1,4})?(n?)(r?)", given.values.get("k", "0"))
    if not column:
        raise CommandError(f"invalid key '{given.values['k'][:40]}'", 2)
    separator = given.values.get("t")
    is_numeric = "n" in given or column[3] == "n"
    at = int(column[1])

    def key(line: str) -> tuple[float, str]:
        if at:
            fields = line.split(separator) if separator else line.split()
            last = int(column[2][1:]) if column[2] else len(fields)
            text = (separator or " ").join(fields[at - 1 : last])
        else:
            text = line
        text = text.lower() if "f" in given else text
        return (_leading_number(text), "") if is_numeric else (0.0, text)

    is_reversed = "r" in given or column[4] == "r"
    lines = sorted(lines_of(output.out), key=lambda line: (key(line), line), reverse=is_reversed)
    if "u" in given:
        lines = list({key(line): line for line in reversed(lines)}.values())[::-1]
    return Output(text_of(lines), output.err, output.code)


def _leading_number(text: str) -> float:
    found = re.match(r"\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)", text)
    return float(found[1]) if found else 0.0


def _uniq(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "cdui")
    runs: list[tuple[str, int]] = []
    for line in lines_of(source(machine, (need(given.operands, 0, 1) or ["-"])[0], stdin)):
        fold = line.lower() if "i" in given else line
        before = runs[-1][0].lower() if runs and "i" in given else runs[-1][0] if runs else None
        if before == fold:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((line, 1))
    if "d" in given:
        runs = [run for run in runs if run[1] > 1]
    if "u" in given:
        runs = [run for run in runs if run[1] == 1]
    return Output(text_of(f"{n:7d} {line}" if "c" in given else line for line, n in runs))


def _cut(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "s", "dfc")
    if ("f" in given.values) == ("c" in given.values):
        raise CommandError("give either a list of fields (-f) or of characters (-c)")
    spans = _spans(given.values.get("f") or given.values["c"])
    separator = given.values.get("d", "\t")
    if len(separator) != 1:
        raise CommandError("the delimiter must be a single character")

    def pick(items: list[str]) -> list[str]:
        chosen = {n for low, high in spans for n in range(low, min(high, len(items)) + 1)}
        return [items[n - 1] for n in sorted(chosen)]

    def cut(name: str) -> str:
        out: list[str] = []
        for line in lines_of(source(machine, name, stdin)):
            if "c" in given.values:
                out.append("".join(pick(list(line))))
            elif separator in line:
                out.append(separator.join(pick(line.split(separator))))
            elif "s" not in given:
                out.append(line)
        return text_of(out)

    return each("cut", given.operands or ["-"], cut)


def _spans(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for part in text.split(",")[:64]:
        found = re.fullmatch(r"([0-9]{1,6})?(-)?([0-9]{1,6})?", part)
        if not found or not (found[1] or found[3]) or (found[3] and not found[2]):
            raise CommandError(f"invalid list '{text[:40]}'")
        low = int(found[1] or 1)
        high = int(found[3]) if found[3] else (999_999 if found[2] else low)
        if low < 1 or high < low:
            raise CommandError(f"invalid list '{text[:40]}'")
        spans.append((low, high))
    return spans


def _tr(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "ds")
    sets = [_signs(text) for text in need(given.operands, 1, 2)]
    if (len(sets) == 2) == ("d" in given) and not (len(sets) == 1 and "s" in given):
        raise CommandError("give two sets, or one with -d or -s")
    text = stdin
    if "d" in given:
        gone = set(sets[0])
        text = "".join(sign for sign in text if sign not in gone)
    elif len(sets) == 2:
        if not sets[1]:
            raise CommandError("the second set must not be empty")
        padded = sets[1] + sets[1][-1] * len(sets[0])
        text = text.translate({ord(a): b for a, b in reversed(list(zip(sets[0], padded)))})  # noqa: B905
    if "s" in given:
        squeezed = set(sets[-1])
        kept = [s for at, s in enumerate(text) if not (s in squeezed and text[at - 1 : at] == s)]
        text = "".join(kept)
    return Output(text)


def _signs(text: str) -> str:
    """Return the characters of a set: ranges and classes written out."""
    for name, span in (("lower", "a-z"), ("upper", "A-Z"), ("digit", "0-9"), ("space", " \t\n")):
        text = text.replace(f"[:{name}:]", span)
    text = unescaped(text)
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at + 1 : at + 2] == "-" and at + 2 < len(text):
            low, high = ord(text[at]), ord(text[at + 2])
            if not 0 <= high - low < 256:
                raise CommandError(f"invalid range '{text[at : at + 3]}'")
            out += map(chr, range(low, high + 1))
            at += 3
        else:
            out.append(text[at])
            at += 1
    if len(out) > 4096:
        raise CommandError("a set is too long")
    return "".join(out)


def _tee(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "a")

    def write(name: str) -> str:
        machine.write(name, stdin, is_appended="a" in given)
        return ""

    output = each("tee", given.operands[: MAX_OUTPUT // 1024], write)
    return Output(stdin, output.err, output.code)


PROGRAMS: Mapping[str, Program] = {
    "echo": _echo,
    "printf": _printf,
    "cat": _cat,
    "head": _head,
    "tail": _tail,
    "wc": _wc,
    "sort": _sort,
    "uniq": _uniq,
    "cut": _cut,
    "tr": _tr,
    "tee": _tee,
}
"""These commands by their names."""
