"""Crafting tasks from public files: AgentGym items, and TextCraft's recipe text.

    AgentGym items   JSON list of {item_id, conversations: [{from, value}, ...]}; the first
                     message that has both "Crafting commands:" and "Goal:" is the task
    recipe text      one or more blocks of

                         Crafting commands:
                         craft 4 oak planks using 1 oak log
                         Goal: craft oak planks.

Only recipes and goals are the file's; the rules are this environment's. What no command makes
is a resource, unless it names a group: "planks" where a command makes "oak planks". A group
stands for the first such item. Nothing is ever downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.records import DataFile, Entry
from treegrpo.envs.suite.crafting.book import Book, Recipe, Resource
from treegrpo.envs.suite.crafting.plan import best_recipes, num_steps, order_of, worst_needs
from treegrpo.envs.suite.crafting.tasks import DIFFICULTIES, build
from treegrpo.envs.tasks import Task

BATCH = 8
"""How much of a resource one gather gives in a file's tasks."""
SPARE = 2
"""A file's stocks are this many times what the goal needs, and at least `BATCH` pieces."""
MAX_BYTES = 256 * 1024**2
"""The most that a file may hold when unpacked."""
MAX_COUNT = 999
MAX_COMMANDS, MAX_STEPS = 300, 500
"""The most that a file's task may have and take; a longer one is not played to its end."""
_HEAD, _GOAL = "Crafting commands:", "Goal:"
_END = "End it with 'Goal: craft <item>'."
_COMMAND = re.compile(r"craft (\d{1,9}) (\S.*?) using (\S.*)")
_PART = re.compile(r"(\d{1,9}) (\S.*)")
_WANTED = re.compile(r"Goal: craft (?:(\d{1,9}) )?(\S.*?)\.?")


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Turn(_Fields):
    """One message of an AgentGym conversation."""

    value: str


class Item(_Fields):
    """An AgentGym item."""

    item_id: str = Field(min_length=1)
    conversations: list[Turn] = Field(min_length=1)


@dataclass(frozen=True)
class _Block:
    """The text of one task, and where it stands, for errors."""

    name: str | None
    lines: tuple[str, ...]
    line: int
    entry: Entry | None = None
    field: str = ""
    """The entry and its field that hold the text, unless the file itself does."""

    def place(self, offset: int) -> tuple[str, str | int]:
        """Return the words that name a line of the block, and its place in the file."""
        if self.entry:
            return f"field '{self.field}', its line {offset + 1}: ", self.entry.place
        return "", self.line + offset


def load_tasks(path: Path) -> list[Task]:
    """Return the tasks of a file, in its order; the format is told by the first sign.

    Raises:
        DataFileError: a file that cannot be read, or whose goal cannot be made; names file,
            line and field.
    """
    file = DataFile(path, "crafting tasks", MAX_BYTES)
    text = file.text()
    is_json = text.lstrip()[0] in "[{"
    tasks: list[Task] = []
    lines: dict[str, int] = {}
    for block in _items(file) if is_json else _blocks(file, text):
        task = _task(file, block)
        if task.id in lines:
            found = f"field 'item_id' is {task.id!r}, as on line {lines[task.id]}"
            if not is_json:
                found = f"the task is the same as that of line {lines[task.id]}"
            place = block.entry.place if block.entry else block.line
            raise file.error(found, "Leave one of the two out.", place)
        lines[task.id] = block.line
        tasks.append(task)
    return tasks


def _items(file: DataFile) -> Iterator[_Block]:
    """Yield the tasks of AgentGym items."""
    for entry in file.entries():
        item = file.read(entry, Item)
        for number, turn in enumerate(item.conversations):
            if _HEAD in turn.value and _GOAL in turn.value:
                lines = tuple(turn.value.partition(_HEAD)[2].splitlines())
                yield _Block(
                    item.item_id, lines, entry.line, entry, f"conversations.{number}.value"
                )
                break
        else:
            found = f"has no message with '{_HEAD}' and '{_GOAL}'"
            raise file.wrong_field(entry, "conversations", found, "Give items of TextCraft.")


