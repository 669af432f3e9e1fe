"""The tables a run ends with: success before and after, and what it cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from treegrpo.envs.errors import TreegrpoError


@dataclass(frozen=True)
class GroupRow:
    """Success of one group of tasks (a hop count, or all of them).

    `success`, `low` and `high` are shares from 0 to 1; `low` to `high` is the 95 % interval,
    nan where it cannot be given (a single task).
    """

    label: str
    num_tasks: int
    success: float
    low: float
    high: float


@dataclass(frozen=True)
class Costs:
    """What a run spent; `seconds` by phase, such as generation, environment, training."""

    sampled_tokens: int
    tool_calls: int
    sharing_ratio: float
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])


def before_after_table(before: Sequence[GroupRow], after: Sequence[GroupRow]) -> Table:
    """Return the table of success by group, with intervals and the change in points.

    Raises:
        TreegrpoError: the two lists do not hold the same labels in the same order.
    """
    labels = [row.label for row in before], [row.label for row in after]
    if labels[0] != labels[1]:
        raise TreegrpoError(
            f"A before/after table asked for, but the groups before are {labels[0]} and after "
            f"{labels[1]}. Evaluate both on the same tasks."
        )
    table = Table(title="Success on held-out tasks (95 % interval, clustered by task)")
    table.add_column("group")
    for name in ("tasks", "before", "after", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for old, new in zip(before, after, strict=True):
        tasks = str(new.num_tasks)
        if old.num_tasks != new.num_tasks:
            tasks = f"{old.num_tasks} / {new.num_tasks}"
        change = 100 * (new.success - old.success)
        # Text, not str: a label is data and must not be read as rich's markup.
        table.add_row(Text(new.label), tasks, _share(old), _share(new), f"{change:+.1f} pt")
    return table


def cost_table(costs: Costs) -> Table:
    """Return the table of tokens, tool calls, sharing ratio and seconds by phase."""
    table = Table(title="Spent")
    table.add_column("what")
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_row("sampled tokens", f"{costs.sampled_tokens:,}", "")
    table.add_row("tool calls", f"{costs.tool_calls:,}", "")
    table.add_row("sharing ratio (flat / unique tokens)", f"{costs.sharing_ratio:.2f}", "")
    total = sum(costs.seconds.values())
    for phase, seconds in costs.seconds.items():
        share = f"{100 * seconds / total:.0f} %" if total > 0 else ""
        table.add_row(Text(phase), f"{seconds:.1f} s", share)
    if costs.seconds:
        table.add_section()
        table.add_row("all phases", f"{total:.1f} s", "")
    return table


def _share(row: GroupRow) -> str:
    interval = "n/a"
    if math.isfinite(row.low) and math.isfinite(row.high):
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return f"{100 * row.success:.1f} % ({interval})"
