"""The service desk: what every domain shares - state, talking, identification, ending, reward.

A domain adds its tools (shop_desk, airline_desk). Whatever a tool writes is final: there is no
way back, and a write that breaks the policy is carried out all the same and spoils the episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.suite.service import oracle, tasks
from treegrpo.envs.suite.service.customer import Customer
from treegrpo.envs.suite.service.domain import Domain
from treegrpo.envs.suite.service.plan import DONE, Brief, Goal, Request, Step, pick
from treegrpo.envs.suite.service.rules import Rules
from treegrpo.envs.suite.service.store import Record, Refused, Store
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task
from treegrpo.envs.tools import tool

MAX_SAID_CHARS = 300
WEIGHT = 0.25
_ENDINGS = ("done", "hand_over")
_HEARD = ("name", "code", "else", "order", "booking")
Reason = Literal["complaint", "other"]


@dataclass(slots=True)
class DeskState:
    """An episode: the database, the customer, and the record of what the agent did.

    `writes` are the calls that were carried out; `breaches` the rules that they broke.
    """

    store: Store
    customer: Customer
    identified: str | None = None
    writes: list[Step] = field(default_factory=list[Step])
    breaches: list[str] = field(default_factory=list[str])
    ending: str | None = None


class ServiceDesk(ToolEnv):
    """A customer to serve, by a written policy, with tools whose effects are final."""

    domain: ClassVar[Domain]
    splits: ClassVar[tuple[str, ...]] = tasks.SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    max_turns = 40
    max_tool_calls = 60
    system_prompt: ClassVar[str] = (
        "You serve a customer. Keep to the policy. Changes cannot be undone. Talk to the customer "
        "with say."
    )

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, made one by one."""
        return GeneratedTasks(
            partial(tasks.make_task, domain=self.domain.name, split=split),
            name=f"Service/{self.domain.name}",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> DeskState:
        """Return an untouched database and a customer who has just spoken."""
        brief = cast("Brief", task.data["brief"])
        return DeskState(
            Store(task.data["tables"]), Customer(brief.patience, introduced=brief.introduced)
        )

    def score(
        self, state: DeskState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return the four parts and what the gate takes away: their sum is 1 or 0."""
        goal, requests = cast("Goal", task.answer), _requests(task)
        due = {n for n, request in enumerate(requests) if request.final.fact is not None}
        holds = {
            "state": state.store.digest() == goal.state,
            "information": due <= set(state.customer.told),
            "conduct": not state.breaches,
            "ending": state.ending == goal.ending,
        }
        parts = {name: WEIGHT * held for name, held in holds.items()}
        gate = 0.0 if all(holds.values()) else -sum(parts.values())
        return {**parts, "all_or_nothing": gate}

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def say(self, text: str) -> str:
        """Say something to the customer and hear the answer.

        Args:
            text: the message.
        """
        if len(text) > MAX_SAID_CHARS:
            raise Refused(f"a message has at most {MAX_SAID_CHARS} characters")
        state, brief = self._desk, self._brief
        trusted = state.identified == brief.customer
        reply = state.customer.hear(text, brief, _requests(self.task), trusted=trusted)
        if state.customer.patience <= 0:
            self._end("customer_left")
        return f"Customer: {reply}"

    @tool(effects="write")
    def find_customer(self, full_name: str, code: str) -> str:
        """Find a customer by name and code.

        Args:
            full_name: first and last name.
            code: the customer's code.
        """
        wanted = (" ".join(full_name.lower().split()), code.strip())
        for key, row in self._desk.store.rows("customer"):
            if (row["name"].lower(), row["code"]) == wanted:
                self._desk.identified = key
                return f"{key}: {row['name']}, {self._holdings(key)}"
        raise Refused("there is no customer of that name and code")

    @tool(effects="write")
    def done(self) -> str:
        """End the conversation when all is done."""
        self._end(DONE)
        return "Done."

    @tool(effects="write")
    def hand_over(self, reason: Reason) -> str:
        """Hand the customer over to a person; this ends the conversation.

        Args:
            reason: why.
        """
        self._end(reason)
        return "Handed over."

    def write(self, name: str, **arguments: Any) -> str:
        """Return a write's reply: carry it out, and note which rule it broke.

        Raises:
            Refused: it cannot be done; nothing was changed.
        """
        state, step = self._desk, Step(name, arguments)
        broken = self._breach(step)
        reply = self.domain.apply(state.store, self._rules, step)
        state.writes.append(step)
        if broken is not None:
            state.breaches.append(broken)
        return reply

    def _breach(self, step: Step) -> str | None:
        """Return which rule a write is about to break, or None."""
        state, brief = self._desk, self._brief
        if state.identified is None:
            return "a change before the customer was found"
        request = state.customer.request(_requests(self.task))
        is_agreed = (
            request is not None
            and state.customer.has_confirmed
            and request.subject in step.arguments.values()
        )
        if brief.confirms and not is_agreed:
            return "a change without a yes"
        return self.domain.breach(
            state.store, self._rules, state.identified, step.tool, step.arguments
        )

    def _end(self, ending: str) -> None:
        self._desk.ending = ending
        self.finish(ending)

    def _holdings(self, customer: str) -> str:
        """Return the customer's orders or bookings as text."""
        noun = self.domain.noun
        rows = self._desk.store.rows(noun)
        held = [key for key, row in rows if row["customer"] == customer]
        return f"{noun}s {', '.join(held) or 'none'}"

    @property
    def _desk(self) -> DeskState:
        return cast("DeskState", self.state)

    @property
    def _brief(self) -> Brief:
        return cast("Brief", self.task.data["brief"])

    @property
    def _rules(self) -> Rules:
        return cast("Rules", self.task.data["rules"])

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        state = self._desk
        said = [m["content"] for m in self.episode.messages if m["role"] == "assistant"]
        script = oracle.Script(self._brief, _requests(self.task), state.customer)
        is_known = state.identified == self._brief.customer
        step = script.next_step(state.writes, is_known, lambda step: self._encode(step) in said)
        return self._encode(step)

    def _encode(self, step: Step) -> str:
        return self.encode_call(step.tool, **step.arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, often a call with ids that there are."""
        if self._episode is None:
            return super().sample_action(rng)
        is_early = self.episode.turns < 2
        if not is_early and rng.random() < 0.1:
            return super().sample_action(rng)
        called = pick(rng, list(self._toolbox.tools.values()))
        if called.name in _ENDINGS and (is_early or rng.random() < 0.7):
            return self.encode_call("say", text=pick(rng, _HEARD))
        values = _known_values(self.task.data["tables"])
        arguments = {
            name: _sampled(rng, values, shape)
            for name, shape in called.arguments.model_json_schema()["properties"].items()
        }
        return self.encode_call(called.name, **arguments)


def _requests(task: Task) -> Sequence[Request]:
    return cast("Sequence[Request]", task.data["requests"])


def _known_values(tables: Mapping[str, Mapping[str, Record]]) -> list[str]:
    """Return the ids of the records, and words that a customer reacts to."""
    return [*(key for rows in tables.values() for key in rows), *_HEARD]


def _sampled(rng: np.random.Generator, values: Sequence[str], shape: Mapping[str, Any]) -> Any:
    if "enum" in shape:
        return pick(rng, list(shape["enum"]))
    return int(rng.integers(1, 60)) if shape.get("type") == "integer" else pick(rng, values)