def _blocks(file: DataFile, text: str) -> Iterator[_Block]:
    """Yield the tasks of a recipe text, each from its head to its goal."""
    start, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == _HEAD:
            if start:
                raise file.error(f"line {start}'s task has no goal", _END, number)
            start, lines = number, []
        elif start:
            lines.append(line)
            if line.strip().startswith(_GOAL):
                yield _Block(None, tuple(lines), start + 1)
                start = 0
        elif line.strip():
            found = f"found {line.strip()[:60]!r} outside a task"
            raise file.error(found, f"Begin a task with '{_HEAD}'.", number)
    if start:
        found = f"the task ends without '{_GOAL}'"
        raise file.error(found, _END, start)


def _task(file: DataFile, block: _Block) -> Task:
    recipes: list[Recipe] = []
    goal: tuple[str, int] | None = None
    for offset, line in enumerate(block.lines):
        text = line.strip()
        if text.startswith(_GOAL):
            goal = _goal(file, block, offset, text)
            break
        if text:
            recipes.append(_recipe(file, block, offset, text))
        if len(recipes) > MAX_COMMANDS:
            place, number = block.place(offset)
            found = f"{place}the task has more than {MAX_COMMANDS} commands"
            raise file.error(found, "Leave the task out.", number)
    if goal is None:  # an item whose goal stands before its commands
        place, number = block.place(0)
        to_do = f"Put '{_GOAL}' behind the commands."
        raise file.error(f"{place}no goal follows the commands", to_do, number)
    return _built(file, block, recipes, goal)


def _built(file: DataFile, block: _Block, recipes: list[Recipe], goal: tuple[str, int]) -> Task:
    made = list(dict.fromkeys(recipe.item for recipe in recipes))
    recipes = [_without_groups(recipe, made) for recipe in recipes]
    raw = dict.fromkeys(part for r in recipes for part, _ in r.parts if part not in made)
    book = Book(tuple(recipes), tuple(Resource(name, BATCH, 0) for name in raw))
    chosen = best_recipes(book)
    if goal[0] not in chosen:
        place, number = block.place(len(block.lines) - 1)
        found = f"{place}no commands lead from resources to the goal '{goal[0][:60]}'"
        raise file.error(found, "Add the commands that are missing.", number)
    needs, steps = worst_needs(book, goal), num_steps(book, goal)[1]
    if steps > MAX_STEPS:
        place, number = block.place(len(block.lines) - 1)
        found = f"{place}the goal takes {steps} steps, more than {MAX_STEPS}"
        raise file.error(found, "Leave the task out.", number)
    stocks = (Resource(name, BATCH, max(BATCH, SPARE * needs.get(name, 0))) for name in raw)
    crafted = sum(name in chosen for name in order_of(chosen, goal[0]))
    level = min(crafted, DIFFICULTIES[-1])
    return build(Book(book.recipes, tuple(stocks)), goal, level, name=block.name)


def _without_groups(recipe: Recipe, made: list[str]) -> Recipe:
    """Return the recipe with each group replaced by the first item that belongs to it."""
    parts: dict[str, int] = {}
    for part, count in recipe.parts:
        members = [] if part in made else [item for item in made if item.endswith(f" {part}")]
        name = members[0] if members else part
        parts[name] = parts.get(name, 0) + count
    return Recipe(recipe.item, tuple(parts.items()), recipe.makes)


def _recipe(file: DataFile, block: _Block, offset: int, text: str) -> Recipe:
    found = _COMMAND.fullmatch(text)
    parts = [_PART.fullmatch(part.strip()) for part in found[3].split(",")] if found else []
    read = [(part[2], int(part[1])) for part in parts if part]
    counts = [int(found[1]), *(count for _, count in read)] if found else []
    if not found or len(read) < len(parts) or not all(1 <= n <= MAX_COUNT for n in counts):
        place, number = block.place(offset)
        to_do = f"Write 'craft 4 oak planks using 1 oak log', counts from 1 to {MAX_COUNT}."
        raise file.error(f"{place}{text[:80]!r} is no command", to_do, number)
    return Recipe(found[2], tuple(read), int(found[1]))


def _goal(file: DataFile, block: _Block, offset: int, text: str) -> tuple[str, int]:
    found = _WANTED.fullmatch(text)
    if not found or not 1 <= int(found[1] or 1) <= MAX_COUNT:
        place, number = block.place(offset)
        to_do = f"Write 'Goal: craft oak planks.', with a count of at most {MAX_COUNT} if any."
        raise file.error(f"{place}{text[:80]!r} is no goal", to_do, number)
    return found[2], int(found[1] or 1)
