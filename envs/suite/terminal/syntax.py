"""A line of shell taken apart: lists of pipelines of commands, words with their quoting kept.

Knows quotes, backslashes, `$NAME`, `${NAME}`, `$?`, comments, `; && || |` and redirections.
Loops, substitutions, background jobs, subshells and here-documents are refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from treegrpo.envs.suite.terminal.disk import CommandError

MAX_COMMANDS = 64
"""The most commands of one line."""
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*|\?))")
_BRACES = re.compile(r"\{[^{}]*,[^{}]*\}|\{[^{}]+\.\.[^{}]+\}")
_REDIRECTION = re.compile(r"(2>&1|1?>&2|&>|2>>|2>|1?>>|1?>|<(?!<))")
_OPERATORS = ("&&", "||", ";", "|", "\n")
_RESERVED = frozenset(
    ("if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac")
) | {"function", "select", "time", "{", "}", "!", "[["}
_WITHOUT_TARGET = ("2>&1", ">&2", "1>&2")


@dataclass(frozen=True)
class Piece:
    """A part of a word; only what is not quoted is matched against file names."""

    text: str
    is_quoted: bool = False
    is_variable: bool = False


Word = tuple[Piece, ...]


@dataclass
class Command:
    """Words, and redirections as (operator, target); the words are not expanded yet."""

    words: list[Word] = field(default_factory=list[Word])
    redirections: list[tuple[str, Word]] = field(default_factory=list[tuple[str, Word]])


@dataclass
class Pipeline:
    """Commands joined by pipes; run if what is before it `succeeded`, `failed`, or always."""

    when: Literal["always", "succeeded", "failed"] = "always"
    commands: list[Command] = field(default_factory=list[Command])


def _syntax_error(token: str) -> CommandError:
    shown = "newline" if token in ("\n", "") else token[:40]
    return CommandError(f"sh: syntax error near unexpected token '{shown}'", 2)


def parse(line: str) -> list[Pipeline]:
    """Return the pipelines of a line, in order.

    Raises:
        CommandError: what no shell understands, or this one does not know.
    """
    pipelines = [Pipeline(commands=[Command()])]
    number = 0
    for token in _tokens(line):
        command = pipelines[-1].commands[-1]
        if not isinstance(token, str):
            _add_word(command, token)
            continue
        if _REDIRECTION.fullmatch(token):
            _require_target(command, token)
            command.redirections.append((token, ()))
            continue
        _require_target(command, token)
        is_empty = not command.words and not command.redirections
        if token in (";", "\n") and is_empty and len(pipelines[-1].commands) == 1:
            if token == ";":
                raise _syntax_error(token)
            continue
        if is_empty:
            raise _syntax_error(token)
        number += 1
        if token == "|":
            pipelines[-1].commands.append(Command())
        else:
            when = {"&&": "succeeded", "||": "failed"}.get(token, "always")
            pipelines.append(Pipeline(when, [Command()]))  # pyright: ignore[reportArgumentType]
    last = pipelines[-1].commands[-1]
    _require_target(last, "\n")
    if not last.words and not last.redirections:
        if len(pipelines[-1].commands) > 1 or pipelines[-1].when != "always":
            raise _syntax_error("\n")
        pipelines.pop()
    if number >= MAX_COMMANDS:
        raise CommandError(f"sh: more than {MAX_COMMANDS} commands on one line", 2)
    return pipelines


def _add_word(command: Command, word: Word) -> None:
    if _lacks_target(command):
        command.redirections[-1] = (command.redirections[-1][0], word)
        return
    is_plain = len(word) == 1 and not word[0].is_quoted
    if not command.words and is_plain and word[0].text in _RESERVED:
        raise CommandError(f"sh: {word[0].text}: not supported; run plain commands", 2)
    command.words.append(word)


def _require_target(command: Command, token: str) -> None:
    if _lacks_target(command):
        raise _syntax_error(token)


def _lacks_target(command: Command) -> bool:
    if not command.redirections:
        return False
    operator, target = command.redirections[-1]
    return not target and operator not in _WITHOUT_TARGET


def _tokens(line: str) -> list[Word | str]:
    """Return words, and operators as plain strings."""
    tokens: list[Word | str] = []
    at = 0
    while at < len(line):
        if line[at] in " \t" or line.startswith("\\\n", at):
            at += 1 if line[at] in " \t" else 2
            continue
        if line[at] == "#":
            end = line.find("\n", at)
            at = len(line) if end < 0 else end
            continue
        operator = _operator(line, at)
        if operator:
            tokens.append(operator)
            at += len(operator)
            continue
        word, at = _word(line, at)
        tokens.append(word)
    return tokens


def _operator(line: str, at: int) -> str | None:
    redirection = _REDIRECTION.match(line, at)
    if redirection:
        return redirection[1]
    for operator in _OPERATORS:
        if line.startswith(operator, at):
            return operator
    for sign, name in (
        ("&", "background jobs"),
        ("(", "subshells"),
        (")", "subshells"),
        ("<<", "here-documents"),
    ):
        if line.startswith(sign, at):
            raise CommandError(f"sh: {name} ({sign}) are not supported", 2)
    return None


def _word(line: str, at: int) -> tuple[Word, int]:
    """Return the word that begins at `at`, and where it ends."""
    pieces: list[Piece] = []
    while at < len(line) and line[at] not in " \t\n;|&<>()":
        sign = line[at]
        if sign == "'":
            end = line.find("'", at + 1)
            if end < 0:
                raise CommandError("sh: a ' is not closed", 2)
            pieces.append(Piece(line[at + 1 : end], is_quoted=True))
            at = end + 1
        elif sign == '"':
            at = _double_quoted(line, at + 1, pieces)
        elif sign == "\\":
            if line[at + 1 : at + 2] != "\n":  # a line that goes on
                pieces.append(Piece(line[at + 1 : at + 2], is_quoted=True))
            at += 2
        elif sign in "$`":
            at = _dollar(line, at, pieces, is_quoted=False)
        else:
            end = at
            while end < len(line) and line[end] not in " \t\n;|&<>()'\"\\$`":
                end += 1
            if _BRACES.search(line, at, end):
                raise CommandError("sh: {A,B} and {1..N} are not supported; write the words out", 2)
            pieces.append(Piece(line[at:end]))
            at = end
    return tuple(pieces), at


def _double_quoted(line: str, at: int, pieces: list[Piece]) -> int:
    pieces.append(Piece("", is_quoted=True))
    while at < len(line) and line[at] != '"':
        if line[at] == "\\" and line[at + 1 : at + 2] in ("$", "`", '"', "\\", "\n"):
            pieces.append(Piece(line[at + 1].replace("\n", ""), is_quoted=True))
            at += 2
        elif line[at] in "$`":
            at = _dollar(line, at, pieces, is_quoted=True)
        else:
            end = at + 1
            while end < len(line) and line[end] not in '"\\$`':
                end += 1
            pieces.append(Piece(line[at:end], is_quoted=True))
            at = end
    if at >= len(line):
        raise CommandError('sh: a " is not closed', 2)
    return at + 1


def _dollar(line: str, at: int, pieces: list[Piece], *, is_quoted: bool) -> int:
    if line[at] == "`" or line.startswith("$(", at):
        raise CommandError("sh: command substitution is not supported; run it by itself", 2)
    found = _VARIABLE.match(line, at)
    if found:
        pieces.append(Piece(found[1] or found[2], is_quoted, is_variable=True))
        return found.end()
    if line.startswith("${", at):
        raise CommandError("sh: only ${NAME} is supported", 2)
    if line[at + 1 : at + 2] in tuple("0123456789#@*$!-"):
        raise CommandError(f"sh: {line[at : at + 2]} is not supported", 2)
    pieces.append(Piece("$", is_quoted))
    return at + 1
