"""What a domain consists of: its world, its policy, its tools' effects, its requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treegrpo.envs.suite.service.plan import Fact, Request, Step, pick
from treegrpo.envs.suite.service.rules import Rules
from treegrpo.envs.suite.service.store import Store, Tables

Effect = Callable[..., str]
"""(store, rules, **arguments) -> reply: carries out a write."""
Breach = Callable[[Store, Rules, str, str, Mapping[str, Any]], str | None]
"""(store, rules, customer id, tool, arguments) -> which rule a write would break, if any."""


@dataclass
class Scene:
    """Where a conversation is being made up: the database as the gold steps leave it so far.

    used: ids that earlier requests are about; no later one touches them unless it is meant to.
    money: what each earlier request brings back or costs.
    """

    rng: np.random.Generator
    rules: Rules
    tables: Tables
    customer: str
    store: Store
    used: set[str] = field(default_factory=set[str])
    money: list[int] = field(default_factory=list[int])

    @property
    def hides(self) -> bool:
        """Whether a detail of the next request is told only when asked; drawn anew each time."""
        return self.rules.level >= 3 and bool(self.rng.random() < 0.6)

    def free(self, table: str, **wanted: Any) -> list[str]:
        """Return the customer's unused records of a table that have these values."""
        return [
            key
            for key, row in self.store.rows(table)
            if row["customer"] == self.customer
            and key not in self.used
            and all(row[name] == value for name, value in wanted.items())
        ]

    def phrase(self, *phrasings: str) -> str:
        """Return one of several ways to put a thing."""
        return pick(self.rng, phrasings)


Maker = Callable[[Scene], Request | None]


@dataclass(frozen=True)
class Domain:
    """A kind of business.

    kinds: level -> names of makers for allowed requests; forbidden: those for refusals.
    sum_text: how the customer asks for the sum of the money at the end.
    revise: another wish about the same thing, for a customer who changes their mind.
    """

    name: str
    noun: str
    draw_rules: Callable[[np.random.Generator, int], Rules]
    make_tables: Callable[[np.random.Generator], Tables]
    policy: Callable[[Rules], str]
    effects: Mapping[str, Effect]
    breach: Breach
    makers: Mapping[str, Maker]
    kinds: Mapping[int, Sequence[str]]
    forbidden: Sequence[str]
    revise: Callable[[Scene, Request], Request | None]
    sum_text: str
    sum_report: str

    def apply(self, store: Store, rules: Rules, step: Step) -> str:
        """Return the reply to a write and carry it out.

        Raises:
            Refused: it cannot be done; nothing was changed.
        """
        return self.effects[step.tool](store, rules, **step.arguments)


def hand_over_request() -> Request:
    """Return the customer's complaint, which another person has to take."""
    return Request(
        "complaint",
        "I also have a complaint about your service.",
        subject="complaint",
        report="",
        ending="complaint",
    )


def sum_request(domain: Domain, scene: Scene) -> Request | None:
    """Return the question of the sum, or None if fewer than two requests were about money."""
    if sum(amount > 0 for amount in scene.money) < 2:
        return None
    total = sum(scene.money)
    return Request(
        "sum",
        domain.sum_text,
        subject="sum",
        report=domain.sum_report.format(total=total),
        fact=Fact(str(total)),
    )
