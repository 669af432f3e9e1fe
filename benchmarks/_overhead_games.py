"""Two games played on both sides: one secret code, one room, the same action texts.

Each text holds the move in every notation, and each side parses the one that it knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any, cast

from benchmarks._overhead_ours import Subject
from treegrpo.envs import make
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.law_cases import Case
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suite.games.rooms import Room

MASTERMIND, SOKOBAN = "treegrpo/Mastermind-v0", "treegrpo/Sokoban-v0"
GUESSES = 7
_OURS_ROOM, _THEIR_ROOM = "#-.@$*", "#_OPX\u221a"
_CELLS = {"#": 0, "-": 1, ".": 2, "*": 3, "$": 4, "@": 5, "+": 5}
"""The peers' number of a cell: wall, floor, goal, box on goal, box, player."""


@dataclass(frozen=True)
class Game:
    """One game: our side of it, what the peers are given, and how replies are compared.

    plain: returns what a reply says of the game, in the words of neither side.
    """

    subject: Subject
    given: dict[str, Any]
    plain: Callable[[str], str]

    def replies(self) -> list[str]:
        """Return what our side replies to each action, in plain form."""
        case = self.subject.cases[0]
        env = case.at(0)
        found = [self.plain(env.step(action)[0]) for action in case.actions]
        env.close()
        return found


def difference(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """Return where two sides' plain replies part; None if they played the same game.

    The last reply may be a mere congratulation, so only its being the last is compared.
    """
    if len(ours) != len(theirs):
        return f"{len(ours)} steps here, {len(theirs)} there"
    for number, (one, other) in enumerate(zip(ours[:-1], theirs[:-1], strict=True), start=1):
        if one != other or not one:
            return f"step {number}: {one!r} here, {other!r} there"
    return None


def games() -> dict[str, Game]:
    """Return the games by name."""
    return {"mastermind": _mastermind(), "sokoban": _sokoban()}


def _mastermind() -> Game:
    """Return a code of 4 of 6 letters, none of them twice, found with the last guess."""
    seed, env = next(
        (seed, env)
        for seed, env in _drawn(MASTERMIND)
        if env.task.difficulty == 3 and len(set(str(env.task.answer))) == 4
    )
    letters, secret = str(env.task.data["letters"]), str(env.task.answer)
    wrong = [code for code in map("".join, permutations(letters, 4)) if code != secret]
    codes = [*wrong[:: len(wrong) // (GUESSES - 1)][: GUESSES - 1], secret]
    guesses = [[letters.index(letter) + 1 for letter in code] for code in codes]
    actions = [
        _text(" ".join(map(str, guess)), env.encode_call("guess", code=" ".join(code)))
        for guess, code in zip(guesses, codes, strict=True)
    ]
    given = {"secret": guesses[-1], "guesses": guesses, "actions": actions}
    case = Case(partial(make, MASTERMIND), seed, tuple(actions))
    return Game(Subject(MASTERMIND, "pure Python", [case], "mastermind"), given, _counts)


def _sokoban() -> Game:
    """Return a drawn room, solved along its plan."""
    seed, env = next((seed, env) for seed, env in _drawn(SOKOBAN) if env.task.difficulty == 2)
    data = env.task.data
    room = cast("Room", data["room"])
    actions: list[str] = []
    while not env.episode.ended:
        call = env.oracle()
        found = re.search(r"\b(up|down|left|right)\b", call)
        assert found is not None, f"no direction in the oracle's {call!r}"
        actions.append(_text(found[1], call))
        env.step(actions[-1])
    given = {
        "fixed": [[_CELLS[cell] for cell in row] for row in room.rows()],
        "state": [[_CELLS[c] for c in row] for row in room.rows(data["boxes"], data["player"])],
        "boxes": len(data["boxes"]),
        "actions": actions,
    }
    case = Case(partial(make, SOKOBAN), seed, tuple(actions))
    return Game(Subject(SOKOBAN, "pure Python", [case], "sokoban"), given, _board)


def _drawn(env_id: str) -> Iterator[tuple[int, ToolEnv]]:
    """Yield seeds with an environment at the start of each seed's episode."""
    seed = 0
    while True:
        env = core_of(make(env_id))
        env.reset(seed=seed)
        yield seed, env
        seed += 1


def _text(move: str, call: str) -> str:
    return f"I try this next.\n[{move}]\n\\boxed{{{move}}}\n{call}"


def _counts(reply: str) -> str:
    """Return the last counts of placed and misplaced pegs in a reply, or ""."""
    found = re.findall(r"(\d+) (?:placed|black peg\(s\))\D+(\d+) (?:misplaced|white peg)", reply)
    return json.dumps([int(count) for count in found[-1]]) if found else ""


def _board(reply: str) -> str:
    """Return the last board in a reply, in the signs of ours, or ""."""
    table = str.maketrans(_THEIR_ROOM + "+", _OURS_ROOM + "@")
    boards: list[list[str]] = [[]]
    for line in reply.splitlines():
        cells = line.replace(" ", "")
        is_board = len(cells) > 2 and set(cells) <= set(_OURS_ROOM + "+" + _THEIR_ROOM)
        if is_board:
            boards[-1].append(cells.translate(table))
        elif boards[-1]:
            boards.append([])
    full = [board for board in boards if board]
    return "\n".join(full[-1]) if full else ""
