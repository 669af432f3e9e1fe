"""treegrpo play: a person plays an episode in the terminal, and takes back what went wrong."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from treegrpo.envs import registry
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import (
    GraderFailed,
    SandboxFailed,
    TreegrpoError,
    UnknownOption,
    suggest,
)
from treegrpo.envs.recorder import Recorder, write_log
from treegrpo.envs.snapshot import Snapshot, core_of, restore, snapshot

HELP = """\
TOOL ARGUMENTS   call a tool: words in the order of its parameters, or name=value
:undo [N]        take back the last action, or the last N; also after the end
:tools           the tools and their parameters
:hint            what the oracle would do
:raw TEXT        send any text as the action
:help            these lines
:quit            leave; so does the end of the input"""

_COMMANDS = re.findall(r"^:\w+", HELP, re.MULTILINE)

EnvId = Annotated[str, typer.Argument(help="Environment id, such as treegrpo/SQL-v0.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the episode.")]
Split = Annotated[str | None, typer.Option(help="Split that the task comes from.")]
Difficulty = Annotated[int | None, typer.Option(help="Level of the task.")]
LogFile = Annotated[
    Path | None, typer.Option("--log", help="Write the action log there, for treegrpo replay.")
]


def play_command(
    env: EnvId,
    seed: Seed = 0,
    split: Split = None,
    difficulty: Difficulty = None,
    log: LogFile = None,
) -> None:
    """Play an episode yourself, with undo."""
    given = {"split": split, "difficulty": difficulty}
    options = {name: value for name, value in given.items() if value is not None}
    if log is not None and log.exists():
        raise UnknownOption(f"--log '{log}' asked for, but it exists. Give another file.")
    if log is not None and not log.parent.is_dir():
        raise UnknownOption(
            f"--log '{log}' asked for, but there is no folder '{log.parent}'. Make it first."
        )
    game = Game(env, seed, options)
    try:
        _play(game)
    except (GraderFailed, SandboxFailed) as error:
        raise TreegrpoError(
            f"The game was broken off: {error}. See treegrpo check {env}."
        ) from error
    if log is not None:
        game.write_log(log)
        typer.echo(f"Written: {log}. See treegrpo replay {log}.")


def _play(game: Game) -> None:
    typer.echo("\n".join(game.opening()))
    for line in _lines():
        typer.echo("\n".join(game.answer(line)))
        if game.left:
            return


def _lines() -> Iterator[str]:
    """Yield what is typed, up to the end of the input."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            typer.echo("")
            return


