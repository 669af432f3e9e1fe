"""Domain folders in the form of tau2-bench: tasks.json, db.json or db.toml, policy.md, splits.

    tasks.json         list of {id, user_scenario, initial_state, evaluation_criteria, ...}
    db.json | db.toml  {table: {key: record}}, or {table: [record, ...]}
    policy.md          text
    split_tasks.json   {split: [task id, ...]}, may be missing

The tools of such a domain are Python code that is not part of these files and is not run. What
can be played without it, and what cannot, stands in `DomainTask.obstacle`. Source of the form:
arXiv 2506.07982.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.digest import digest
from treegrpo.envs.records import DataFile
from treegrpo.envs.suite.service.store import Record

MAX_BYTES = 256 * 1024**2
"""The most that one file may hold when unpacked: it is held in memory."""
READING = ("get_", "find_", "list_", "search_", "check_", "calculate", "think")
"""How the names of actions begin that only read; all others are taken to change something."""

_Id = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def state_facts(self) -> dict[str, Any]:
        """Return what a digest covers."""
        return self.model_dump()


class Action(_Schema):
    """A call of the gold solution; with `compare_args` only these arguments count."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = {}
    requestor: str = "assistant"
    compare_args: list[str] | None = None

    @property
    def is_read(self) -> bool:
        """Whether the name says that it only reads."""
        return self.name.startswith(READING)

    def is_met_by(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether a call does what this one asks for."""
        if name != self.name:
            return False
        if self.compare_args is None:
            return dict(arguments) == self.arguments
        return all(arguments.get(key) == self.arguments.get(key) for key in self.compare_args)


class Criteria(_Schema):
    """What a task is judged by, as far as these files alone can say it."""

    actions: list[Action] | None = None
    communicate_info: list[str] | None = None
    env_assertions: list[Any] | None = None


class Instructions(_Schema):
    """What the customer knows and wants."""

    reason_for_call: Annotated[str, Field(min_length=1)]
    known_info: str | None = None
    unknown_info: str | None = None
    task_instructions: str | None = None


class Scenario(_Schema):
    """The customer: a card with fields, or one text."""

    instructions: Instructions | str


class InitialData(_Schema):
    """Records that a task changes before it begins."""

    agent_data: dict[str, Any] | None = None


class InitialState(_Schema):
    """Where a task begins, if not at the database as it is."""

    initialization_data: InitialData | None = None
    initialization_actions: list[Any] | None = None
    message_history: list[Any] | None = None


class DomainTask(_Schema):
    """An entry of tasks.json; the fields that are not listed are not used."""

    id: _Id
    user_scenario: Scenario
    initial_state: InitialState | None = None
    evaluation_criteria: Criteria | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the customer can say, in order; the first opens the conversation."""
        card = self.user_scenario.instructions
        if isinstance(card, str):
            return (card,)
        told = (card.reason_for_call, card.known_info, card.unknown_info, card.task_instructions)
        return tuple(text.strip() for text in told if text and text.strip())

    @property
    def gold(self) -> tuple[Action, ...]:
        """The agent's calls that change something."""
        actions = (self.evaluation_criteria or Criteria()).actions or []
        return tuple(action for action in actions if not action.is_read)

    @property
    def facts(self) -> tuple[str, ...]:
        """What the customer must be told."""
        return tuple((self.evaluation_criteria or Criteria()).communicate_info or ())

    @property
    def obstacle(self) -> str:
        """Why the task cannot be played without the domain's code; empty if it can."""
        begin, criteria = self.initial_state or InitialState(), self.evaluation_criteria
        if criteria is None:
            return "no evaluation criteria"
        if begin.initialization_actions:
            return "initialization actions"
        if begin.message_history:
            return "a message history"
        if any(action.requestor != "assistant" for action in criteria.actions or ()):
            return "actions of the user"
        if criteria.env_assertions:
            return "assertions about the environment"
        return "" if self.gold or self.facts else "nothing to change and nothing to tell"


@dataclass(frozen=True)
class DomainFolder:
    """What a folder held. `skipped` counts the tasks left out, by obstacle."""

    tables: Mapping[str, Mapping[str, Any]]
    policy: str
    tasks: tuple[DomainTask, ...]
    splits: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, int]
    actions: Mapping[str, tuple[str, ...]]
    """Names of the calls that the tasks' solutions hold, with the names of their arguments."""
    digest: str


