"""A small bundle with everything in it that an export must carry, and hostile ones."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.usage import Usage

USAGE = Usage(
    input=100, cached=40, output=10, reasoning=4, dollars=Decimal("0.25"), requests=2
)  # fmt: skip


def toy_bundle(out: Path, *, usage: Usage | int | None = USAGE, **options: Any) -> Bundle:
    """Return a bundle of tasks 0 to 2, two trials each: tasks 0 and 2 are solved, 1 is not."""
    agent = ToyAgent(half_right, tokens=usage, name="half right")
    given: dict[str, Any] = {"split": "test", "num_tasks": 3, "trials": 2, "seed": 3}
    evaluate(agent, TOY, out=out, **(given | options))
    return read_bundle(out)
