"""A desk over a domain folder: the records to look at, and acts that are noted, not carried out.

The code of such a domain's tools is not in its files, so an act changes nothing here: it is
held against the gold solution by name and arguments. The customer reads from a card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.errors import UnknownSplit
from treegrpo.envs.suite.service.domain_files import (
    Action,
    DomainFolder,
    DomainTask,
    load_domain,
    with_data,
)
from treegrpo.envs.suite.service.plan import DONE
from treegrpo.envs.suite.service.store import Refused
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool

MAX_FOUND = 10
MAX_ACT_CHARS = 4_000
PATIENCE = 4
TOLD_ALL = "I have told you all I know."
LEFT = "I have no more time for this. Goodbye."


@dataclass(slots=True)
class FileDeskState:
    """An episode: the acts in order, which facts were told, how far the card was read."""

    acts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    told: list[int] = field(default_factory=list[int])
    read: int = 1
    patience: int = PATIENCE
    ending: str | None = None


class FileDesk(ToolEnv):
    """Tasks of a domain folder, judged by acts and by what the customer was told."""

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "base")
    max_turns = 60
    max_tool_calls = 90
    max_observation_chars = 60_000
    system_prompt: ClassVar[str] = (
        "You serve a customer. Keep to the policy. Look records up with tables, find and record; "
        "whatever changes something goes through act. Talk to the customer with say."
    )

    def __init__(
        self, data: str, *, render_mode: str | None = None, format: str = "hermes"
    ) -> None:
        """Read the folder; see make_service.

        Raises:
            DataFileError: a file is missing or malformed.
        """
        super().__init__(render_mode=render_mode, format=format)
        self.folder: DomainFolder = load_domain(Path(data))

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split; without a file of splits, all whichever is asked for."""
        splits = self.folder.splits
        if splits and split not in splits:
            raise UnknownSplit(
                f"Split '{split}' of '{self.folder.digest[:12]}' asked for; its split_tasks.json "
                f"has: {', '.join(splits)}. Ask for one of these."
            )
        wanted = splits.get(split)
        found = [task for task in self.folder.tasks if wanted is None or task.id in wanted]
        return [_as_task(task) for task in found]

    def setup(self, task: Task, rng: np.random.Generator) -> FileDeskState:
        """Return a state in which nothing was done and the card's first line was read."""
        return FileDeskState()

    def prompt(self, task: Task) -> str:
        """Return the policy, the acts that there are, and the customer's first words."""
        acts = "\n".join(
            f"- {name}({', '.join(arguments)})" for name, arguments in self.folder.actions.items()
        )
        return f"{self.folder.policy.strip()}\n\nActs\n{acts}\n\nCustomer: {task.question}"

    def score(
        self, state: FileDeskState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return the parts and what the gate takes away: their sum is 1 or 0."""
        gold = cast("DomainTask", task.answer)
        holds = {
            "acts": match(gold.gold, state.acts),
            "information": set(state.told) == set(range(len(gold.facts))),
            "ending": state.ending == DONE,
        }
        parts = {"acts": 0.5 * holds["acts"]}
        parts |= {name: 0.25 * holds[name] for name in ("information", "ending")}
        gate = 0.0 if all(holds.values()) else -sum(parts.values())
        return {**parts, "all_or_nothing": gate}

    # ------------------------------------------------------------------------------ the tools

    @tool
    def tables(self) -> str:
        """List the tables of the database, with the number of their records."""
        return ", ".join(f"{name} ({len(rows)})" for name, rows in self._tables().items())

    @tool
    def find(self, table: str, text: str) -> str:
        """Find the records of a table that hold all words of a text.

        Args:
            table: the table's name.
            text: the words.
        """
        wanted = text.lower().split()
        rows = self._table(table)
        keys = [
            key
            for key, row in rows.items()
            if all(word in f"{key} {_shown(row)}".lower() for word in wanted)
        ]
        more = f" and {len(keys) - MAX_FOUND} more" if len(keys) > MAX_FOUND else ""
        return ", ".join(keys[:MAX_FOUND]) + more or "Nothing found."

    @tool
    def record(self, table: str, key: str) -> str:
        """Show a record.

        Args:
            table: the table's name.
            key: the record's key.
        """
        rows = self._table(table)
        if key not in rows:
            raise Refused(f"table {table} has no record '{key[:40]}'")
        return _shown(rows[key])

    @tool(effects="write")
    def act(self, action: str, arguments: dict[str, Any]) -> str:
        """Carry out one of the acts; this is final.

        Args:
            action: the act's name.
            arguments: its arguments by name.
        """
        known = self.folder.actions
        if action not in known:
            raise Refused(f"there is no act '{action[:60]}'; acts: {', '.join(known)}")
        spelled = json.dumps(arguments, sort_keys=True)
        if len(spelled) > MAX_ACT_CHARS:
            raise Refused(f"the arguments of an act have at most {MAX_ACT_CHARS} characters")
        self._desk.acts.append((action, spelled))
        return "Noted."

    @tool(effects="write")
    def say(self, text: str) -> str:
        """Say something to the customer and hear the answer.

        Args:
            text: the message.
        """
        state, gold = self._desk, self._gold
        news = [
            number
            for number, fact in enumerate(gold.facts)
            if number not in state.told and tells(text, fact)
        ]
        state.told += news
        if state.read < len(gold.sentences):
            state.read += 1
            return f"Customer: {gold.sentences[state.read - 1]}"
        state.patience -= not news
        if state.patience <= 0:
            self.finish("customer_left")
            return f"Customer: {LEFT}"
        return f"Customer: {TOLD_ALL}"

    @tool(effects="write")
    def done(self) -> str:
        """End the conversation when all is done."""
        self._desk.ending = DONE
        self.finish(DONE)
        return "Done."

    # ----------------------------------------------------------------------------- the inside

    def oracle(self) -> str:
        """Return the next gold act that is missing, then what is to be told, then the end."""
        state, gold = self._desk, self._gold
        if len(state.acts) < len(gold.gold):
            step = gold.gold[len(state.acts)]
            return self.encode_call("act", action=step.name, arguments=step.arguments)
        due = [fact for number, fact in enumerate(gold.facts) if number not in state.told]
        return self.encode_call("say", text=due[0]) if due else self.encode_call("done")

    def _tables(self) -> Mapping[str, Mapping[str, Any]]:
        begin = self._gold.initial_state
        data = begin.initialization_data if begin is not None else None
        return with_data(self.folder.tables, (data.agent_data if data else None) or {})

    def _table(self, name: str) -> Mapping[str, Any]:
        tables = self._tables()
        if name not in tables:
            raise Refused(f"there is no table '{name[:60]}'; tables: {', '.join(tables)}")
        return tables[name]

    @property
    def _desk(self) -> FileDeskState:
        return cast("FileDeskState", self.state)

    @property
    def _gold(self) -> DomainTask:
        return cast("DomainTask", self.task.answer)


def match(gold: Sequence[Action], acts: Sequence[tuple[str, str]]) -> bool:
    """Return whether the acts are the gold ones: each once, none besides, in any order."""
    left = list(acts)
    # The most particular first, so that a loose one does not take an act from a strict one.
    for action in sorted(gold, key=lambda action: action.compare_args is not None):
        fitting = [act for act in left if action.is_met_by(act[0], json.loads(act[1]))]
        if not fitting:
            return False
        left.remove(fitting[0])
    return not left


def tells(text: str, fact: str) -> bool:
    """Return whether a message holds a fact's words in order, whole words only."""
    said, wanted = (re.findall(r"\w+", part.lower().replace(",", "")) for part in (text, fact))
    spans = range(len(said) - len(wanted) + 1)
    return any(said[at : at + len(wanted)] == wanted for at in spans)


def _as_task(task: DomainTask) -> Task:
    level = min(5, max(1, len(task.gold)))
    return Task(task.id, task.sentences[0], task, level)


def _shown(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
