"""The rules of one task: which policy paragraphs apply, and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.suite.service.plan import between, chance, pick

CONFIRM_LEVEL = 4
"""From this level on the customer has to agree to each change beforehand."""
AMOUNT_LEVEL = 2
REFUSE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs from task to task in a policy.

    return_days: how long a delivered item can be returned (shop).
    max_bags, bag_price, upgrade_price: per passenger (airline).
    """

    level: int
    return_days: int = 0
    max_bags: int = 0
    bag_price: int = 0
    upgrade_price: int = 0

    @property
    def tells_amounts(self) -> bool:
        """Whether the customer has to be told the money of each change."""
        return self.level >= AMOUNT_LEVEL

    @property
    def confirms(self) -> bool:
        """Whether the customer has to say yes before each change."""
        return self.level >= CONFIRM_LEVEL


@dataclass(frozen=True, slots=True)
class Course:
    """How one conversation is made up, before it is filled with requests."""

    requests: int
    forbidden: int
    has_sum: bool
    has_hand_over: bool
    has_change_of_mind: bool
    patience: int


def draw_course(rng: np.random.Generator, level: int) -> Course:
    """Return the make-up of a conversation of this level."""
    forbidden = {3: int(rng.integers(2)), 4: 1, 5: between(rng, 1, 2)}.get(level, 0)
    last = pick(rng, ("sum", "hand_over", "")) if level >= 4 else ""
    if level == 3 and chance(rng, 0.3):
        last = "hand_over"
    return Course(
        # The sum needs two requests about money, beside those that are refused.
        requests={1: 1, 2: 1, 3: 2, 4: 3, 5: 4}[level] + (last == "sum"),
        forbidden=min(forbidden, 1) if last == "sum" else forbidden,
        has_sum=last == "sum",
        has_hand_over=last == "hand_over",
        has_change_of_mind=last != "sum" and (level == 5 or (level == 4 and chance(rng, 0.5))),
        patience=2 if level == 5 else 3,
    )


def numbered(paragraphs: Sequence[str]) -> str:
    """Return a policy as text, a numbered paragraph a line."""
    return "\n".join(f"{number}. {text}" for number, text in enumerate(paragraphs, 1))


def shared_paragraphs(rules: Rules, noun: str) -> tuple[list[str], list[str]]:
    """Return what every policy opens with, and what it closes with; `noun` is order or booking."""
    opening = [
        "First find the customer by name and code; ask for what you were not told. Before that "
        "change nothing and tell nothing.",
        f"Change only what was asked for, and only a {noun} of this customer.".replace(
            "a order", "an order"
        ),
    ]
    closing: list[str] = []
    if rules.confirms:
        closing.append(
            f"Before each change say what you will do, with the id of the {noun}, and wait for yes."
        )
    if rules.level >= REFUSE_LEVEL:
        closing.append(
            "When all is done ask if there is anything else. At a complaint about the service, "
            "hand over with the reason complaint. Otherwise call done."
        )
    else:
        closing.append("At the end call done.")
    return opening, closing
