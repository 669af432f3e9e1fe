"""Runs a line of shell on a machine: expansion, pipes, redirection, and the built-in commands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from treegrpo.envs.suite.terminal import (
    file_commands,
    git_commands,
    pattern_commands,
    text_commands,
)
from treegrpo.envs.suite.terminal.disk import CommandError, File, joined, name_of
from treegrpo.envs.suite.terminal.machine import (
    HOME,
    MAX_OUTPUT,
    NULL,
    Machine,
    Output,
    Program,
    need,
    options,
)
from treegrpo.envs.suite.terminal.patterns import has_wildcard, literal, name_matches
from treegrpo.envs.suite.terminal.syntax import Command, Pipeline, Word, parse

MAX_WORD, MAX_WORDS = 16_384, 2_048
MAX_PATTERN, MAX_VARIABLES = 240, 64
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def run(machine: Machine, line: str) -> Output:
    """Run a line and return what it printed, output and errors in one text (`out`).

    Whatever the line is, nothing is raised: a failure is a text and an exit code.
    """
    machine.clock += 1
    machine.work = 0
    try:
        pipelines = parse(line)
    except CommandError as error:
        machine.status = error.code
        return Output(f"{error.text}\n", code=error.code)
    screen: list[str] = []
    for pipeline in pipelines:
        if pipeline.when == "always" or (pipeline.when == "succeeded") == (machine.status == 0):
            _run_pipeline(machine, pipeline, screen)
    machine.work = 0
    return Output("".join(screen), code=machine.status)


def _run_pipeline(machine: Machine, pipeline: Pipeline, screen: list[str]) -> None:
    stdin = ""
    place, variables = machine.cwd, dict(machine.variables)
    for command in pipeline.commands:
        output = _run_command(machine, command, stdin)
        screen.append(output.err)
        stdin, machine.status = output.out, output.code
    screen.append(stdin)
    if len(pipeline.commands) > 1:  # each runs in a shell of its own
        machine.cwd, machine.variables = place, variables


@dataclass
class _Streams:
    """Where a command reads from and prints to; None is the pipe or the screen."""

    stdin: str
    out: str | None = None
    err: str | None = None
    is_err_out: bool = False
    is_out_err: bool = False


def _run_command(machine: Machine, command: Command, stdin: str) -> Output:
    try:
        words = _expanded(machine, command.words)
        streams = _Streams(stdin)
        for operator, target in command.redirections:
            _redirect(machine, streams, operator, target)
    except CommandError as error:
        return Output(err=f"sh: {error.text.removeprefix('sh: ')}\n", code=error.code)
    output = _assigned(machine, words) or call(machine, words, streams.stdin)
    try:
        return _delivered(machine, streams, output)
    except CommandError as error:
        return Output(err=f"sh: {error.text}\n", code=1)


def call(machine: Machine, words: list[str], stdin: str) -> Output:
    """Return what a command printed; its failures are part of it."""
    if not words:
        return Output()
    name = words[0]
    program = PROGRAMS.get(name)
    if program is None:
        return Output(err=f"sh: {name[:60]}: command not found\n", code=127)
    try:
        output = program(machine, words[1:], stdin)
    except CommandError as error:
        return Output(err=f"{name}: {error.text}\n", code=error.code)
    if len(output.out) > MAX_OUTPUT:
        return Output(
            output.out[:MAX_OUTPUT], f"{name}: output cut at {MAX_OUTPUT} characters\n", 1
        )
    return output


def _assigned(machine: Machine, words: list[str]) -> Output | None:
    """Return the empty output of assignments, or None if the words are a command."""
    found = [_ASSIGNMENT.fullmatch(word) for word in words]
    if not words or found[0] is None:
        return None
    if None in found:
        return Output(err="sh: NAME=value before a command is not supported\n", code=2)
    for each in found:
        if each is not None:
            machine.variables[each[1]] = each[2]
    if len(machine.variables) > MAX_VARIABLES:
        machine.variables = {}
        return Output(err=f"sh: more than {MAX_VARIABLES} variables; all dropped\n", code=2)
    return Output()


def _redirect(machine: Machine, streams: _Streams, operator: str, target: Word) -> None:
    if operator == "2>&1":
        streams.err, streams.is_err_out = streams.out, streams.out is None
        return
    if operator in (">&2", "1>&2"):
        streams.out, streams.is_out_err = streams.err, streams.err is None
        return
    names = _expanded(machine, [target])
    if len(names) != 1:
        raise CommandError("ambiguous redirect")
    if operator == "<":
        streams.stdin = machine.read(names[0])
        return
    # As in any shell the file is emptied before the command runs, even one that reads it.
    machine.write(names[0], "", is_appended=operator.endswith(">>"))
    path = machine.path(names[0])
    if operator[0] in "2&":
        streams.err, streams.is_err_out = path, False
    if operator[0] != "2":
        streams.out, streams.is_out_err = path, False


def _delivered(machine: Machine, streams: _Streams, output: Output) -> Output:
    out, err = "", ""
    if streams.out is not None:
        _append(machine, streams.out, output.out)
    elif streams.is_out_err:
        err = output.out
    else:
        out = output.out
    if streams.err is not None:
        _append(machine, streams.err, output.err)
    elif streams.is_err_out:
        out += output.err
    else:
        err += output.err
    return Output(out, err, output.code)


def _append(machine: Machine, path: str, text: str) -> None:
    if path != NULL:
        machine.write(path, text, is_appended=True)


# ------------------------------------------------------------------------------- expansion


def _expanded(machine: Machine, words: list[Word]) -> list[str]:
    found: list[str] = []
    for word in words:
        for pattern in _fields(machine, word):
            if len(pattern) > MAX_WORD:
                raise CommandError("argument too long")
            found += _matched(machine, pattern)
            if len(found) > MAX_WORDS:
                raise CommandError("argument list too long")
    return found


def _fields(machine: Machine, word: Word) -> list[str]:
    """Return the patterns that a word stands for once its variables are replaced."""
    fields: list[str] = [""]
    is_word = False
    for number, piece in enumerate(word):
        text = _value(machine, piece.text) if piece.is_variable else piece.text
        if piece.is_quoted:
            fields[-1] += re.sub(r"([\\*?\[])", r"\\\1", text)
            is_word = True
        elif piece.is_variable:
            parts = [part.replace("\\", "\\\\") for part in re.split(r"[ \t\n]+", text)]
            fields = [*fields[:-1], fields[-1] + parts[0], *parts[1:]]
        else:
            if number == 0 and (text == "~" or text.startswith("~/")):
                text = HOME + text[1:]
            fields[-1] += text
        if len(fields[-1]) > MAX_WORD:
            raise CommandError("argument too long")
    return [field for field in fields if field] or ([""] if is_word else [])


def _value(machine: Machine, name: str) -> str:
    known = {"?": str(machine.status), "HOME": HOME, "PWD": machine.cwd, "USER": "agent"}
    return machine.variables.get(name, known.get(name, ""))


def _matched(machine: Machine, pattern: str) -> list[str]:
    """Return the paths that fit a pattern, or the pattern as it is if none does."""
    if not has_wildcard(pattern) or len(pattern) > MAX_PATTERN:
        return [literal(pattern)]
    shown = ["/"] if pattern.startswith("/") else [""]
    for part in pattern.strip("/").split("/"):
        shown = [path for base in shown for path in _inside(machine, base, part)]
    return shown or [literal(pattern)]


def _inside(machine: Machine, base: str, part: str) -> Iterator[str]:
    folder = machine.path(base or ".")
    if not has_wildcard(part):
        name = literal(part)
        if machine.disk.get(machine.path(joined(folder, name))) is not None:
            yield joined(base, name) if base else name
        return
    for child in machine.disk.children(folder):
        name = name_of(child)
        if name.startswith(".") <= part.startswith(".") and name_matches(part, name, machine.spend):
            yield joined(base, name) if base else name


# -------------------------------------------------------------------------------- built in


def _cd(machine: Machine, args: list[str], stdin: str) -> Output:
    target = need(args, 0, 1)[0] if args else HOME
    machine.cwd = machine.require_folder(target)
    return Output()


def _pwd(machine: Machine, args: list[str], stdin: str) -> Output:
    return Output(f"{machine.cwd}\n")


def _export(machine: Machine, args: list[str], stdin: str) -> Output:
    return _assigned(machine, args) or Output()


def _xargs(machine: Machine, args: list[str], stdin: str) -> Output:
    if args and args[0].startswith("-"):
        raise CommandError(f"invalid option '{args[0][:40]}'; it takes a command only")
    words = [*(args or ["echo"]), *stdin.split()]
    if len(words) > MAX_WORDS or words[0] == "xargs":
        raise CommandError("argument list too long, or xargs inside xargs")
    return call(machine, words, "")


def _test(machine: Machine, args: list[str], stdin: str) -> Output:
    is_wanted = True
    while args[:1] == ["!"]:
        args, is_wanted = args[1:], not is_wanted
    return Output(code=int(_holds(machine, args) != is_wanted))


def _bracket(machine: Machine, args: list[str], stdin: str) -> Output:
    if args[-1:] != ["]"]:
        raise CommandError("missing ']'", 2)
    return _test(machine, args[:-1], stdin)


def _holds(machine: Machine, args: list[str]) -> bool:
    if len(args) < 2:
        return bool(args and args[0])
    if len(args) == 2:
        entry = machine.disk.get(machine.path(args[1])) if args[1] else None
        known = {
            "-e": entry is not None,
            "-f": isinstance(entry, File),
            "-d": entry is not None and not isinstance(entry, File),
            "-s": isinstance(entry, File) and entry.text != "",
            "-n": args[1] != "",
            "-z": args[1] == "",
        }
        if args[0] in known:
            return known[args[0]]
    elif len(args) == 3 and args[1] in ("=", "==", "!="):
        return (args[0] == args[2]) == (args[1] != "!=")
    elif len(args) == 3 and args[1] in ("-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
        left, right = (_integer(text) for text in (args[0], args[2]))
        return {
            "-eq": left == right, "-ne": left != right, "-lt": left < right,
            "-le": left <= right, "-gt": left > right, "-ge": left >= right,
        }[args[1]]  # fmt: skip
    raise CommandError("condition not understood", 2)


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise CommandError(f"{text[:40]}: integer expected", 2)
    return int(text)


def _exit_with(code: int) -> Program:
    return lambda machine, args, stdin: Output(code=code)


def _help(machine: Machine, args: list[str], stdin: str) -> Output:
    options(args, "")
    return Output(f"{' '.join(sorted(PROGRAMS))}\n")


PROGRAMS: Mapping[str, Program] = {
    **file_commands.PROGRAMS,
    **text_commands.PROGRAMS,
    **pattern_commands.PROGRAMS,
    **git_commands.PROGRAMS,
    "cd": _cd,
    "pwd": _pwd,
    "export": _export,
    "xargs": _xargs,
    "test": _test,
    "[": _bracket,
    "true": _exit_with(0),
    ":": _exit_with(0),
    "false": _exit_with(1),
    "help": _help,
}
"""Every command by its name."""
