"""Little machines for the stateful programming tasks: words are commands that change a state.

A machine has a list and a total; what its command words do is drawn anew for every task, so
nothing can be known beforehand. With `undo`, a word takes back the last command.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.code_exec.ops import between, listed, pick

_NAMES = listed(
    "blip cord dune fern glow husk knot lark mist numb opal pyre quay rook silt tarn urge vole "
    "wisp yarn"
)


@dataclass(frozen=True)
class Effect:
    """What one command does; `takes_number` if it comes with one, called n."""

    says: str
    code: tuple[str, ...]
    takes_number: bool = False


_EFFECTS = (
    Effect("put n at the end of the list", ("items.append(n)",), True),
    Effect("put n at the beginning of the list", ("items.insert(0, n)",), True),
    Effect("add n to the total", ("total += n",), True),
    Effect(
        "multiply the total by n and keep the remainder on division by 97 (as Python's % gives it)",
        ("total = total * n % 97",),
        True,
    ),
    Effect("remove all entries of the list that are smaller than n",
           ("items = [v for v in items if v >= n]",), True),
    Effect("add n to every entry of the list", ("items = [v + n for v in items]",), True),
    Effect(
        "remove the last entry of the list and add it to the total (nothing happens if the list "
        "is empty)",
        ("if items:", "    total += items.pop()"),
    ),
    Effect(
        "repeat the last entry of the list (nothing happens if the list is empty)",
        ("items = items + items[-1:]",),
    ),
    Effect(
        "swap the first and the last entry of the list (nothing happens if it has fewer than two)",
        ("if items:", "    items[0], items[-1] = items[-1], items[0]"),
    ),
    Effect("turn the list round", ("items = items[::-1]",)),
    Effect(
        "replace the last two entries of the list by their sum (nothing happens if there are "
        "fewer than two)",
        ("if len(items) > 1:", "    items.append(items.pop() + items.pop())"),
    ),
    Effect("change the sign of the total", ("total = -total",)),
    Effect("put the total at the end of the list, then set the total to 0",
           ("items.append(total)", "total = 0")),
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The command words with their effects; `undo` is the word that takes back, if any."""

    commands: tuple[tuple[str, Effect], ...]
    undo: str | None = None

    def says(self) -> list[str]:
        """Return the rules for the agent, one line each."""
        lines = [
            f'- "{word}{" n" if effect.takes_number else ""}": {effect.says};'
            for word, effect in self.commands
        ]
        if self.undo is not None:
            lines.append(
                f'- "{self.undo}": put list and total back to what they were before the last '
                f'command that has not been taken back yet ("{self.undo}" itself is not counted; '
                "nothing happens if there is none);"
            )
        lines.append("- any other text is ignored.")
        return lines

    def code(self) -> str:
        """Return the lines that turn `x`, the commands, into the list with the total behind it."""
        lines = ["total, items = 0, []", "saved = []", "for command in x:"]
        lines += ['    word, _, rest = command.partition(" ")', "    n = int(rest or 0)"]
        lines += ["    before = total, list(items)"]
        if self.undo is None:
            lines = [line for line in lines if line not in ("saved = []", lines[-1])]
        branch = "if"
        for word, effect in self.commands:
            lines.append(f'    {branch} word == "{word}":')
            lines += [f"        {line}" for line in effect.code]
            branch = "elif"
        if self.undo is not None:
            lines.append(f'    elif word == "{self.undo}":')
            lines += ["        if saved:", "            total, items = saved.pop()"]
            lines += ["        continue", "    else:", "        continue"]
            lines += ["    saved.append(before)"]
        return "\n".join([*lines, "x = [*items, total]"])

    def one_less(self) -> list[Machine]:
        """Return the machines that lack one of the commands, or the way back."""
        kept = [self.commands[:i] + self.commands[i + 1 :] for i in range(len(self.commands))]
        less = [Machine(commands, self.undo) for commands in kept]
        return less if self.undo is None else [*less, Machine(self.commands, None)]

    def random_input(self, rng: np.random.Generator) -> list[str]:
        """Return random commands, at times with one that means nothing."""
        size = between(rng, 2, 16)
        return [self.random_command(rng) for _ in range(size)]

    def random_command(self, rng: np.random.Generator) -> str:
        """Return a random command, at times one that means nothing."""
        if self.undo is not None and rng.random() < 0.2:
            return self.undo
        if rng.random() < 0.05:
            return "zzz 1"
        word, effect = pick(rng, self.commands)
        return f"{word} {between(rng, -9, 9)}" if effect.takes_number else word


def random_machine(rng: np.random.Generator, size: int, *, has_undo: bool) -> Machine:
    """Return a machine of `size` commands, at least two of which take a number."""
    with_number = [effect for effect in _EFFECTS if effect.takes_number]
    plain = [effect for effect in _EFFECTS if not effect.takes_number]
    numbered = size // 2
    chosen = [with_number[int(i)] for i in rng.permutation(len(with_number))[:numbered]]
    chosen += [plain[int(i)] for i in rng.permutation(len(plain))[: size - numbered]]
    words = [_NAMES[int(i)] for i in rng.permutation(len(_NAMES))[: size + 1]]
    commands = tuple(zip(words, chosen, strict=False))
    return Machine(commands, words[-1] if has_undo else None)