def load_domain(folder: Path) -> DomainFolder:
    """Return the domain of a local folder.

    Raises:
        DataFileError: a file is missing or malformed; names file, line and field.
    """
    policy = DataFile(folder / "policy.md", "a policy", MAX_BYTES).text()
    tables = _tables(DataFile(_database(folder), "a database", MAX_BYTES))
    tasks = _tasks(DataFile(folder / "tasks.json", "tasks", MAX_BYTES))
    playable = tuple(task for task in tasks if not task.obstacle)
    skipped = dict(Counter(task.obstacle for task in tasks if task.obstacle))
    if not playable:
        found = f"no task can be played without the domain's code: {skipped}"
        raise DataFile(folder / "tasks.json", "tasks", MAX_BYTES).error(
            found, "Give another domain."
        )
    splits = _splits(folder, [task.id for task in tasks])
    files = [folder / "policy.md", _database(folder), folder / "tasks.json"]
    texts = [DataFile(path, "a domain", MAX_BYTES).text() for path in files]
    marks = digest([texts, splits])
    return DomainFolder(tables, policy, playable, splits, skipped, _actions(playable), marks)


def with_data(tables: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables with a task's own data laid over them; shares what is unchanged."""
    merged = dict(tables)
    for key, value in data.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, Mapping):
            value = with_data(cast("Mapping[str, Any]", below), cast("dict[str, Any]", value))
        merged[key] = value
    return merged


def _database(folder: Path) -> Path:
    known = [folder / name for name in ("db.json", "db.toml", "db.json.gz")]
    return next((path for path in known if path.exists()), known[0])


def _tables(file: DataFile) -> dict[str, Mapping[str, Any]]:
    """Return tables by name; a list becomes a table whose keys are its records' ids."""
    tables: dict[str, Mapping[str, Any]] = {}
    for name, value in file.table().items():
        if isinstance(value, dict):
            tables[name] = cast("dict[str, Any]", value)
        elif isinstance(value, list):
            rows = enumerate(cast("list[Any]", value))
            tables[name] = {_key(row, number): row for number, row in rows}
    if not tables:
        raise file.error("no table was found", "A table is an object or a list of records.")
    return tables


def _key(row: Any, number: int) -> str:
    fields: Record = cast("Record", row) if isinstance(row, dict) else dict[str, Any]()
    name = next((name for name in fields if name == "id" or name.endswith("_id")), None)
    return str(number) if name is None else str(fields[name])


def _tasks(file: DataFile) -> list[DomainTask]:
    tasks: list[DomainTask] = []
    lines: dict[str, int] = {}
    for entry in file.entries():
        task = file.read(entry, DomainTask)
        if task.id in lines:
            found = f"is '{task.id}', as on line {lines[task.id]}"
            raise file.wrong_field(entry, "id", found, "Give each task its own id.")
        lines[task.id] = entry.line
        tasks.append(task)
    return tasks


def _splits(folder: Path, known: list[str]) -> dict[str, tuple[str, ...]]:
    file = DataFile(folder / "split_tasks.json", "splits", MAX_BYTES)
    if not file.path.exists():
        return {}
    splits: dict[str, tuple[str, ...]] = {}
    for name, ids in file.table().items():
        if not isinstance(ids, list):
            raise file.error(f"field '{name}' is no list", "Give a list of task ids.")
        splits[name] = tuple(str(id) for id in cast("list[object]", ids))
        lost = [id for id in splits[name] if id not in known]
        if lost:
            found = f"field '{name}' names task '{lost[0]}', which tasks.json does not have"
            raise file.error(found, "Use a split file of the same tasks.")
    return splits


def _actions(tasks: tuple[DomainTask, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for task in tasks:
        for action in task.gold:
            found.setdefault(action.name, {}).update(dict.fromkeys(action.arguments))
    return {name: tuple(found[name]) for name in sorted(found)}