class Game:
    """An episode and a snapshot before each of its actions; every answer is lines of text."""

    def __init__(self, env_id: str, seed: int, options: dict[str, Any]) -> None:
        """Begin the episode."""
        self._id, self._seed, self._options = env_id, seed, options
        self._env = registry.make(env_id)
        self._core = core_of(self._env)
        self._env.reset(seed=seed, options=options)
        self._before: list[Snapshot] = []
        self._actions: list[str] = []
        self.left = False

    def opening(self) -> list[str]:
        """Return what an agent sees first, the tools and how to play."""
        texts = [message["content"] for message in self._core.messages]
        return [*texts, "", *self._tools(), "", HELP, "", self._budgets()]

    def answer(self, line: str) -> list[str]:
        """Return what comes of a line; `left` is set when it was the last one."""
        word, _, rest = line.strip().partition(" ")
        match word:
            case "" | ":help":
                return [HELP]
            case ":quit":
                self.left = True
                return [self._standing()]
            case ":tools":
                return self._tools()
            case ":undo":
                return self._undo(rest.strip())
            case ":hint":
                return [self._hint()]
            case ":raw":
                return self._act(rest)
            case _ if word.startswith(":"):
                return [f"No command '{word}'.{suggest(word, _COMMANDS)} Not sent.", HELP]
            case _:
                return self._call(word, rest)

    def write_log(self, path: Path) -> None:
        """Write the action log of what was not taken back, played again from the reset."""
        recorder = Recorder(registry.make(self._id))
        recorder.reset(seed=self._seed, options=self._options)
        for action in self._actions:
            recorder.step(action)
        write_log(path, recorder.events)

    def _act(self, action: str) -> list[str]:
        if self._core.episode.ended:
            return [self._standing(), "Only :undo and :quit are left."]
        self._before.append(snapshot(self._env))
        self._actions.append(action)
        _, _, _, _, info = self._env.step(action)
        lines = [f"{message.get('name', '')}: {message['content']}" for message in info["messages"]]
        return [*lines, self._standing() if self._core.episode.ended else self._budgets()]

    def _call(self, name: str, rest: str) -> list[str]:
        parameters = _parameters(self._core).get(name)
        if parameters is None:
            known = ", ".join(_parameters(self._core))
            return [
                f"No tool '{name}'; tools: {known}.{suggest(name, _parameters(self._core))} Not "
                "sent; :raw TEXT sends anything."
            ]
        try:
            arguments = read_arguments(rest, list(parameters))
        except ValueError as error:
            return [f"{name}: {error} Not sent."]
        return self._act(self._core.encode_call(name, **arguments))

    def _undo(self, count: str) -> list[str]:
        number = int(count) if count.isdecimal() else 1 if not count else 0
        if not 1 <= number <= len(self._before):
            return [f"There are {len(self._before)} actions to take back; asked for: {count or 1}."]
        restore(self._env, self._before[-number])
        del self._before[-number:], self._actions[-number:]
        observation = self._core.episode.observation
        return [f"Taken back: {number}. The last thing you saw:", observation, self._budgets()]

    def _hint(self) -> str:
        if self._core.episode.ended:
            return self._standing()
        try:
            return self._core.fork().oracle()  # on a fork: an oracle may draw random numbers
        except NotImplementedError:
            return "This environment ships no oracle."

    def _tools(self) -> list[str]:
        lines: list[str] = []
        for schema in self._core.tool_schemas():
            function = schema["function"]
            words = _parameters(self._core)[function["name"]]
            shown = " ".join(f"{key}:{kind}" for key, kind in words.items())
            lines.append(f"  {function['name']} {shown}".rstrip() + f"   {function['description']}")
        return ["Tools:", *lines]

    def _budgets(self) -> str:
        episode = self._core.episode
        return (
            f"[turn {episode.turns} of {self._core.max_turns}, "
            f"tool calls {episode.tool_calls} of {episode.max_tool_calls}]"
        )

    def _standing(self) -> str:
        episode = self._core.episode
        if not episode.ended:
            return f"Left after turn {episode.turns}; the episode has not ended."
        parts = ", ".join(f"{k} {v:g}" for k, v in episode.info["reward_components"].items())
        solved = "solved" if episode.info["success"] else "not solved"
        outcome = f"return {episode.episode_return:g} ({parts}), {solved}"
        return f"The end ({episode.end_reason}): {outcome}."


def read_arguments(text: str, names: list[str]) -> dict[str, str]:
    """Return the arguments of a line; what is no name=value takes the parameters in turn.

    The only parameter of a tool takes the whole line as it stands.

    Raises:
        ValueError: a quote that is not closed, or more words than parameters.
    """
    text = text.strip()
    if len(names) == 1 and not text.startswith((f"{names[0]}=", "'", '"')):
        return {names[0]: text} if text else {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{error}: '{text}'.") from None
    found: dict[str, str] = {}
    for word in words:
        key, is_named, value = word.partition("=")
        if is_named and key in names:
            found[key] = value
            continue
        free = [name for name in names if name not in found]
        if not free:
            raise ValueError(
                f"'{word}' is one word too many; it takes: {', '.join(names) or 'nothing'}. Put "
                "quotes around a text with spaces."
            )
        found[free[0]] = word
    return found


def _parameters(core: ToolEnv) -> dict[str, dict[str, str]]:
    """Return the parameters of each tool with what they are."""
    found: dict[str, dict[str, str]] = {}
    for schema in core.tool_schemas():
        function = schema["function"]
        properties: dict[str, dict[str, Any]] = function["parameters"].get("properties", {})
        found[function["name"]] = {key: _kind(value) for key, value in properties.items()}
    return found


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))
